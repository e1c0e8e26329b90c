"""haltline-server serve: gunicorn over one gevent worker, started from here, without a file or variable of its own.

The process that was started stays small: it prepares the database in a child that ends before anything is served, so
that an SQLite file is owned by the worker alone, and it imports nothing of the service itself, so that the worker can
be patched before it does.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import click
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import AppImportError

from app.config import Config
from app.domain.lanes import Lane
from app.serving.files import affordable
from app.serving.tls import Unusable, context_of

WRONG: Final = 2
"""Exit status: serving could not begin."""

LOAD_S: Final = 10.0
"""For how long a worker tries to open the database, seconds; before the first start that was tried already."""

CONNECTIONS: Final = 1_000
"""Connections that the worker serves beside lease streams; beyond all of them, nobody new is answered."""

GRACE_S: Final = 3
"""How long a stop may take before gunicorn kills the worker."""

KEEPALIVE_S: Final = 5
"""How long an idle connection, or one whose request line and headers are not complete, is kept.

One that has shown no valid token is kept for less: see app/serving/worker.py.
"""


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """Gunicorn with the settings of this service; it reads no file and no environment."""

    def __init__(self, config: Config, *, listening: int) -> None:
        self._config = config
        self._listening = listening
        super().__init__()

    def load_config(self) -> None:
        """Set what differs from gunicorn's defaults."""
        settings: dict[str, Any] = {
            "bind": f"fd://{self._listening}",
            "workers": 1,
            "worker_class": "app.serving.worker.Worker",
            "worker_connections": connections(self._config),
            "control_socket_disable": True,
            "timeout": 30,
            "graceful_timeout": GRACE_S,
            "keepalive": KEEPALIVE_S,
            "limit_request_line": 4_094,
            "limit_request_fields": 64,
            "limit_request_field_size": 4_096,
            "forwarded_allow_ips": "",
            "preload_app": False,
            "accesslog": None,
            "errorlog": "-",
            "loglevel": "warning" if self._config.log_level == "info" else self._config.log_level,
            "logger_class": "app.serving.worker.GunicornJournal",
            "default_proc_name": "haltline-server",
            "proc_name": "haltline-server",
            "worker_exit": _close,
            "certfile": self._config.tls_cert,
            "keyfile": self._config.tls_key,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Return the application; gunicorn calls this in the worker, patched by then.

        Raises:
            AppImportError: the database cannot be used now; gunicorn prints this, and ends.
        """
        from app.service.store import LogDiverged, StoreUnavailable
        from app.storage import StoreRefused
        from app.wsgi import serving

        until = time.monotonic() + LOAD_S
        while True:
            try:
                return serving(self._config)
            except (StoreRefused, LogDiverged) as error:
                raise AppImportError(f"haltline-server: {error}") from error
            except StoreUnavailable as error:
                # A worker that is started again finds a busy database now and then: the lane must not end for that.
                if time.monotonic() >= until:
                    raise AppImportError(f"haltline-server: {error}") from error
                time.sleep(0.5)


def _close(_arbiter: object, worker: Any) -> None:
    """Give back the database when the worker ends."""
    from app.factory import node_of

    app = getattr(worker, "application", None)
    if app is not None:
        node_of(app).close()


def connections(config: Config) -> int:
    """Return how many connections the worker serves at once: on the control lane there are no streams."""
    return CONNECTIONS if config.lane is Lane.CONTROL else config.streams_max + CONNECTIONS


def listen(bind: str) -> socket.socket:
    """Return a socket bound to ``address:port``.

    Raises:
        OSError: the port is in use, or the address is not one of this machine's.
    """
    host, _, port = bind.rpartition(":")
    host = host.strip("[]")
    found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def prepared(config: Config, prepare: Callable[[Config], int]) -> int:
    """Make the database ready to serve in a child process, and return its exit status."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        status = WRONG
        try:
            status = prepare(config)
        except ImportError as error:
            click.echo(f"haltline-server: an import failed: {error}. Install haltline-server anew.", err=True)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(ended)


def run(config: Config, *, prepare: Callable[[Config], int]) -> int:
    """Serve until told to stop, and return the exit status: 0, or 2 where serving could not begin.

    Args:
        config: how.
        prepare: makes the database ready, in a process of its own, and returns that process's exit status.
    """
    if config.tls_cert and config.tls_key:
        try:
            context_of(config.tls_cert, config.tls_key)
        except Unusable as error:
            click.echo(f"haltline-server: {error}", err=True)
            return WRONG
    try:
        bound = listen(config.bind)
    except OSError as error:
        click.echo(
            f"haltline-server: cannot listen on {config.bind}: {error.strerror}. End what listens there, or set "
            f"HALTLINE_BIND to another address.",
            err=True,
        )
        return WRONG
    status = prepared(config, prepare)
    if status != 0:
        bound.close()
        return WRONG
    config = affordable(config)
    started = os.getpid()
    try:
        Arbiter(Server(config, listening=bound.detach())).run()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 0
        # Workers are forks of this process and end through here too: their status is what the arbiter goes by.
        if os.getpid() == started and status in (Arbiter.WORKER_BOOT_ERROR, Arbiter.APP_LOAD_ERROR):
            click.echo("haltline-server: ended, because the service could not be loaded: see above", err=True)
            return WRONG
        return status
    return 0
