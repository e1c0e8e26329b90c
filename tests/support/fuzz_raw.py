"""Bytes to a real server and back: what no HTTP library would send, and the replies as they stand on the wire."""

from __future__ import annotations

import contextlib
import io
import socket
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Final

from werkzeug.datastructures import Headers

from tests.support.fuzz_witness import Answer
from tests.support.ports import LOOPBACK

WAIT_S: Final = 20.0
"""How long a reply may take, seconds: longer than every time-out of the server."""


@dataclass
class _Wire:
    """What http.client reads a reply from."""

    stream: io.BytesIO

    def makefile(self, mode: str) -> io.BytesIO:
        """Return the bytes that are left."""
        assert mode == "rb"
        return self.stream


class _Kept(io.BytesIO):
    """Bytes that stay readable when one reply has been read to its end."""

    def close(self) -> None:
        """Do nothing: the next reply follows."""


def exchange(port: int, *pieces: bytes, half_close: bool = True) -> bytes:
    """Send bytes over one connection and return everything that comes back until the server closes it.

    Args:
        port: where the server listens.
        pieces: what is sent, in this order; a server that answers and closes in between is no failure.
        half_close: whether to say, when all was sent, that nothing more will come.
    """
    got = bytearray()
    with socket.create_connection((LOOPBACK, port), timeout=WAIT_S) as connection:
        with contextlib.suppress(OSError):
            for piece in pieces:
                connection.sendall(piece)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65_536):
                got += piece
    return bytes(got)


def answers(method: str, path: str, got: bytes) -> list[Answer]:
    """Return the replies that stand in ``got``, one after the other."""
    stream = _Kept(got)
    found = []
    while stream.tell() < len(got):
        response = HTTPResponse(_Wire(stream), method=method)  # type: ignore[arg-type]  # all it needs of a socket
        response.begin()
        body = response.read()
        found.append(Answer(method, path, response.status, Headers(response.getheaders()), body))
    return found


def request(
    method: str, path: str, *, headers: tuple[tuple[str, str], ...] = (), body: bytes | None = None, more: bytes = b""
) -> bytes:
    """Return a request as bytes; ``more`` is further header lines as they are."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in headers if name != "Host"]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n" + more + b"\r\n" + (body or b"")
