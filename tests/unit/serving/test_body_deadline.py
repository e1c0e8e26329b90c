"""The body deadline of the serving process: whole bodies pass, slow ones are cut off, large ones are not read."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from typing import Any

import gevent  # type: ignore[import-untyped]

from app.serving.bodies import BODY_LIMIT, BodyDeadline


class Dripping:
    """A body that never comes to its end."""

    failed = False

    def read(self, size: int) -> bytes:
        """Wait for longer than any deadline here."""
        gevent.sleep(30)
        return b"x" * size


class Seen:
    """An application that notes what it is given."""

    def __init__(self) -> None:
        self.environ: dict[str, Any] = {}

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Take the request."""
        self.environ = environ
        start_response("200 OK", [])
        return [b"ok"]


def ask(environ: dict[str, Any], *, seconds: float = 5) -> tuple[Seen, str, dict[str, str], bytes]:
    """Send a request through the deadline; return what the application saw, and what was answered."""
    seen = Seen()
    answered: list[tuple[str, dict[str, str]]] = []

    def start_response(status: str, headers: list[tuple[str, str]]) -> None:
        answered.append((status, dict(headers)))

    body = b"".join(BodyDeadline(seen, seconds=seconds)(environ, start_response))
    return seen, *answered[0], body


def test_a_whole_body_passes() -> None:
    """A body that comes in time is given to the application, of known length, chunked or not."""
    for environ in (
        {"CONTENT_LENGTH": "3", "wsgi.input": io.BytesIO(b"abc")},
        {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input": io.BytesIO(b"abc"), "wsgi.input_terminated": True},
    ):
        seen, status, _, _ = ask(environ)
        assert status == "200 OK"
        assert seen.environ["wsgi.input"].read() == b"abc"
        assert seen.environ["CONTENT_LENGTH"] == "3"
        assert "HTTP_TRANSFER_ENCODING" not in seen.environ


def test_no_body_is_not_waited_for() -> None:
    """Without a body nothing is read."""
    dripping = Dripping()
    for environ in ({"wsgi.input": dripping}, {"CONTENT_LENGTH": "0", "wsgi.input": dripping}):
        seen, _, _, _ = ask(environ)
        assert seen.environ["wsgi.input"] is dripping


def test_a_slow_body_is_cut_off() -> None:
    """A body that drips is answered 408, the application is not called, and the connection is not used again."""
    dripping = Dripping()
    seen, status, headers, body = ask({"CONTENT_LENGTH": "1000", "wsgi.input": dripping}, seconds=0.05)
    assert status.startswith("408")
    assert headers["Content-Type"] == "application/problem+json"
    assert json.loads(body)["code"] == "body_timeout"
    assert seen.environ == {}
    assert dripping.failed


def test_a_large_body_is_not_read() -> None:
    """A body that says it is too large goes to the application unread; one that does not say is read no further."""
    dripping = Dripping()
    seen, _, _, _ = ask({"CONTENT_LENGTH": str(BODY_LIMIT + 1), "wsgi.input": dripping})
    assert seen.environ["wsgi.input"] is dripping
    endless = io.BytesIO(b" " * 10 * BODY_LIMIT)
    seen, _, _, _ = ask({"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input": endless})
    assert seen.environ["CONTENT_LENGTH"] == str(BODY_LIMIT + 1)
    assert endless.tell() == BODY_LIMIT + 1
