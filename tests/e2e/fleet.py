"""A fleet as in production, small: two control lanes, two worker nodes, one PostgreSQL and one Redis between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from tests.e2e.server import Reply, Server
from tests.support.ports import LOOPBACK
from tests.support.valkey import Valkey

TTL_S: Final = 3.0


@dataclass(frozen=True)
class Fleet:
    """The processes, and a token for each who asks them.

    Attributes:
        control: the control lanes.
        nodes: the worker lanes.
        valkey: the Redis between them.
        admin: a token that makes tokens.
        operator: a token that kills.
    """

    control: tuple[Server, Server]
    nodes: tuple[Server, Server]
    valkey: Valkey
    admin: str = field(repr=False)
    operator: str = field(repr=False)

    @property
    def node_urls(self) -> list[str]:
        """Return the addresses of the worker lanes."""
        return [url(node) for node in self.nodes]

    def kill(self, target: str, *, at: int = 0) -> Reply:
        """Kill at one of the control lanes."""
        return self.control[at].kill(target)

    def worker_token(self, subject: str) -> tuple[str, str]:
        """Return a new token for workers, and its id."""
        return made(self.control[0], self.admin, subject, "worker")


def url(server: Server) -> str:
    """Return the address of a server."""
    return f"http://{LOOPBACK}:{server.port}"


def made(server: Server, admin: str, subject: str, role: str) -> tuple[str, str]:
    """Have a control lane make a token, and return it and its id."""
    body = {"subject": subject, "role": role}
    reply = server.call("POST", "/v1/tokens", body, headers={"Authorization": f"Bearer {admin}"})
    assert reply.status == 201, reply
    return str(reply.members["token"]), str(reply.members["token_id"])


def eventually(holds: Callable[[], bool], within_s: float) -> bool:
    """Wait until something holds; return whether it did in time."""
    until = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(0.002)
    return True


def crash(server: Server) -> None:
    """Kill every process of a server with SIGKILL, the one that serves first."""
    master = psutil.Process(server.process.pid)
    for process in (*master.children(recursive=True), master):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    server.process.wait(10)


@contextmanager
def fleet(folder: Path, database_url: str) -> Iterator[Fleet]:
    """Start a fleet on an empty log, all processes at once, and end it.

    Args:
        folder: where the processes write.
        database_url: a migrated database without a log.
    """
    with ExitStack() as ending:
        valkey = ending.enter_context(Valkey(user="haltline"))
        more = {
            "HALTLINE_DATABASE_URL": database_url,
            "HALTLINE_REDIS_URL": valkey.url,
            "HALTLINE_TTL_MS": str(round(TTL_S * 1000)),
        }
        servers = []
        for name, lane in (("a", "control"), ("b", "control"), ("c", "worker"), ("d", "worker")):
            (folder / name).mkdir()
            servers.append(Server(folder / name, more, ("--lane", lane)))
        with ThreadPoolExecutor(len(servers)) as starting:
            begun = [starting.submit(server.start) for server in servers]
        for server, started in zip(servers, begun, strict=True):
            ending.callback(server.end)
            started.result()
        control, nodes = (servers[0], servers[1]), (servers[2], servers[3])
        admin = control[0].token or control[1].token
        operator, _ = made(control[0], admin, "ada", "operator")
        for server in servers:
            server.token = operator
        yield Fleet(control, nodes, valkey, admin, operator)
