"""The worker: gunicorn's gevent worker, bounded where a slow or idle caller could hold it.

What it adds: a body must come within seconds, a reply must be taken within seconds, a stop does not wait for
connections on which nobody is asking anything, and a reply leaves in one write where gunicorn needs two.
"""

from __future__ import annotations

import io
import json
import logging
import os
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final

import gevent  # type: ignore[import-untyped]
from gevent.monkey import get_original  # type: ignore[import-untyped]
from gevent.pool import Pool  # type: ignore[import-untyped]
from gevent.server import StreamServer  # type: ignore[import-untyped]
from gunicorn import http, util
from gunicorn.glogging import Logger
from gunicorn.http import errors, wsgi
from gunicorn.workers.ggevent import GeventWorker

BODY_S: Final = 10.0
"""How long the body of a request may take, seconds, however it drips."""

BODY_LIMIT: Final = 16 * 1024
"""How much of a body is read before the application decides that it is too large, bytes."""

UNKNOWN_MAX: Final = 200
"""How many connections that have not shown a valid token are kept; of more, the oldest are closed."""

UNKNOWN_HEAD_S: Final = 2.0
"""How long such a connection may take to send a request line and headers, seconds."""

UNKNOWN_BODY_S: Final = 0.01
"""How long the body of a request without a valid token is waited for, seconds: what is there is read, no more."""

LINGER_S: Final = 1.0
"""How long a connection is kept for its caller to take the reply to a request whose body was not read, seconds."""

UNKNOWN: Final = "haltline.unknown"
"""Where the environment of a request without a valid token has what makes its reply the connection's last."""

SEND_S: Final = 30.0
"""How long a caller may take to accept one piece of a reply, seconds."""

DRAIN_S: Final = 2.0
"""How long requests that are being served may take to end when the worker stops, seconds."""

REFUSALS: Final = (
    (errors.LimitRequestLine, "uri_too_long"),
    (errors.LimitRequestHeaders, "headers_too_large"),
    (errors.ParseException, "bad_request"),
)
"""What gunicorn raises where bytes are not a request, and the problem that answers it."""

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
        status, headers, told = _problem(code)
        start_response(status, headers)
        return [told]


def _problem(code: str) -> tuple[str, list[tuple[str, str]], bytes]:
    """Return the status, headers and body of a problem that is answered before the application is asked."""
    from app.api.problems import CONTENT_TYPE, KINDS, body_of

    told = json.dumps(body_of(code)).encode("ascii")
    headers = [
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        ("Content-Type", CONTENT_TYPE),
        ("Content-Length", str(len(told))),
    ]
    status = HTTPStatus(KINDS[code].status)
    return f"{status.value} {status.phrase}", headers, told


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


