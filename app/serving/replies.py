"""Replies: a head that leaves together with the first piece of its body."""

from __future__ import annotations

import time
from typing import Any

from gunicorn import util
from gunicorn.http import wsgi

_dated: tuple[int, str] = (0, "")


def _date() -> str:
    """Return the date of this second, as headers have it."""
    global _dated  # noqa: PLW0603 - one pair, replaced as a whole
    second, text = _dated
    now = int(time.time())
    if now != second:
        text = util.http_date(now)
        _dated = now, text
    return text


class Reply(wsgi.Response):  # type: ignore[misc]  # gunicorn has no types
    """A reply whose head leaves together with the first piece of its body: a write costs more than either."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._head = b""
        self.headers_sent: bool = False

    def send_headers(self) -> None:
        """Keep the head for the write that follows."""
        if not self.headers_sent:
            self._head = self.head()
            self.headers_sent = True

    def head(self) -> bytes:
        """Return the head of this reply, as it would leave now."""
        lines = [*self.default_headers(), *(f"{name}: {value}\r\n" for name, value in self.headers), "\r\n"]
        return "".join(lines).encode("latin-1")

    def default_headers(self) -> list[str]:
        """Return the status line and the headers that every reply has, as gunicorn's own does."""
        major, minor = self.req.version
        return [
            f"HTTP/{major}.{minor} {self.status}\r\n",
            f"Server: {self.version}\r\n",
            f"Date: {_date()}\r\n",
            f"Connection: {'close' if self.should_close() else 'keep-alive'}\r\n",
            *(["Transfer-Encoding: chunked\r\n"] if self.chunked else []),
        ]

    def _emit_body(self, data: bytes) -> None:
        self._send(b"%X\r\n%s\r\n" % (len(data), data) if self.chunked else data)

    def close(self) -> None:
        """Send what is left: a head without a body, and the end of a chunked one."""
        self.send_headers()
        self._send(b"0\r\n\r\n" if self.chunked else b"")

    def _send(self, data: bytes) -> None:
        whole, self._head = self._head + data, b""
        if whole:
            # One system call where it is taken at once: gevent's sendall begins with another.
            sent = self.sock.send(whole)
            if sent < len(whole):
                self.sock.sendall(memoryview(whole)[sent:])
