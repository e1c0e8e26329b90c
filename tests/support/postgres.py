"""The PostgreSQL of :mod:`sample.servers.postgres`, with what tests do to it: frozen, crashed, set otherwise."""

from __future__ import annotations

import contextlib
import itertools
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psutil

from sample.servers.postgres import ROLES, SERVICE, STOP_S, SUPERUSER, Postgres

__all__ = ["ROLES", "SERVICE", "SUPERUSER", "PostgresServer"]

_TAKEN_S: Final = 10.0


class PostgresServer(Postgres):
    """One running server with its data in a temporary folder."""

    def __init__(self) -> None:
        self._names = itertools.count(1)
        super().__init__()

    def create_database(self, *, template: str = "template1") -> str:
        """Return the name of a new database, a copy of ``template``."""
        return self.make_database(f"t{next(self._names)}", template=template)

    def drop_database(self, name: str) -> None:
        """Drop a database, and end whoever is still connected to it."""
        with self.connect() as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    def configure(self, name: str, value: str) -> None:
        """Change a setting of the running server, and wait until new sessions have it."""
        with self.connect() as connection:
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
            connection.execute("SELECT pg_reload_conf()")
        until = time.monotonic() + _TAKEN_S
        while time.monotonic() < until:
            with self.connect() as connection:
                row = connection.execute(f"SHOW {name}".encode()).fetchone()
            if row is not None and row[0] == value:
                return
        raise RuntimeError(f"the server did not take {name} = {value!r}")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop every process of the server with SIGSTOP for as long as the block lasts."""
        processes = self._processes()
        try:
            for process in processes:
                process.send_signal(signal.SIGSTOP)
            yield
        finally:
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGCONT)

    def crash(self) -> None:
        """Kill every process of the server with SIGKILL, as if the machine's memory had run out."""
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self._process is not None:
            self._process.wait(STOP_S)

    def _processes(self) -> list[psutil.Process]:
        """Return the server's processes, the postmaster first: each child has a process group of its own."""
        if self.pid == 0:
            return []
        postmaster = psutil.Process(self.pid)
        return [postmaster, *postmaster.children(recursive=True)]
