"""Thousands of subscriptions to one Redis channel in one process, and when each of them is told a number.

Run by bench.floor_pubsub: the least that anything which tells many processes one thing has to do.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from bench.crowd import Crowd, main


class Subscribers(Crowd):
    """So many subscriptions."""

    def __init__(self, port: int, size: int, *, channel: str, tell: Callable[[dict[str, Any]], None]) -> None:
        """Set up, without connecting.

        Args:
            port: where the server listens.
            size: how many subscriptions.
            channel: what to; numbers are published on it.
            tell: takes what there is to report.
        """
        super().__init__(port, size, tell=tell)
        self._subscribe = subscribe(channel)
        self._subscribing: set[int] = set()

    def first(self, fd: int, memory: bytes) -> bytes:  # noqa: ARG002 - a port's names
        """Return the command that subscribes."""
        self._subscribing.add(fd)
        return self._subscribe

    def gone(self, fd: int) -> bytes:
        """Forget a connection."""
        self._subscribing.discard(fd)
        return b""

    def read(self, fd: int, data: bytes) -> int:
        """Take what came, and return the newest number that was published."""
        if fd in self._subscribing:
            # Its reply ends with how many channels there are now.
            if not data.endswith(b":1\r\n"):
                self.rests[fd] = data
                return 0
            self._subscribing.remove(fd)
            self.ready(fd, 0)
            return 0
        number = newest(data)
        if not number:
            self.rests[fd] = data
            return 0
        self.counts.messages += 1
        return number


def subscribe(channel: str) -> bytes:
    """Return the command that subscribes to a channel."""
    return f"*2\r\n$9\r\nSUBSCRIBE\r\n${len(channel)}\r\n{channel}\r\n".encode("ascii")


def newest(data: bytes) -> int:
    """Return the number that ``data`` ends with as a message's payload; 0 while that has not come whole."""
    if not data.endswith(b"\r\n"):
        return 0
    payload = data[data.rfind(b"\n", 0, -2) + 1 : -2]
    return int(payload) if payload.isdigit() else 0


if __name__ == "__main__":
    sys.exit(main(Subscribers))
