"""The service as one child process on SQLite: started, waited for, stopped, started again on the same log."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from sample.fleet import clean_environment
from sample.folder import Folder
from sample.server import Server


class Service:
    """The service of a data folder, a context manager: ready when entered, ended when left.

    Args:
        folder: where its database is; its output goes to service.log there, tokens blotted out.
        port: where it listens, on 127.0.0.1.
        ttl_ms: the lease ttl of a fresh log, milliseconds.

    Attributes:
        ttl_ms: the lease ttl.
        admin_token: the admin token: of an earlier start, or printed by this first one.
        control_ports: where operators are answered, on 127.0.0.1.
    """

    def __init__(self, folder: Folder, *, port: int, ttl_ms: int = 1_000) -> None:
        self.ttl_ms = ttl_ms
        self.admin_token = folder.admin_token()
        self.control_ports = (port,)
        self._server = Server(
            "the service",
            {
                **clean_environment(),
                "HALTLINE_DATABASE_URL": f"sqlite:///{folder.database}",
                "HALTLINE_TTL_MS": str(ttl_ms),
            },
            port=port,
            log=folder.path / "service.log",
        )

    @property
    def url(self) -> str:
        """Return its address, for operators."""
        return self._server.url

    @property
    def workers_url(self) -> str:
        """Return its address, for workers: the same."""
        return self._server.url

    @property
    def pid(self) -> int:
        """Return its process id; 0 while it does not run."""
        return self._server.pid

    @property
    def pids(self) -> tuple[int, ...]:
        """Return the process ids of what serves."""
        return (self.pid,) if self.pid else ()

    @property
    def gone(self) -> str:
        """Return why the process is no more, in one line; an empty text while it runs."""
        return self._server.gone

    def __enter__(self) -> Self:
        """Start it and wait until it is ready."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self.stop()

    def describe(self) -> list[str]:
        """Return what there is, a line each."""
        return [f"service at {self.url}, lease ttl {self.ttl_ms} ms"]

    def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            Trouble: the port is in use, it did not start, or it printed no admin token on a fresh log.
        """
        try:
            self._server.begin()
            self._server.wait_until_ready()
            self.admin_token = self.admin_token or self._server.token()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> int:
        """Stop it with SIGTERM and return when it was gone, monotonic nanoseconds."""
        self._server.stop()
        return time.monotonic_ns()
