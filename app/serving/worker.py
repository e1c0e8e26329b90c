"""The worker: gunicorn's gevent worker, bounded where a slow or idle caller could hold it.

What it adds: a body must come within seconds, a reply must be taken within seconds, a stop does not wait for
connections on which nobody is asking anything, and a reply leaves in one write where gunicorn needs two.
"""

from __future__ import annotations

import gc
import logging
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import gevent  # type: ignore[import-untyped]
from gevent.monkey import get_original  # type: ignore[import-untyped]
from gevent.pool import Pool  # type: ignore[import-untyped]
from gevent.server import StreamServer  # type: ignore[import-untyped]
from gevent.socket import socket as GeventSocket  # type: ignore[import-untyped]  # noqa: N812 - a class, whatever its name
from gunicorn import http, util
from gunicorn.glogging import Logger
from gunicorn.http import errors, wsgi
from gunicorn.workers.ggevent import GeventWorker

from app.api.connections import left
from app.serving.bodies import UNKNOWN, BodyDeadline, Wsgi
from app.serving.broadcaster import Broadcaster
from app.serving.carried import Line
from app.serving.refusals import code_of, refusal
from app.serving.repeating import Requests
from app.serving.replies import Reply
from app.serving.tls import HANDSHAKE_S, Certificate

UNKNOWN_MAX: Final = 200
"""How many connections that have not shown a valid token are kept; of more, the oldest are closed."""

UNKNOWN_NEW_S: Final = 0.5
"""For how long such a connection is kept whatever their number, seconds, as long as they are not a whole herd."""

UNKNOWN_HERD: Final = 2_000
"""How many there may be at most, be they ever so new."""

UNKNOWN_HEAD_S: Final = 2.0
"""How long such a connection may take to send a request line and headers, seconds."""

LINGER_S: Final = 1.0
"""How long a connection is kept for its caller to take the reply to a request whose body was not read, seconds."""

SEND_S: Final = 30.0
"""How long a caller may take to accept one piece of a reply, seconds."""

COLLECT: Final = (10_000, 20, 50)
"""After how many new objects the garbage collector looks for cycles, and how seldom in older ones."""

DRAIN_S: Final = 2.0
"""How long requests that are being served may take to end when the worker stops, seconds."""


