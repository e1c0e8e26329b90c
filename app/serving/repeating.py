"""A request whose head is that of the one before on its connection, but for the length of its body: it means the same.

A worker asks for its next stream every few seconds, on the same connection and with the same request line and headers;
only the body is another. Parsing those again costs more than the whole answer. Nothing is guessed: a head that
differs in one byte elsewhere, or a body that has not come together with it, goes the usual way.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from gunicorn.http.unreader import SocketUnreader

HEAD_MAX: Final = 2_048
"""The longest head that is remembered, bytes: one copy of it is kept for each connection."""


_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)\r\n", re.IGNORECASE)
_DIGITS: Final = 5
"""How many a length may have, here: such bodies are short."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A request that is known again.

    Attributes:
        before: its head up to the length of its body.
        after: the rest of its head.
        request: it, parsed.
        environ: its environment, before anybody had changed it.
    """

    before: bytes
    after: bytes
    request: Any
    environ: dict[str, Any]

    def body_of(self, data: bytes) -> bytes | None:
        """Return the body of ``data``, if that is this request again and whole, with another body."""
        if not data.startswith(self.before):
            return None
        begins = len(self.before)
        ends = data.find(b"\r\n", begins, begins + _DIGITS + 2)
        length = data[begins:ends]
        if ends < 0 or not length.isdigit() or not data.startswith(self.after, ends):
            return None
        body = data[ends + len(self.after) :]
        return body if len(body) == int(length) else None

    def environ_of(self, body: bytes) -> dict[str, Any]:
        """Return the environment of this request with another body."""
        return {**self.environ, "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}


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
        self._known: _Known | None = None

    def again(self) -> tuple[Any, dict[str, Any]] | None:
        """Return the next request and its environment, where it is the last one again with another body, else None.

        It waits for one piece of data, as long as the socket's timeout allows; where it knows nothing, not at all.

        Raises:
            OSError: the connection broke off, or nothing came.
        """
        self._reader.begin()
        known = self._known
        if known is None:
            return None
        data = self._reader.read()
        body = known.body_of(data)
        if body is not None:
            return known.request, known.environ_of(body)
        self._reader.unread(data)
        self._known = None
        return None

    @property
    def body_of(self) -> Callable[[bytes], bytes | None] | None:
        """What returns the body of data that are the last request again, else None.

        It is None itself where no request is known, or where something of the next one was read with the last.
        """
        return self._known.body_of if self._known is not None and not self._reader.buf.getvalue() else None

    def put_back(self, data: bytes) -> None:
        """Have what somebody else has read from the socket, where a request has to begin, read again."""
        self._reader.put_back(data)

    def parsed(self) -> Any:
        """Return the next request, which was not :meth:`again` the one before.

        Raises:
            StopIteration: the connection has had its last request.
            OSError: it broke off.
        """
        return next(self._parser)

    def forget(self) -> None:
        """Have the next request parsed, whatever it is."""
        self._known = None

    def remember(self, request: Any, environ: dict[str, Any]) -> None:
        """Keep what is needed to know a request again, if it came in one piece, its body with it.

        Args:
            request: it, parsed.
            environ: its environment, before anybody has changed it.
        """
        data, length = self._reader.came, environ.get("CONTENT_LENGTH", "")
        if data is None or not (length.isascii() and length.isdigit()) or "HTTP_TRANSFER_ENCODING" in environ:
            return
        if int(length) > len(data):
            return
        head = data[: len(data) - int(length)]
        stated = _LENGTH.findall(head)
        if len(head) <= HEAD_MAX and data.find(b"\r\n\r\n") == len(head) - 4 and stated == [length.encode("ascii")]:
            begins, ends = next(_LENGTH.finditer(head)).span(1)
            self._known = _Known(head[:begins], head[ends:], request, dict(environ))


class _Remembering(SocketUnreader):  # type: ignore[misc]  # gunicorn has no types
    """Reads from a socket, and remembers what came last where a request began with it."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self.came: bytes | None = None
        self._pieces = 0
        self._returned = b""

    def begin(self) -> None:
        """Note that what is read next begins a request, if nothing of an earlier piece is left over."""
        self._pieces = 1 if self.buf.getvalue() else 0
        self.came = None

    def put_back(self, data: bytes) -> None:
        """Have data read once more, as if they came now."""
        self._returned = data

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Return the next piece of data."""
        data, self._returned = self._returned, b""
        if not data:
            data = super().chunk(size_hint)
        self._pieces += 1
        self.came = data if self._pieces == 1 else None
        return data
