"""Replies: a head that leaves together with the first piece of its body."""

from __future__ import annotations

from typing import Any

from gunicorn.http import wsgi


class Reply(wsgi.Response):  # type: ignore[misc]  # gunicorn has no types
    """A reply whose head leaves together with the first piece of its body: a write costs more than either."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._head = b""
        self.headers_sent: bool = False

    def send_headers(self) -> None:
        """Keep the head for the write that follows."""
        if not self.headers_sent:
            lines = [*self.default_headers(), *(f"{name}: {value}\r\n" for name, value in self.headers), "\r\n"]
            self._head = "".join(lines).encode("latin-1")
            self.headers_sent = True

    def _emit_body(self, data: bytes) -> None:
        self._send(b"%X\r\n%s\r\n" % (len(data), data) if self.chunked else data)

    def close(self) -> None:
        """Send what is left: a head without a body, and the end of a chunked one."""
        self.send_headers()
        self._send(b"0\r\n\r\n" if self.chunked else b"")

    def _send(self, data: bytes) -> None:
        whole, self._head = self._head + data, b""
        if whole:
            self.sock.sendall(whole)