class Worker(GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    """One process, one event loop."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.application: Any = None
        self.wsgi: Any = None
        self._whole: Any = None
        self._keepalive_s: float = self.cfg.keepalive
        self._idle: set[Any] = set()
        self._unknown: dict[Any, float] = {}  # since when, in the order they came
        self._holds_token: Callable[[str], bool | None] = bool
        self._drain: Callable[[], None] = lambda: None
        self._broadcaster: Broadcaster | None = None
        self._tls: Certificate | None = None

    def load_wsgi(self) -> None:
        """Load the application behind the body deadline."""
        super().load_wsgi()
        self.application = self.wsgi
        self._holds_token = _verifier(self.application)
        node = _node(self.application)
        self._drain = node.drain
        self._broadcaster = Broadcaster(node.streams)
        self._whole = self.wsgi  # for requests whose body is there
        self.wsgi = BodyDeadline(self._whole)
        if self.cfg.is_ssl:
            self._tls = Certificate(self.cfg.certfile, self.cfg.keyfile)
        # What is loaded now stays: looking through it again and again, and through ten thousand connections whenever
        # a few hundred objects were made, would cost more than all their frames.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECT)

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
        self._drain()
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

        Gunicorn's own does the same, and what is never configured here: HTTP/2, looked for in each request.

        Args:
            listener: the address that the connection came in by.
            client: its socket.
            addr: its other end.
        """
        if len(self._unknown) > UNKNOWN_MAX and left(client):
            util.close(client)  # it has waited too long to be accepted: not one step for it, while others wait still
            return
        client.settimeout(SEND_S)
        if self._tls is not None:
            try:
                client = self._tls.wrapped(client)
            except OSError:
                util.close(client)  # it is gone already
                return
        self._idle.add(client)
        self._not_known_yet(client)
        try:
            if self._tls is not None:
                with gevent.Timeout(HANDSHAKE_S, TimeoutError("no TLS handshake in time")):
                    client.do_handshake()
            self._converse(listener, client, addr)
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

    def _not_known_yet(self, client: Any) -> None:
        """Keep a connection on which no valid token was shown, and close the oldest such one where they are many."""
        self._unknown[client] = now = time.monotonic()
        if len(self._unknown) > UNKNOWN_MAX:
            oldest, since = next(iter(self._unknown.items()))
            # A fleet that comes back is unknown for a moment, too: those who have just come are not shut out for it.
            if now - since > UNKNOWN_NEW_S or len(self._unknown) > UNKNOWN_HERD:
                del self._unknown[oldest]
                _shut(oldest, socket.SHUT_RDWR)  # writing too: it may be one that takes no reply

    def _converse(self, listener: Any, client: Any, addr: Any) -> None:
        """Answer one request of a connection after the other, until nobody has asked for long."""
        requests = Requests(http.get_parser(self.cfg, client, addr), client)
        while True:
            client.settimeout(self._keepalive_s)
            again = requests.again()
            client.settimeout(SEND_S)
            if again is not None:
                req, environ = again
                self._answer(requests, req, Reply(req, client, self.cfg), environ, self._whole)
                continue
            req = None
            with self._head_deadline(client):
                req = requests.parsed()
            if req is None:
                return
            reply, environ = wsgi.create(req, client, addr, listener, self.cfg, response_class=Reply)
            requests.remember(req, environ)
            self._answer(requests, req, reply, environ, self.wsgi)
            if client in self._unknown:
                requests.forget()  # its head has a deadline of its own

    def _head_deadline(self, client: Any) -> Any:
        if client in self._unknown:
            return gevent.Timeout(UNKNOWN_HEAD_S, exception=False)
        return self.timeout_ctx()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:  # noqa: ARG002 - gunicorn's
        """Answer what is not a request at all with a problem.

        Gunicorn would answer in HTML, repeat the header that it could not read, and log it: it may hold a token.
        """
        code = code_of(exc)
        if code == "internal":
            self.log.error("a connection failed", exc_info=exc)
        else:
            self.log.warning("not a request: %s", type(exc).__name__)
        with suppress(OSError):
            client.sendall(refusal(code))
            # Closed while there is more to read, the connection would be reset and the reply lost.
            util.close_graceful(client)

    def _answer(self, requests: Requests, req: Any, reply: Reply, environ: dict[str, Any], application: Wsgi) -> None:
        """Answer one request; its connection is not idle meanwhile.

        Gunicorn's handle_request does the same, and what is never configured here: hooks, an access log, files sent by
        the kernel.
        """
        sock = reply.sock
        self._idle.discard(sock)
        try:
            if not self.alive:
                reply.force_close()
            if sock in self._unknown:
                holds = self._holds_token(environ.get("HTTP_AUTHORIZATION", ""))
                if holds:
                    self._unknown.pop(sock, None)
                elif holds is not None:
                    environ[UNKNOWN] = reply.force_close
            try:
                self._serve(application(environ, reply.start_response), reply, requests)
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

    def _serve(self, pieces: Any, reply: Reply, requests: Requests) -> None:
        sock = reply.sock
        # A stream says how long each piece after the first may take to be accepted, seconds.
        within: float | None = getattr(pieces, "send_within_s", None)
        try:
            if within is not None and reply.chunked and type(sock) is GeventSocket and self._broadcaster is not None:
                reply.write(pieces.first)
                line = Line(pieces, None if reply.should_close() else requests.body_of, reply.head)
                requests.put_back(self._broadcaster.carry(sock, line))
                return  # the end of the reply went with its last frame
            for piece in pieces:
                reply.write(piece)
                if within is not None:
                    # A piece that is not accepted in time ends the connection: what it tells of is out of date.
                    sock.settimeout(within)
            reply.close()
        finally:
            if within is not None:
                sock.settimeout(SEND_S)
            close = getattr(pieces, "close", None)
            if close is not None:
                close()


def _node(application: Any) -> Any:
    from app.factory import node_of  # now: the process is patched by the time that an application is loaded

    return node_of(application)


def _verifier(application: Any) -> Callable[[str], bool | None]:
    """Return what says whether an Authorization header has a valid token; None where that cannot be known now."""
    from app.service.store import StoreUnavailable
    from app.service.tokens import Denied

    verify = _node(application).tokens.verify

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
