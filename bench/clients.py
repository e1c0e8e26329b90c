"""Many workers of a fleet in a few processes: each asks for a lease again as soon as it has one, on a socket kept open.

Run by bench.renewals; prints one JSON object when its time is over.
"""

from __future__ import annotations

import itertools
import json
import os
import selectors
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any, Final

LOOPBACK: Final = "127.0.0.1"
CHUNK: Final = 1 << 20
OK: Final = b"HTTP/1.1 200 "
BUSY: Final = b"HTTP/1.1 503 "


class Unexpected(Exception):
    """The service did not answer with a frame."""


def requests(secret: str, known: dict[str, Any]) -> Iterator[bytes]:
    """Yield lease requests of a worker that knows the log up to some position, each with a nonce of its own."""
    asked = {"stream": False, "worker": "bench", "instance": f"{os.getpid():016x}", **known}
    for number in itertools.count():
        body = json.dumps({**asked, "nonce": f"{os.getpid():016x}{number:016x}"}).encode("ascii")
        head = (
            f"POST /v1/lease HTTP/1.1\r\nHost: {LOOPBACK}\r\nAuthorization: Bearer {secret}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        yield head.encode("ascii") + body


def answered(data: bytes) -> tuple[int, bytes] | None:
    """Return the status and body of a reply once it is there whole, None before.

    Raises:
        Unexpected: it is neither a frame nor the news that the service is busy, or states no length.
    """
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return None
    status = head[: len(OK)]
    if status not in (OK, BUSY):
        raise Unexpected(data[:300])
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    if len(lengths) != 1:
        raise Unexpected(data[:300])
    return (int(status[-4:]), body) if len(body) >= int(lengths[0].partition(b":")[2]) else None


def ask(port: int, secret: str) -> dict[str, Any]:
    """Return the first frame that a worker who knows nothing is given."""
    with socket.create_connection((LOOPBACK, port), timeout=10) as connection:
        connection.sendall(next(requests(secret, {"epoch": None, "seq": 0, "hash": None})))
        data = b""
        while (reply := answered(data)) is None:
            piece = connection.recv(CHUNK)
            if not piece:
                raise Unexpected(data[:300])
            data += piece
    frame: dict[str, Any] = json.loads(reply[1])
    return frame


@dataclass(slots=True)
class Replies:
    """What the workers were answered.

    Attributes:
        granted: leases.
        refused: requests for which the service had no place; they are asked again at once.
    """

    granted: int = 0
    refused: int = 0


def load(port: int, secret: str, *, workers: int, seconds: float, known: dict[str, Any]) -> Replies:
    """Renew from so many workers for so long, and return what they were answered."""
    asking = requests(secret, known)
    selector = selectors.DefaultSelector()
    connections = [socket.create_connection((LOOPBACK, port), timeout=10) for _ in range(workers)]
    received: dict[socket.socket, bytes] = {}
    for connection in connections:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(connection, selectors.EVENT_READ)
        connection.sendall(next(asking))
        received[connection] = b""
    replies = Replies()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for key, _ in selector.select(timeout=1):
            ready = key.fileobj
            assert isinstance(ready, socket.socket)  # noqa: S101 - only sockets were registered
            piece = ready.recv(CHUNK)
            if not piece:
                raise Unexpected(b"the service closed a connection")
            received[ready] += piece
            reply = answered(received[ready])
            if reply is not None:
                replies.granted += reply[0] == HTTPStatus.OK
                replies.refused += reply[0] != HTTPStatus.OK
                received[ready] = b""
                ready.sendall(next(asking))
    for connection in connections:
        connection.close()
    return replies


def main(given: dict[str, Any]) -> int:
    """Renew as told, and print how many leases were granted in which time."""
    begun = time.monotonic()
    replies = load(**given)
    print(json.dumps({**asdict(replies), "seconds": time.monotonic() - begun}))
    return 0


if __name__ == "__main__":
    sys.exit(main(json.load(sys.stdin)))
