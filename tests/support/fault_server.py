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

from haltline.acks import ACKS_PATH
from haltline.clocks import Clocks
from haltline.errors import ServiceError
from haltline.renewal import Reply
from haltline.testing import FakeService
from haltline.testing.frames import streams
from haltline.testing.streams import FakeStream
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


_ENDS_A_STREAM: Final = (_WITHOUT_A_REPLY - {Mode.HUGE_BODY}) | {Mode.DRIP_HEAD, Mode.GZIP, Mode.CLOSING}
"""What no frame of an open stream can show: it falls silent, is reset, or ends so that the next request shows it."""

_TICK_S: Final = 0.01


class FaultServer:
    """The server; use it as a context manager.

    Attributes:
        service: what it answers from.
        mode: how it answers each request that is read from now on, and how open streams go on: by a frame that is
            broken in this way, by silence, by a reset; or by an orderly end where only a reply's head can show it.
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
        with connection, contextlib.suppress(OSError, ServiceError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for path, body, token in self._requests(connection):
                if self._closing.is_set() or not self._serve_one(connection, path, body, token):
                    break
        self._open.discard(connection)

    def _serve_one(self, connection: socket.socket, path: str, body: bytes, token: str) -> bool:
        """Answer one request, and return whether the connection is kept."""
        if self.mode in _WITHOUT_A_REPLY:
            return self._fail(self.mode, connection)
        if path == ACKS_PATH:
            connection.sendall(_http(self.service.ack(body, token=token)))
            return True
        if not streams(body):
            return self._answer(connection, self.service.answer(body, token=token))
        stream = self.service.stream(body, token=token, clocks=Clocks())
        if not stream.open:
            return self._answer(
                connection, Reply(stream.status, stream.content_type, stream.encoded, stream.read(2**20))
            )
        return self._stream(connection, stream)

    def _requests(self, connection: socket.socket) -> Iterator[tuple[str, bytes, str]]:
        http = h11.Connection(h11.SERVER)
        path, body, token = "", b"", ""
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(connection.recv(65_536))
            elif isinstance(event, h11.Request):
                token = dict(event.headers).get(b"authorization", b"").decode().removeprefix("Bearer ")
                path, body = event.target.decode(), b""
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                yield path, body, token
                # The answer is written by hand, so that it can be wrong; h11 only has to be ready for the next.
                http = h11.Connection(h11.SERVER)
            else:
                return

    def _stream(self, connection: socket.socket, stream: FakeStream) -> bool:
        """Send a stream until it ends or the mode does something to it; return whether the connection is kept."""
        send = connection.sendall
        head = _HEAD + (b"Content-Encoding: gzip\r\n" if self.mode is Mode.GZIP else b"") + b"\r\n"
        if self.mode is Mode.DRIP_HEAD and not self._drip(send, head):
            return False
        if self.mode is not Mode.DRIP_HEAD:
            send(head)
        while not self._closing.is_set():
            if not stream.wait(_TICK_S):
                if self.mode in _ENDS_A_STREAM:
                    return self._fail_stream(self.mode, connection)
                continue
            try:
                line = stream.line(deadline_s=1, limit=2**30)
            except ServiceError:
                return False
            if line is None:
                send(b"0\r\n\r\n")
                return True
            if not self._frame(connection, line + b"\n"):
                return False
        return False

    def _frame(self, connection: socket.socket, line: bytes) -> bool:
        """Send one frame of a stream, and return whether another one may follow."""
        mode, send = self.mode, connection.sendall
        if self._first is None:
            self._first = line
        if mode in _ENDS_A_STREAM and mode is not Mode.CLOSING:
            return self._fail_stream(mode, connection)
        if mode is Mode.HUGE_BODY:
            self._flood(send, b"10000\r\n" + b" " * 65_536 + b"\r\n")
        if mode is Mode.HOLD:
            self.held.set()
            self.release.wait(30)
        chunk = _chunk(self._first if mode is Mode.REPLAY else line)
        if mode is Mode.DRIP_BODY:
            return self._drip(send, chunk)
        send(chunk[:-20] if mode is Mode.CUT else chunk)
        return mode is not Mode.CUT

    def _fail_stream(self, mode: Mode, connection: socket.socket) -> bool:
        """End a stream as a mode has it."""
        if mode in (Mode.BLACK_HOLE, Mode.RESET):
            return self._fail(mode, connection)
        connection.sendall(b"0\r\n\r\n")  # the next request will meet it
        self._closing.wait(0.02)
        return False

    def _answer(self, connection: socket.socket, reply: Reply) -> bool:
        """Send one reply, and return whether the connection is kept."""
        mode = self.mode
        data = _http(reply, encoding="gzip" if mode is Mode.GZIP else None)
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


_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/jsonl\r\nTransfer-Encoding: chunked\r\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _http(reply: Reply, *, encoding: str | None = None) -> bytes:
    lines = [
        f"HTTP/1.1 {reply.status} X",
        f"Content-Type: {reply.content_type}",
        f"Content-Length: {len(reply.body)}",
    ]
    if encoding is not None:
        lines.append(f"Content-Encoding: {encoding}")
    return "\r\n".join([*lines, "", ""]).encode() + reply.body
