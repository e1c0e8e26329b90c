"""A real HTTP server on loopback that answers lease requests, and breaks in every way a network or a proxy does."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from enum import StrEnum
from types import TracebackType
from typing import Final, Self

import h11

from haltline.renewal import Reply
from haltline.testing import FakeService
from tests.support.ports import LOOPBACK, free_port

DRIP_S: Final = 0.2
"""How long a dripping reply waits between two bytes, seconds."""


class Mode(StrEnum):
    """How the server answers."""

    NORMAL = "normal"
    CLOSING = "answers, and closes each kept connection a moment later"
    DRIP_HEAD = "drips its headers"
    DRIP_BODY = "drips its body"
    BLACK_HOLE = "accepts and says nothing"
    RESET = "resets the connection"
    REDIRECT = "redirects to itself"
    HTML = "answers with a page"
    GZIP = "says that its body is compressed"
    HUGE_HEAD = "sends headers without end"
    HUGE_BODY = "sends a body without end"
    CUT = "closes in the middle of the body"
    GARBAGE = "does not speak HTTP"
    REPLAY = "plays the first reply again"
    HOLD = "answers when told to"


_WITHOUT_A_REPLY: Final = frozenset(
    {Mode.BLACK_HOLE, Mode.RESET, Mode.GARBAGE, Mode.REDIRECT, Mode.HTML, Mode.HUGE_HEAD, Mode.HUGE_BODY}
)


class FaultServer:
    """The server; use it as a context manager.

    Attributes:
        service: what it answers from.
        mode: how it answers each request that is read from now on.
        held: set once an answer is ready and held back.
        release: sends what is held back.
        connections: how many connections it has accepted.
    """

    def __init__(self, service: FakeService) -> None:
        self.service = service
        self.mode = Mode.NORMAL
        self.held = threading.Event()
        self.release = threading.Event()
        self.connections = 0
        self._first: bytes | None = None
        self._closing = threading.Event()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = self._bound()

    @staticmethod
    def _bound() -> socket.socket:
        for _ in range(20):
            with contextlib.suppress(OSError):
                return socket.create_server((LOOPBACK, free_port()), backlog=128)
        raise RuntimeError("no port to listen on")

    @property
    def url(self) -> str:
        """Where it answers."""
        host, port = self._listener.getsockname()
        return f"http://{host}:{port}"

    def __enter__(self) -> Self:
        """Start."""
        self._spawn(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection, and wait for every thread."""
        self._closing.set()
        self.release.set()
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self._listener.close()

    def _spawn(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="fault-server", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(connection)
            self._spawn(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for body, token in self._requests(connection):
                if self._closing.is_set() or not self._answer(connection, body, token):
                    break
        self._open.discard(connection)

    def _requests(self, connection: socket.socket) -> Iterator[tuple[bytes, str]]:
        http = h11.Connection(h11.SERVER)
        body, token = b"", ""
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(connection.recv(65_536))
            elif isinstance(event, h11.Request):
                token = dict(event.headers).get(b"authorization", b"").decode().removeprefix("Bearer ")
                body = b""
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                yield body, token
                # The answer is written by hand, so that it can be wrong; h11 only has to be ready for the next.
                http = h11.Connection(h11.SERVER)
            else:
                return

    def _answer(self, connection: socket.socket, body: bytes, token: str) -> bool:
        """Answer one request, and return whether the connection is kept."""
        mode = self.mode
        if mode in _WITHOUT_A_REPLY:
            return self._fail(mode, connection)
        data = _http(self.service.answer(body, token=token), encoding="gzip" if mode is Mode.GZIP else None)
        if self._first is None:
            self._first = data
        if mode is Mode.HOLD:
            self.held.set()
            self.release.wait(30)
        if mode in (Mode.DRIP_HEAD, Mode.DRIP_BODY):
            head = 0 if mode is Mode.DRIP_HEAD else data.index(b"\r\n\r\n") + 4
            connection.sendall(data[:head])
            return self._drip(connection.sendall, data[head:])
        if mode is Mode.CUT:
            data = data[:-20]
        connection.sendall(self._first if mode is Mode.REPLAY else data)
        if mode is Mode.CLOSING:
            self._closing.wait(0.02)
        return mode not in (Mode.CLOSING, Mode.CUT)

    def _fail(self, mode: Mode, connection: socket.socket) -> bool:
        """Do anything but answer the question."""
        send = connection.sendall
        kept = mode in (Mode.REDIRECT, Mode.HTML)
        if mode is Mode.BLACK_HOLE:
            self._closing.wait(30)
        elif mode is Mode.RESET:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif mode is Mode.GARBAGE:
            send(b"220 mail.example ESMTP ready\r\n\r\n")
        elif mode is Mode.REDIRECT:
            send(f"HTTP/1.1 301 Moved\r\nLocation: {self.url}/v1/lease\r\nContent-Length: 0\r\n\r\n".encode())
        elif mode is Mode.HTML:
            send(_http(Reply(200, "text/html", encoded=False, body=b"<html>log in to the hotel</html>")))
        elif mode is Mode.HUGE_HEAD:
            send(b"HTTP/1.1 200 OK\r\n")
            self._flood(send, b"X-Padding: " + b"x" * 1_000 + b"\r\n")
        elif mode is Mode.HUGE_BODY:
            send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
            self._flood(send, b"10000\r\n" + b" " * 65_536 + b"\r\n")
        return kept

    def _drip(self, send: Callable[[bytes], None], data: bytes) -> bool:
        for byte in data:
            send(bytes([byte]))
            if self._closing.wait(DRIP_S):
                return False
        return True

    def _flood(self, send: Callable[[bytes], None], data: bytes) -> None:
        while not self._closing.is_set():
            send(data)


def _http(reply: Reply, *, encoding: str | None = None) -> bytes:
    lines = [
        f"HTTP/1.1 {reply.status} X",
        f"Content-Type: {reply.content_type}",
        f"Content-Length: {len(reply.body)}",
    ]
    if encoding is not None:
        lines.append(f"Content-Encoding: {encoding}")
    return "\r\n".join([*lines, "", ""]).encode() + reply.body
