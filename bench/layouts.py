"""The two ways in which the service is run: embedded in one process on SQLite, and in lanes on PostgreSQL and Redis."""

from __future__ import annotations

import json
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from app.storage.migrate import upgrade
from bench.service import Service, folder, service, token
from bench.streams_client import length
from sample.troubles import Trouble
from tests.support.ports import LOOPBACK
from tests.support.postgres import PostgresServer

REPLY_S: Final = 10.0
CHUNK: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Layout:
    """A running service.

    Attributes:
        title: how the table names it.
        control: where it takes kills.
        worker: where it grants leases; the same where there are no lanes.
        operator: a token that may kill.
        secret: a worker's token.
    """

    title: str
    control: Service
    worker: Service
    operator: str
    secret: str


class NoPostgres(Exception):
    """PostgreSQL cannot be had here; the benchmark goes on without it."""


@contextmanager
def postgres() -> Iterator[PostgresServer]:
    """Start a PostgreSQL of one's own, and stop it.

    Raises:
        NoPostgres: it cannot be had here.
    """
    try:
        server = PostgresServer()
    except (OSError, RuntimeError, Trouble) as error:
        raise NoPostgres("no PostgreSQL could be started here") from error
    try:
        yield server
    finally:
        server.close()


@contextmanager
def embedded() -> Iterator[Layout]:
    """Run one process with both lanes, on SQLite."""
    with folder() as place:
        url = f"sqlite:///{place / 'haltline.db'}"
        operator, secret = token(url, "operator"), token(url, "worker")
        with service(url) as running:
            yield Layout("embedded on SQLite", running, running, operator, secret)


@contextmanager
def lanes(redis_url: str) -> Iterator[Layout]:
    """Run a control lane and a worker lane, each a process, on PostgreSQL.

    Args:
        redis_url: the Redis by which one rings for the other.

    Raises:
        NoPostgres: there is none here.
        RuntimeError: a lane did not start.
    """
    with postgres() as server:
        url = server.url(server.create_database())
        upgrade(url)
        operator, secret = token(url, "operator"), token(url, "worker")
        ring = ("--redis-url", redis_url)
        with service(url, "--lane", "control", *ring) as control, service(url, "--lane", "worker", *ring) as worker:
            yield Layout("two lanes on PostgreSQL and Valkey", control, worker, operator, secret)


@dataclass(frozen=True, slots=True)
class Killed:
    """One kill.

    Attributes:
        epoch: the log.
        seq: its place in it.
        hash: its entry's.
        sent: when it was sent, nanoseconds of the monotonic clock.
        acked: when its reply began to arrive: by then it is durable.
    """

    epoch: str
    seq: int
    hash: str
    sent: int
    acked: int


class Killer:
    """An operator who kills on one connection that is kept open."""

    def __init__(self, layout: Layout) -> None:
        """Set up for a running service."""
        self._head = (
            f"POST /v1/kills HTTP/1.1\r\nHost: {LOOPBACK}\r\nAuthorization: Bearer {layout.operator}\r\n"
            f"Content-Type: application/json\r\nContent-Length: "
        )
        self._port = layout.control.port
        self._connection = self._connected()
        self._used = time.monotonic()

    def _connected(self) -> socket.socket:
        connection = socket.create_connection((LOOPBACK, self._port), timeout=REPLY_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def kill(self, target: str) -> Killed:
        """Kill ``target``, and return when that was durable.

        Raises:
            RuntimeError: it was refused.
        """
        order = {"target": target, "reason": "it sends the same mail twice", "flip_id": f"f-{uuid.uuid4().hex}"}
        body = json.dumps(order)
        request = f"{self._head}{len(body)}\r\n\r\n{body}".encode("ascii")
        if time.monotonic() - self._used > 1.0:
            self._connection.close()  # the service may be about to: an idle connection is not kept for long
            self._connection = self._connected()
        sent = time.monotonic_ns()
        self._connection.sendall(request)
        data = self._connection.recv(CHUNK)
        acked = time.monotonic_ns()
        while not _whole(data):
            piece = self._connection.recv(CHUNK)
            if not piece:
                raise RuntimeError(f"the reply to a kill broke off: {data!r:.300}")
            data += piece
        self._used = time.monotonic()
        head, _, told = data.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 201 "):
            raise RuntimeError(f"a kill was refused: {data!r:.500}")
        members = json.loads(told)
        return Killed(members["epoch"], members["seq"], members["hash"], sent, acked)

    def __enter__(self) -> Self:
        """Return the operator."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self._connection.close()


def _whole(data: bytes) -> bool:
    head, end, body = data.partition(b"\r\n\r\n")
    return bool(end) and len(body) >= length(head)
