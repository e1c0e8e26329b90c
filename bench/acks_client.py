"""Thousands of workers' acks in one process: told of a flip, each posts that it has applied it, soon.

As the client does: on a connection beside the stream's, after a pause that is drawn. Run by bench.fanout.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable
from typing import Any, Final

from bench.crowd import LOOPBACK, Crowd, Unexpected, main
from bench.streams_client import length

AHEAD_S: Final = 0.005
"""When to say it again, seconds, if a node has not read yet what it is told of."""


class Acks(Crowd):
    """So many workers that acknowledge."""

    def __init__(
        self,
        port: int,
        size: int,
        *,
        secret: str,
        epoch: str,
        seq: int,
        hashed: str,
        tell: Callable[[dict[str, Any]], None],
    ) -> None:
        """Set up, without connecting.

        Args:
            port: where the node listens.
            size: how many workers.
            secret: their token.
            epoch: the log that they know.
            seq: a position of that log, which they acknowledge first.
            hashed: its hash.
            tell: takes what there is to report.
        """
        super().__init__(port, size, tell=tell)
        self._head = (
            f"POST /v1/acks HTTP/1.1\r\nHost: {LOOPBACK}\r\nAuthorization: Bearer {secret}\r\n"
            f"Content-Type: application/json\r\nContent-Length: "
        )
        self._common = {"worker": "bench", "instance": os.urandom(8).hex(), "epoch": epoch}
        self._seq, self._hash = seq, hashed

    def first(self, fd: int, memory: bytes) -> bytes:  # noqa: ARG002 - a port's names
        """Return an ack of the newest position."""
        return self._request()

    def gone(self, fd: int) -> bytes:  # noqa: ARG002 - as above
        """Forget a connection."""
        return b""

    def obey(self, command: dict[str, Any]) -> None:
        """Have every worker acknowledge a position within so many seconds."""
        if "seq" in command:
            self._seq, self._hash = command["seq"], command["hash"]
            request = self._request()
            for fd in self.connected():
                self.send_later(fd, request, seconds=random.uniform(0, command["within_s"]))

    def read(self, fd: int, data: bytes) -> int:
        """Take a reply, and return the position that it answers.

        An ack that is refused as too much is not repeated; one that is ahead of the node's own reading is, in a moment:
        here a worker is told of a kill by whoever killed, not by the node.
        """
        head, end, body = data.partition(b"\r\n\r\n")
        if not end or (not head.startswith(b"HTTP/1.1 204 ") and len(body) < length(head)):
            self.rests[fd] = data
            return 0
        if head.startswith(b"HTTP/1.1 503 "):
            self.counts.refused += 1
        elif head.startswith(b"HTTP/1.1 204 "):
            self.counts.messages += 1
        elif head.startswith(b"HTTP/1.1 409 ") and b":regress" in body:
            self.send_later(fd, self._request(), seconds=AHEAD_S)
            return 0
        else:
            raise Unexpected(data[:500])
        self.ready(fd, self._seq)
        return self._seq

    def _request(self) -> bytes:
        body = json.dumps({**self._common, "seq": self._seq, "hash": self._hash})
        return f"{self._head}{len(body)}\r\n\r\n{body}".encode("ascii")


if __name__ == "__main__":
    sys.exit(main(Acks))
