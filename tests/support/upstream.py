"""An HTTP server in a process of its own, which counts what reaches it and who is still connected."""

from __future__ import annotations

import json
import select
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import unquote

PIECE: Final = b"x" * 64
"""What /drip and /close begin their body with."""


class Upstream:
    """The server, to be entered with ``with``.

    Paths: ``/good`` answers; ``/hang`` never does; ``/drip`` begins a chunked body and ``/close`` one that ends with
    its connection, and both leave it at that; ``/echo`` answers with the headers; ``/to/<address>`` redirects there.
    """

    def __init__(self, certificate: Path | None = None) -> None:
        self._certificate = certificate

    def __enter__(self) -> Self:
        """Start it."""
        arguments = [] if self._certificate is None else [str(self._certificate)]
        self._process = subprocess.Popen(
            [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        port, self._told = (int(word) for word in self._process.stdout.readline().split())
        self.host = f"localhost:{port}"
        self.url = f"http{'' if self._certificate is None else 's'}://{self.host}"
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self._process.kill()
        self._process.communicate()

    def counts(self) -> dict[str, Any]:
        """Return ``requests`` by path, and how many connections are ``open``."""
        with urllib.request.urlopen(f"http://localhost:{self._told}/", timeout=10) as reply:
            counts: dict[str, Any] = json.load(reply)
        return counts

    def requests(self, path: str) -> int:
        """Return how many requests for a path have come."""
        return int(self.counts()["requests"].get(path, 0))

    def wait_for(self, path: str, count: int = 1, *, seconds: float = 10) -> None:
        """Wait until so many requests for a path have come."""
        until = time.monotonic() + seconds
        while self.requests(path) < count:
            assert time.monotonic() < until, f"no request for {path}"
            time.sleep(0.01)

    def closed_within(self, seconds: float, *, left: int = 0) -> float:
        """Wait until only so many connections are open, and return how long that took, seconds."""
        began = time.monotonic()
        while (count := int(self.counts()["open"])) > left:
            assert time.monotonic() - began < seconds, f"{count} connections are still open"
            time.sleep(0.01)
        return time.monotonic() - began


_lock = threading.Lock()
_requests: Counter[str] = Counter()
_open = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        global _open  # noqa: PLW0603 - the count of this process
        with _lock:
            _open += 1
        if isinstance(self.request, ssl.SSLSocket):
            self.request.do_handshake()
        super().setup()

    def finish(self) -> None:
        global _open  # noqa: PLW0603
        with suppress(OSError):
            super().finish()
        with _lock:
            _open -= 1

    def do_GET(self) -> None:
        with _lock:
            _requests[self.path] += 1
        if self.path == "/hang":
            self._wait()
        elif self.path in ("/drip", "/close"):
            self.send_response(200)
            self.send_header(*(("Transfer-Encoding", "chunked") if self.path == "/drip" else ("Connection", "close")))
            self.end_headers()
            self.wfile.write(b"40\r\n" + PIECE + b"\r\n" if self.path == "/drip" else PIECE)
            self._wait()
        elif self.path.startswith("/to/"):
            self._answer(302, b"", ("Location", unquote(self.path.removeprefix("/to/"))))
        else:
            self._answer(200, json.dumps(dict(self.headers)).encode() if self.path == "/echo" else b"good")

    do_POST = do_GET  # noqa: N815 - http.server's name

    def _answer(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for header in headers:
            self.send_header(*header)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _wait(self) -> None:
        """Wait until the client has gone."""
        self.close_connection = True
        select.select([self.connection], [], [])

    def log_message(self, *_: object) -> None:
        pass


class _Counts(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        with _lock:
            body = json.dumps({"requests": _requests, "open": _open}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Say nothing: clients that go away are what this is about."""


def main() -> None:
    """Serve until standard input ends."""
    server, told = _Server(("localhost", 0), _Handler), _Server(("localhost", 0), _Counts)
    if sys.argv[1:]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[1])
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    for each in (server, told):
        threading.Thread(target=each.serve_forever, daemon=True).start()
    sys.stdout.write(f"{server.server_port} {told.server_port}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
