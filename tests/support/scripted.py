"""A server on loopback that says what a test has written down, byte for byte, over TCP or TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from tests.support.ports import LOOPBACK, free_port

HANDSHAKE_S: Final = 5.0

Script = Callable[[socket.socket], None]
"""Serves one connection; it is closed when the function returns or fails with an OSError."""


class Scripted:
    """The server; use it as a context manager.

    Args:
        script: serves each connection, in a thread of its own.
        tls: what TLS is spoken by; None for plain TCP.
        host: the address of this machine that it listens at.
        port: its port; by default one that is free.

    Attributes:
        tls: the same; it may be changed, for connections to come.
        connections: how many connections it has accepted.
        script: serves each connection that is accepted from now on.
    """

    def __init__(
        self, script: Script, *, tls: ssl.SSLContext | None = None, host: str = LOOPBACK, port: int | None = None
    ) -> None:
        self.script = script
        self.tls = tls
        self.connections = 0
        self._scheme = "http" if tls is None else "https"
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((host, free_port() if port is None else port), backlog=64)

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"{self._scheme}://{LOOPBACK}:{self.port}"

    def __enter__(self) -> Self:
        """Start."""
        self._spawn(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection, and wait for every thread."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self.cut()
        for thread in self._threads:
            thread.join(5)
        self._listener.close()

    def cut(self) -> None:
        """End every open connection."""
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _spawn(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="scripted", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._spawn(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        self._open.add(connection)
        secured = connection
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls is not None:
                connection.settimeout(HANDSHAKE_S)
                secured = self.tls.wrap_socket(connection, server_side=True)
                secured.settimeout(None)
                self._open.add(secured)
            self.script(secured)
        except OSError:
            pass  # whoever called has gone, which is what some tests are about
        finally:
            self._open -= {connection, secured}
            secured.close()


def request(connection: socket.socket) -> bytes:
    """Read one request, whose body has a length, and return it; empty at the end of the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        came = connection.recv(65_536)
        if not came:
            return b""
        data += came
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    while len(body) < length:
        body += connection.recv(65_536)
    return head + b"\r\n\r\n" + body


def forwarding(port: int) -> Script:
    """Return a script that hands everything on to another server of this machine, and everything back."""

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def script(connection: socket.socket) -> None:
        with socket.create_connection((LOOPBACK, port)) as behind:
            there = threading.Thread(target=pump, args=(connection, behind), daemon=True)
            there.start()
            pump(behind, connection)
            there.join(5)

    return script


STREAM: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/jsonl\r\nTransfer-Encoding: chunked\r\n\r\n"
END: Final = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Return one chunk of a body."""
    return b"%X\r\n%s\r\n" % (len(data), data)


def whole(body: bytes, *, status: int = 200, kind: bytes = b"application/json") -> bytes:
    """Return a whole reply."""
    return b"HTTP/1.1 %d X\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s" % (status, kind, len(body), body)