class Worker(GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    """One process, one event loop."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.application: Any = None
        self.wsgi: Any = None
        self._idle: set[Any] = set()
        self._unknown: dict[Any, None] = {}  # in the order they came
        self._holds_token: Callable[[str], bool | None] = bool

    def load_wsgi(self) -> None:
        """Load the application behind the body deadline."""
        super().load_wsgi()
        self.application = self.wsgi
        self._holds_token = _verifier(self.application)
        self.wsgi = BodyDeadline(self.wsgi)

    def run(self) -> None:
        """Serve until told to stop; then let requests end, and close connections that wait for the next one."""
        servers = []
        for each in self.sockets:
            each.setblocking(1)
            server = StreamServer(each, handle=self._handler(each), spawn=Pool(self.worker_connections))
            server.start()
            servers.append(server)
        while self.alive:
            self.notify()
            gevent.sleep(0.25)
        for server in servers:
            server.close()
        with gevent.Timeout(DRAIN_S, exception=False):
            while any(server.pool for server in servers):
                for client in list(self._idle):
                    _shut(client)
                gevent.sleep(0.02)
        for server in servers:
            server.stop(timeout=0.5)

    def _handler(self, listener: Any) -> Callable[[Any, Any], None]:
        name = listener.getsockname()  # now: connections are still being accepted when the listener is closed
        return lambda client, address: self.handle(name, client, address)

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve one connection; no single read or write on it may last for ever.

        Gunicorn's own does the same, and what is never configured here: TLS and HTTP/2, looked for in each request.

        Args:
            listener: the address that the connection came in by.
            client: its socket.
            addr: its other end.
        """
        client.settimeout(SEND_S)
        self._idle.add(client)
        self._unknown[client] = None
        if len(self._unknown) > UNKNOWN_MAX:
            oldest = next(iter(self._unknown))
            del self._unknown[oldest]
            _shut(oldest, socket.SHUT_RDWR)  # writing too: it may be one that takes no reply
        try:
            parser = http.get_parser(self.cfg, client, addr)
            while True:
                req = None
                with self._head_deadline(client):
                    req = next(parser)
                if req is None:
                    return  # nobody has asked for long
                self.handle_request(listener, req, client, addr)
        except (StopIteration, errors.NoMoreData, gevent.GreenletExit):
            return  # as either side wanted, or because the worker had no more time for it
        except OSError as error:
            # The other end is gone, or takes no reply: its own affair, and no news for whoever reads the journal.
            self.log.debug("a connection broke off: %s", error)
        except Exception as error:  # noqa: BLE001 - it decides nothing: the connection ends, and the journal says why
            self.handle_error(None, client, addr, error)
        finally:
            self._idle.discard(client)
            self._unknown.pop(client, None)
            util.close(client)

    def _head_deadline(self, client: Any) -> Any:
        if client in self._unknown:
            return gevent.Timeout(UNKNOWN_HEAD_S, exception=False)
        return self.timeout_ctx()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:  # noqa: ARG002 - gunicorn's
        """Answer what is not a request at all with a problem.

        Gunicorn would answer in HTML, repeat the header that it could not read, and log it: it may hold a token.
        """
        code = next((code for kind, code in REFUSALS if isinstance(exc, kind)), "internal")
        if code == "internal":
            self.log.error("a connection failed", exc_info=exc)
        else:
            self.log.warning("not a request: %s", type(exc).__name__)
        with suppress(OSError):
            client.sendall(_refusal(code))
            # Closed while there is more to read, the connection would be reset and the reply lost.
            util.close_graceful(client)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        """Serve one request; its connection is not idle meanwhile.

        Gunicorn's own does the same, and what is never configured here: hooks, an access log, files sent by the kernel.
        """
        self._idle.discard(sock)
        try:
            reply, environ = wsgi.create(req, sock, addr, listener_name, self.cfg, response_class=Reply)
            if not self.alive:
                reply.force_close()
            if sock in self._unknown:
                holds = self._holds_token(environ.get("HTTP_AUTHORIZATION", ""))
                if holds:
                    self._unknown.pop(sock, None)
                elif holds is not None:
                    environ[UNKNOWN] = reply.force_close
            try:
                self._serve(reply, environ)
            except OSError:
                raise
            except Exception:
                if not reply.headers_sent:
                    raise
                # A part of the reply is on its way: another one behind it would be read as its rest.
                self.log.exception("a reply broke off")
                raise StopIteration from None
            if req.body.failed:
                # Its caller may still be sending: closed at once, the connection would be reset and the reply lost.
                util.close_graceful(sock, timeout=LINGER_S)
            if reply.should_close():
                raise StopIteration
        finally:
            self._idle.add(sock)

    def _serve(self, reply: Reply, environ: dict[str, Any]) -> None:
        pieces = self.wsgi(environ, reply.start_response)
        try:
            for piece in pieces:
                reply.write(piece)
            reply.close()
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()


def _refusal(code: str) -> bytes:
    status, headers, told = _problem(code)
    lines = [f"HTTP/1.1 {status}", "Connection: close", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("ascii") + told


def _verifier(application: Any) -> Callable[[str], bool | None]:
    """Return what says whether an Authorization header has a valid token; None where that cannot be known now."""
    from app.factory import node_of
    from app.service.store import StoreUnavailable
    from app.service.tokens import Denied

    verify = node_of(application).tokens.verify

    def holds(header: str) -> bool | None:
        scheme, _, text = header.partition(" ")
        if scheme.lower() != "bearer":
            return False
        try:
            return not isinstance(verify(text.strip(" ")), Denied)
        except StoreUnavailable:
            return None  # nobody's fault but the service's: the application answers the whole request

    return holds


def _shut(client: Any, how: int = socket.SHUT_RD) -> None:
    """End the reading side of a connection, so that whoever waits for its next request sees the end of it.

    Not by gevent's own shutdown, which would raise in the waiting greenlet as if the connection had failed.
    """
    native = get_original("socket", "socket")
    try:
        with native(fileno=os.dup(client.fileno())) as same:
            same.shutdown(how)
    except OSError:
        return  # it ended by itself


class GunicornJournal(Logger):  # type: ignore[misc]  # gunicorn has no types
    """What gunicorn logs, written as the rest of the journal is."""

    def setup(self, cfg: Any) -> None:
        """Set up gunicorn's handlers, and have them write JSON."""
        from app.service.journal import formatter

        super().setup(cfg)
        for handler in self.error_log.handlers:
            if isinstance(handler, logging.Handler):
                handler.setFormatter(formatter())
