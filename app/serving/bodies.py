"""Bodies: read before the application is called, within a deadline, and never more than it would take."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any, Final

import gevent  # type: ignore[import-untyped]

from app.serving.refusals import problem

BODY_S: Final = 10.0
"""How long the body of a request may take, seconds, however it drips."""

BODY_LIMIT: Final = 16 * 1024
"""How much of a body is read before the application decides that it is too large, bytes."""

UNKNOWN_BODY_S: Final = 0.01
"""How long the body of a request without a valid token is waited for, seconds: what is there is read, no more."""

UNKNOWN: Final = "haltline.unknown"
"""Where the environment of a request without a valid token has what makes its reply the connection's last."""

Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


class BodyDeadline:
    """Reads the body of a request before the application is called, within a deadline."""

    def __init__(self, wsgi: Wsgi, *, seconds: float = BODY_S) -> None:
        self._wsgi = wsgi
        self._seconds = seconds

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Serve one request."""
        length = environ.get("CONTENT_LENGTH") or "0"
        chunked = "HTTP_TRANSFER_ENCODING" in environ
        if (length == "0" and not chunked) or (not chunked and int(length) > BODY_LIMIT):
            return self._wsgi(environ, start_response)
        body = environ["wsgi.input"]
        data: bytes | None = None
        last = environ.get(UNKNOWN)
        with gevent.Timeout(self._seconds if last is None else UNKNOWN_BODY_S, exception=False):
            data = body.read(BODY_LIMIT + 1)
        if data is None and last is not None:
            # A caller that may do nothing is not waited for: it would keep others out. The application says why.
            body.failed = True
            last()
            environ["wsgi.input"] = io.BytesIO()
            return self._wsgi(environ, start_response)
        if data is None:
            # Where the next request would begin on this connection is unknown: it is not used again.
            body.failed = True
            return self._refused(start_response, "body_timeout")
        if not chunked and len(data) < int(length):
            # The caller went away in the middle: a part of a request is none, though it may read like a whole one.
            body.failed = True
            return self._refused(start_response, "bad_request")
        # The body is whole now, chunked or not: its length says so, and whether it is too large.
        environ["wsgi.input"] = io.BytesIO(data)
        environ["CONTENT_LENGTH"] = str(len(data))
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        return self._wsgi(environ, start_response)

    @staticmethod
    def _refused(start_response: Any, code: str) -> Iterable[bytes]:
        status, headers, told = problem(code)
        start_response(status, headers)
        return [told]
