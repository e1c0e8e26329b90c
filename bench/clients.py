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
from typing import Any, Final

LOOPBACK: Final = "127.0.0.1"
CHUNK: Final = 1 << 20


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


def whole(data: bytes) -> bytes | None:
    """Return the body of a reply once it is there whole, None before.

    Raises:
        Unexpected: it is not a 200 with a length.
    """
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return None
    if not head.startswith(b"HTTP/1.1 200 "):
        raise Unexpected(data[:300])
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    if len(lengths) != 1:
        raise Unexpected(data[:300])
    return body if len(body) >= int(lengths[0].partition(b":")[2]) else None


def ask(port: int, secret: str) -> dict[str, Any]:
    """Return the first frame that a worker who knows nothing is given."""
    with socket.create_connection((LOOPBACK, port), timeout=10) as connection:
        connection.sendall(next(requests(secret, {"epoch": None, "seq": 0, "hash": None})))
        data = b""
        while (body := whole(data)) is None:
            piece = connection.recv(CHUNK)
            if not piece:
                raise Unexpected(data[:300])
            data += piece
    frame: dict[str, Any] = json.loads(body)
    return frame


def load(port: int, secret: str, *, workers: int, seconds: float, known: dict[str, Any]) -> int:
    """Renew from so many workers for so long, and return how many leases they were given."""
    asking = requests(secret, known)
    selector = selectors.DefaultSelector()
    connections = [socket.create_connection((LOOPBACK, port), timeout=10) for _ in range(workers)]
    received: dict[socket.socket, bytes] = {}
    for connection in connections:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(connection, selectors.EVENT_READ)
        connection.sendall(next(asking))
        received[connection] = b""
    granted = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for key, _ in selector.select(timeout=1):
            ready = key.fileobj
            assert isinstance(ready, socket.socket)  # noqa: S101 - only sockets were registered
            piece = ready.recv(CHUNK)
            if not piece:
                raise Unexpected(b"the service closed a connection")
            received[ready] += piece
            if whole(received[ready]) is not None:
                granted += 1
                received[ready] = b""
                ready.sendall(next(asking))
    for connection in connections:
        connection.close()
    return granted


def main(given: dict[str, Any]) -> int:
    """Renew as told, and print how many leases were granted in which time."""
    begun = time.monotonic()
    granted = load(**given)
    print(json.dumps({"granted": granted, "seconds": time.monotonic() - begun}))
    return 0


if __name__ == "__main__":
    sys.exit(main(json.load(sys.stdin)))
