"""Thousands of workers' lease streams in one process, and when each of them is told of a flip.

They keep to the protocol and no more: each asks again on the same connection when its stream ends in order, and waits
a second where it is told that the service is busy. Frames are not proven, only their position is read. Run by
bench.fanout.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Callable
from typing import Any, Final

from bench.crowd import LOOPBACK, Crowd, Unexpected, main

BUSY_S: Final = 1.0
FRAME_END: Final = b"}\n\r\n"
"""A line and the end of its chunk. Inside a frame a line feed is never written as such."""

STREAM_END: Final = b"0\r\n\r\n"


class Streams(Crowd):
    """So many workers, each with a lease stream."""

    def __init__(self, port: int, size: int, *, secret: str, tell: Callable[[dict[str, Any]], None]) -> None:
        """Set up, without connecting.

        Args:
            port: where the node listens.
            size: how many workers.
            secret: their token.
            tell: takes what there is to report.
        """
        super().__init__(port, size, tell=tell)
        self._head = (
            f"POST /v1/lease HTTP/1.1\r\nHost: {LOOPBACK}\r\nAuthorization: Bearer {secret}\r\n"
            f"Content-Type: application/json\r\nContent-Length: "
        )
        self._numbers = itertools.count()
        self._instance = os.urandom(8).hex()
        self._frames: dict[int, bytes] = {}
        self._waiting: set[int] = set()

    def first(self, fd: int, memory: bytes) -> bytes:
        """Return a worker's request; it goes on from the frame that it remembers."""
        if memory:
            self._frames[fd] = memory
        return self._request(fd)

    def gone(self, fd: int) -> bytes:
        """Forget a connection, and return its newest frame."""
        self._waiting.discard(fd)
        return self._frames.pop(fd, b"")

    def read(self, fd: int, data: bytes) -> int:
        """Take what came of a stream, and return the position that its newest whole frame shows."""
        if fd in self._waiting:
            body = self._begun(fd, data)
            if not body:
                return 0
            data = body
        if data.endswith(FRAME_END):
            self.counts.messages += data.count(FRAME_END)
            self._frames[fd] = data
            return position(data)
        if data.endswith(STREAM_END):
            seq = 0
            if len(data) > len(STREAM_END):
                self.counts.messages += data.count(FRAME_END)
                self._frames[fd] = data
                seq = position(data)
            self.counts.asked += 1
            self.send(fd, self._request(fd))
            return seq
        self.rests[fd] = data
        return 0

    def _begun(self, fd: int, data: bytes) -> bytes:
        """Take the head of a reply, and return what follows it; nothing while the first frame is not whole."""
        head, end, body = data.partition(b"\r\n\r\n")
        if not end:
            self.rests[fd] = data
            return b""
        if head.startswith(b"HTTP/1.1 200 "):
            if not body.endswith((FRAME_END, STREAM_END)):
                self.rests[fd] = data
                return b""
            self._waiting.remove(fd)
            self.ready(fd, position(body))
            return body
        if not head.startswith(b"HTTP/1.1 503 "):
            raise Unexpected(data[:500])
        if len(body) < length(head):
            self.rests[fd] = data
            return b""
        self.counts.refused += 1
        self.send_later(fd, self._request(fd), seconds=BUSY_S)
        return b""

    def _request(self, fd: int) -> bytes:
        self._waiting.add(fd)
        epoch, seq, hashed = known(self._frames.get(fd))
        body = json.dumps(
            {
                "stream": True,
                "worker": "bench",
                "instance": self._instance,
                "epoch": epoch,
                "seq": seq,
                "hash": hashed,
                "nonce": f"{next(self._numbers):032x}",
            }
        )
        return f"{self._head}{len(body)}\r\n\r\n{body}".encode("ascii")


def position(data: bytes) -> int:
    """Return the position that the last frame of ``data`` shows: the first seq after its ``from``."""
    at = data.index(b'"seq":', data.rindex(b'"from":')) + 6
    return int(data[at : data.index(b",", at)])


def known(data: bytes | None) -> tuple[str | None, int, str | None]:
    """Return what a worker knows after the last frame of ``data``: epoch, seq and hash."""
    if data is None:
        return None, 0, None
    at = data.rindex(b'"from":')
    return (
        _text(data, data.rindex(b'"epoch":"', 0, at) + 9),
        position(data),
        _text(data, data.index(b'"hash":"', at) + 8),
    )


def _text(data: bytes, start: int) -> str:
    return data[start : data.index(b'"', start)].decode("ascii")


def length(head: bytes) -> int:
    """Return the length that the head of a reply states.

    Raises:
        Unexpected: it states none, or several.
    """
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    if len(lengths) != 1:
        raise Unexpected(head)
    return int(lengths[0].partition(b":")[2])


if __name__ == "__main__":
    sys.exit(main(Streams))
