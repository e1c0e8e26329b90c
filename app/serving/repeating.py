"""A request whose head is, byte for byte, that of the one before on its connection: it means the same.

A worker asks for its next stream every few seconds, on the same connection and with the same request line and headers;
only the body is another. Parsing those again costs half as much as the whole answer. Nothing is guessed: a head that
differs in one byte, or a body that has not come together with it, goes the usual way.
"""

from __future__ import annotations

import io
from typing import Any, Final

from gunicorn.http.unreader import SocketUnreader

HEAD_MAX: Final = 2_048
"""The longest head that is remembered, bytes: one copy of it is kept for each connection."""


class Requests:
    """The requests of one connection, one after the other."""

    def __init__(self, parser: Any, client: Any) -> None:
        """Set up.

        Args:
            parser: gunicorn's, for requests that have to be parsed.
            client: the socket that they come by.
        """
        self._parser = parser
        self._reader = parser.unreader = _Remembering(client)
        self._head = b""
        self._length = 0
        self._request: Any = None
        self._environ: dict[str, Any] = {}

    def next(self) -> tuple[Any, dict[str, Any] | None]:
        """Return the next request, and its environment where it is the last one again, with another body.

        Raises:
            StopIteration: the connection has had its last request.
            OSError: it broke off.
        """
        self._reader.begin()
        if self._head:
            data = self._reader.read()
            if len(data) == len(self._head) + self._length and data.startswith(self._head):
                return self._request, {**self._environ, "wsgi.input": io.BytesIO(data[len(self._head) :])}
            self._reader.unread(data)
            self._head = b""
        return next(self._parser), None

    def remember(self, request: Any, environ: dict[str, Any]) -> None:
        """Keep what is needed to know a request again, if it came in one piece, its body with it.

        Args:
            request: it, parsed.
            environ: its environment, before anybody has changed it.
        """
        data, length = self._reader.came, environ.get("CONTENT_LENGTH", "")
        if data is None or not (length.isascii() and length.isdigit()) or "HTTP_TRANSFER_ENCODING" in environ:
            return
        head = len(data) - int(length)
        if 0 < head <= HEAD_MAX and data.find(b"\r\n\r\n") == head - 4:
            self._head, self._length = data[:head], int(length)
            self._request, self._environ = request, dict(environ)


class _Remembering(SocketUnreader):  # type: ignore[misc]  # gunicorn has no types
    """Reads from a socket, and remembers what came last where a request began with it."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self.came: bytes | None = None
        self._pieces = 0

    def begin(self) -> None:
        """Note that what is read next begins a request, if nothing of an earlier piece is left over."""
        self._pieces = 1 if self.buf.getvalue() else 0
        self.came = None

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Return the next piece of data."""
        data: bytes = super().chunk(size_hint)
        self._pieces += 1
        self.came = data if self._pieces == 1 else None
        return data
