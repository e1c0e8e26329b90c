"""The service as it stands in production, on one machine: PostgreSQL, Valkey, two control lanes, some worker nodes."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from sample.fleet import clean_environment
from sample.folder import Folder
from sample.ports import free_port
from sample.server import Server, tool
from sample.servers.postgres import SERVICE, Postgres
from sample.servers.valkey import Valkey
from sample.troubles import Trouble

CONTROL_LANES: Final = 2
NODES_MAX: Final = 8

_NAMESPACE: Final = "default"
_DATABASE: Final = "haltline"
_MIGRATE_S: Final = 60.0


class Cluster:
    """All of it, a context manager: ready when entered, gone when left.

    Every lane uses PostgreSQL as the role that can only add to the log, and Valkey as a user who may only ring the
    doorbell and listen to it.

    Args:
        folder: where the output of each server goes, tokens blotted out.
        nodes: how many worker nodes.
        ttl_ms: the lease ttl, milliseconds.

    Attributes:
        ttl_ms: the lease ttl.
        admin_token: the admin token, printed by the first start.
        control: the control lanes, in the order in which an operator's command line asks them.
        nodes: the worker nodes, in the order in which a worker asks them.
    """

    def __init__(self, folder: Folder, *, nodes: int, ttl_ms: int = 1_000) -> None:
        self.ttl_ms = ttl_ms
        self.admin_token = ""
        self.control: Sequence[Server] = ()
        self.nodes: Sequence[Server] = ()
        self._folder = folder
        self._wanted = nodes
        self._kept = contextlib.ExitStack()
        self._postgres: Postgres | None = None
        self._valkey: Valkey | None = None
        self._struck: list[Server] = []

    @property
    def url(self) -> str:
        """Return the addresses of the control lanes, for operators."""
        return ",".join(each.url for each in self.control)

    @property
    def workers_url(self) -> str:
        """Return the addresses of the worker nodes, for workers."""
        return ",".join(each.url for each in self.nodes)

    @property
    def control_ports(self) -> tuple[int, ...]:
        """Return where operators are answered, on 127.0.0.1."""
        return tuple(each.port for each in self.control)

    @property
    def servers(self) -> list[Server]:
        """Return every haltline-server process that should be running."""
        return [each for each in (*self.control, *self.nodes) if each not in self._struck]

    @property
    def pids(self) -> tuple[int, ...]:
        """Return the process ids of what serves."""
        return tuple(each.pid for each in self.servers if each.pid)

    @property
    def gone(self) -> str:
        """Return why a process is no more that nobody struck, in one line; an empty text while all run."""
        if self._postgres is not None and self._postgres.pid == 0:
            return "PostgreSQL ended by itself"
        if self._valkey is not None and not self._valkey.running:
            return "Valkey ended by itself"
        return next((each.gone for each in self.servers if each.gone), "")

    def __enter__(self) -> Self:
        """Start everything and wait until it is ready."""
        try:
            self._postgres = self._kept.enter_context(Postgres("max_connections=150"))
            address = self._prepare(self._postgres)
            self._valkey = self._kept.enter_context(Valkey(user="haltline", channels=f"haltline:{_NAMESPACE}:doorbell"))
            shared = {
                **clean_environment(),
                "HALTLINE_DATABASE_URL": address,
                "HALTLINE_NAMESPACE": _NAMESPACE,
                "HALTLINE_REDIS_URL": self._valkey.url,
                "HALTLINE_TTL_MS": str(self.ttl_ms),
            }
            self.control = self._lanes("control lane", shared | {"HALTLINE_LANE": "control"}, CONTROL_LANES)
            self.nodes = self._lanes("worker node", shared | {"HALTLINE_LANE": "worker"}, self._wanted)
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything and remove the database."""
        self.stop()
        self._kept.close()
        self._postgres = self._valkey = None

    def describe(self) -> list[str]:
        """Return what there is, a line each."""
        postgres = self._postgres.pid if self._postgres is not None else 0
        valkey = self._valkey.pid if self._valkey is not None else 0
        return [
            f"PostgreSQL, process {postgres}; Valkey, process {valkey}; lease ttl {self.ttl_ms} ms",
            *(f"{each.name} at {each.url}, process {each.pid}" for each in (*self.control, *self.nodes)),
        ]

    def start(self) -> None:
        """Start every control lane and worker node that does not run, and wait until all are ready.

        Raises:
            Trouble: one did not start.
        """
        self._struck.clear()
        try:
            if not self.admin_token:  # the very first lane alone: it begins the log and prints the token
                self.control[0].begin()
                self.control[0].wait_until_ready()
                self.admin_token = self.control[0].token()
            begun = [each for each in self.servers if each.gone]
            for each in begun:
                each.begin()
            for each in begun:
                each.wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> int:
        """Stop every control lane and worker node with SIGTERM; return when all were gone, monotonic nanoseconds."""
        everyone = (*self.control, *self.nodes)
        for each in everyone:
            each.tell()
        for each in everyone:
            each.stop()
        return time.monotonic_ns()

    def strike(self, *servers: Server) -> None:
        """Kill servers with SIGKILL; from then on they are not missed."""
        self._struck += servers
        for each in servers:
            each.kill()

    def _lanes(self, kind: str, environment: dict[str, str], count: int) -> list[Server]:
        taken = {each.port for each in self.control}
        fresh: list[int] = []
        while len(fresh) < count:
            port = free_port()
            if port not in taken:
                taken.add(port)
                fresh.append(port)
        return [
            Server(
                f"{kind} {number}",
                environment,
                port=port,
                log=self._folder.path / f"{kind.replace(' ', '-')}-{number}.log",
            )
            for number, port in enumerate(fresh, 1)
        ]

    def _prepare(self, postgres: Postgres) -> str:
        """Make the database and its schema, as its owner; return its address for the service."""
        name = postgres.make_database(_DATABASE)
        migrated = subprocess.run(
            [tool("haltline-server"), "migrate"],
            env={**clean_environment(), "HALTLINE_DATABASE_URL": postgres.url(name)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_MIGRATE_S,
            check=False,
        )
        if migrated.returncode != 0:
            raise Trouble(f"haltline-server migrate: {(migrated.stderr.strip() or 'it said nothing').splitlines()[-1]}")
        postgres.grant_roles(name)
        return postgres.url(name, user=SERVICE)
