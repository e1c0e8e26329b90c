"""A PostgreSQL connection of which no exchange outlives its deadline.

psycopg waits for as long as the server takes, and neither tcp_user_timeout nor statement_timeout ends that wait when
the server's processes are frozen: the kernel still acknowledges, and nobody is there to look at the clock.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, Self, TypeVar

import psycopg
from psycopg.abc import PQGen, PQGenConn
from psycopg.errors import Diagnostic
from psycopg.pq import TransactionStatus
from psycopg.pq.abc import PGconn
from psycopg.rows import RowFactory, tuple_row
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

RV = TypeVar("RV")

_INTERVAL: Final = 0.1  # how often psycopg wakes up by itself; a deadline is kept to within this


_connect_until: Final[ContextVar[float]] = ContextVar("haltline_connect_until", default=math.inf)


class DeadlineExceeded(psycopg.OperationalError):
    """The server did not answer by the deadline; the connection is closed."""


class BoundedConnection(psycopg.Connection[Any]):
    """A connection with a deadline for everything that is said on it.

    Attributes:
        deadline: the moment of ``time.monotonic()`` after which every exchange fails, one under way included.
        warned: the last warning that the server sent since this was set to None.
    """

    @classmethod
    def _connect_gen(cls, conninfo: str = "") -> PQGenConn[Self]:
        # Bounded by the call that needs the connection: connect_timeout knows whole seconds only, two at least.
        until = _connect_until.get()
        connecting = super()._connect_gen(conninfo)
        try:
            needed = next(connecting)
            while True:
                ready = yield needed
                if time.monotonic() >= until:
                    raise DeadlineExceeded("the server did not answer in time")
                needed = connecting.send(ready)
        except StopIteration as end:
            made: Self = end.value
            return made

    def __init__(self, pgconn: PGconn, row_factory: RowFactory[Any] = tuple_row) -> None:
        super().__init__(pgconn, row_factory)
        self.deadline: float = math.inf
        self.warned: str | None = None
        self.add_notice_handler(self._heard)

    def _heard(self, notice: Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING":
            self.warned = notice.message_primary or notice.sqlstate or "a warning"

    def wait(self, gen: PQGen[RV], interval: float = _INTERVAL, timeout: float | None = None) -> RV:
        """Do one exchange, not longer than the deadline; see :meth:`psycopg.Connection.wait`."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            gen.close()  # nothing is sent
            raise DeadlineExceeded("no time was left to ask the server")
        try:
            return super().wait(self._bounded(gen), min(interval, left), timeout)
        except BaseException:
            # Half an exchange (the deadline, a killed greenlet): nothing sensible can follow on this connection.
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.pgconn.finish()
            raise

    def _bounded(self, gen: PQGen[RV]) -> PQGen[RV]:
        try:
            needed = next(gen)
            while True:
                ready = yield needed
                if time.monotonic() >= self.deadline:
                    raise DeadlineExceeded("the server did not answer in time")
                needed = gen.send(ready)
        except StopIteration as end:
            value: RV = end.value
            return value


@contextmanager
def connecting_until(deadline: float) -> Iterator[None]:
    """Have every connection that is made in the block be there by ``deadline``, a moment of ``time.monotonic()``."""
    token = _connect_until.set(deadline)
    try:
        yield
    finally:
        _connect_until.reset(token)


def connect_deadline(seconds: float) -> float:
    """Return until when a connection that is made now may take, and what is said on it first: at most ``seconds``."""
    return min(time.monotonic() + seconds, _connect_until.get())


def begin_reading(connection: Connection, first: str) -> tuple[Any, ...]:
    """Begin a transaction that reads one state, with a first statement: together they are one round trip.

    Args:
        connection: in autocommit mode.
        first: an SQL statement without parameters that returns one row.

    Returns:
        that row.

    Raises:
        DBAPIError: the server did not do it.
    """
    raw = driver(connection)
    connection.begin()  # for SQLAlchemy; what the server is told follows
    said = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {first}"
    try:
        # Two statements in one message cannot be prepared.
        cursor = raw.execute(said.encode(), prepare=False)
        cursor.nextset()
        row: tuple[Any, ...] | None = cursor.fetchone()
    except psycopg.Error as error:
        raise DBAPIError(said, None, error, connection_invalidated=raw.closed) from error
    if row is None:
        raise TypeError("the first statement returns one row")
    return row


def driver(connection: Connection) -> BoundedConnection:
    """Return the driver's connection under one of SQLAlchemy's."""
    raw = connection.connection.driver_connection
    if not isinstance(raw, BoundedConnection):
        raise TypeError("a connection of this package is a BoundedConnection")
    return raw
