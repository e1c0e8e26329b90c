"""How a reply is written: its head leaves with its body in one write, and the framing is HTTP's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config

from app.serving.replies import Reply


class Writes:
    """A socket that notes what is written, write by write, and takes so much of one at once."""

    def __init__(self, at_once: int = 65_536) -> None:
        self.seen: list[bytes] = []
        self._at_once = at_once

    def send(self, data: bytes) -> int:
        """Take as much as there is room for."""
        self.seen.append(data[: self._at_once])
        return len(self.seen[-1])

    def sendall(self, data: bytes) -> None:
        """Take one write, whatever its length."""
        self.seen.append(bytes(data))


def written(
    *pieces: bytes, status: str = "200 OK", method: str = "GET", version: tuple[int, int] = (1, 1), **headers: str
) -> list[bytes]:
    """Return the writes of a reply."""
    socket = Writes()
    request: Any = SimpleNamespace(method=method, version=version, should_close=lambda: False)
    reply = Reply(request, socket, Config())
    reply.start_response(status, [(name.replace("_", "-"), value) for name, value in headers.items()])
    for piece in pieces:
        reply.write(piece)
    reply.close()
    return socket.seen


def test_a_body_of_known_length_is_one_write() -> None:
    """Head and body leave together, byte for byte as they would apart."""
    (whole,) = written(b"abc", Content_Length="3", X_Frame_Options="DENY")
    head, _, body = whole.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\nServer: ")
    assert b"\r\nConnection: keep-alive\r\n" in head
    assert head.endswith(b"\r\nContent-Length: 3\r\nX-Frame-Options: DENY")
    assert body == b"abc"


def test_later_pieces_are_not_held_back() -> None:
    """The head goes with the first piece; every further piece leaves as it comes."""
    first, second = written(b"abc", b"de", Content_Length="5")
    assert first.endswith(b"\r\n\r\nabc")
    assert second == b"de"


def test_what_is_not_taken_at_once_follows() -> None:
    """A socket that takes a part of a write is given the rest."""
    socket = Writes(at_once=10)
    request: Any = SimpleNamespace(method="GET", version=(1, 1), should_close=lambda: False)
    reply = Reply(request, socket, Config())
    reply.start_response("200 OK", [("Content-Length", "3")])
    reply.write(b"abc")
    assert len(socket.seen) == 2
    assert b"".join(socket.seen).endswith(b"\r\n\r\nabc")


def test_the_date_is_todays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The date is that of the second in which a reply is written, in the form of RFC 9110."""
    dates = []
    for now in (784_111_777.9, 784_111_777.2, 784_111_778.0):
        monkeypatch.setattr("time.time", lambda now=now: now)
        (head,) = written()
        dates.append(head.split(b"\r\n")[2])
    assert dates == [
        b"Date: Sun, 06 Nov 1994 08:49:37 GMT",
        b"Date: Sun, 06 Nov 1994 08:49:37 GMT",
        b"Date: Sun, 06 Nov 1994 08:49:38 GMT",
    ]


def test_a_body_of_unknown_length_is_chunked() -> None:
    """Chunks are framed as RFC 9112 has it, and the last one ends the body."""
    first, second, end = written(b"a" * 26, b"de")
    assert b"\r\nTransfer-Encoding: chunked\r\n" in first
    assert first.endswith(b"\r\n\r\n1A\r\n" + b"a" * 26 + b"\r\n")
    assert (second, end) == (b"2\r\nde\r\n", b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("status", "method", "pieces"),
    [("200 OK", "GET", ()), ("200 OK", "GET", (b"",)), ("200 OK", "HEAD", (b"",)), ("204 No Content", "GET", ())],
)
def test_a_reply_without_a_body_is_its_head(status: str, method: str, pieces: tuple[bytes, ...]) -> None:
    """Where there is no body the head still leaves, once."""
    (whole,) = written(*pieces, status=status, method=method, Content_Length="0")
    assert whole.startswith(f"HTTP/1.1 {status}\r\n".encode())
    assert whole.endswith(b"\r\n\r\n")


def test_an_old_client_gets_no_chunks() -> None:
    """HTTP/1.0 knows no chunks: the body ends with the connection."""
    writes = written(b"abc", b"de", version=(1, 0))
    assert b"Connection: close\r\n" in writes[0]
    assert b"".join(writes).endswith(b"\r\n\r\nabcde")
