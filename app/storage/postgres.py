"""PostgreSQL under the flip log: an advisory lock for flips, one snapshot for each read, time-outs for all."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import URL, Connection, Engine, NullPool
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.domain.lanes import Lane
from app.service.store import OutcomeUnknown, StoreUnavailable
from app.storage.database import Done, Use
from app.storage.postgres_checks import check_server, why_unreachable
from app.storage.postgres_connection import BoundedConnection, begin_reading, connecting_until, driver
from app.storage.postgres_pools import LANES, Pools, engine, for_flips, for_reads, pool, session_settings

T = TypeVar("T")

LOG_LOCK: Final = 0x68616C746C696E65
"""The key of the advisory lock on the log, "haltline" in ASCII: flips take it exclusively."""

_UNHURRIED: Final = 30.0
_OPENING: Final = 8.0  # to a server far away; with TLS and a password some twelve round trips
_MIGRATION_SECONDS: Final = 180.0

# Everything is said outright, because a role or a database may have another default. READ COMMITTED: every statement
# after the lock sees what was committed before the lock was granted. synchronous_commit: an acknowledged kill is on
# disk; remote_apply is stricter, and stays. Both statements go in one message, so that the lock costs one round trip;
# whatever is read comes in statements of its own: one that takes the lock and reads sees what was there before it
# waited.
_LOCK: Final = (
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; "
    f"SELECT pg_advisory_xact_lock({LOG_LOCK}), set_config('synchronous_commit', CASE"
    " current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true)"
).encode()
# With the session's time-outs lifted: a node that makes 100,000 holds of rows is not idle.
_PATIENCE: Final = (
    f"SELECT set_config('statement_timeout', '{int(_UNHURRIED * 1000)}', true),"
    f" set_config('idle_in_transaction_session_timeout', '{int(_UNHURRIED * 1000)}', true)"
)


class PostgresDatabase:
    """A PostgreSQL server."""

    def __init__(self, url: URL, *, timeout: float = 2.0, pools: Pools = LANES[Lane.ALL]) -> None:
        """Connect, and check that the server keeps what it acknowledges and has the schema of this code.

        Args:
            url: ``postgresql://user:password@host:port/name``; several hosts as libpq takes them.
            timeout: how long one transaction may take, seconds, connecting included; its commit may take half of it
                longer.
            pools: how many connections there may be.

        Raises:
            StoreRefused: the address, the server, its version or settings, or the schema is wrong.
            StoreUnavailable: the server could not be reached.
        """
        self._timeout = timeout
        self._closed = False
        settings = session_settings(timeout)
        # A flip looks up a few rows by their keys. A plan that was made and kept while the tables were small must not
        # read them in whole when they have grown.
        self._flips = engine(url, {**settings, "enable_seqscan": 0}, for_flips, **pool(pools.flips, timeout))
        self._beside = engine(url, settings, for_flips, **pool(pools.beside, timeout))
        reads = engine(url, settings, for_reads, **pool(pools.reads, timeout))
        self._reading: dict[Use, Engine] = {
            "reads": reads,
            "bulk": engine(url, settings, for_reads, **pool(pools.bulk, timeout)) if pools.bulk else reads,
            "refresh": engine(url, settings, for_reads, **pool(pools.refresh, timeout)),
        }
        try:
            # On the refresher's connection, which is thereby made: its first read is one round trip as all others.
            self._tried(
                lambda deadline: self._read(lambda c: check_server(c, settings), deadline, use="refresh", begins=True),
                timeout=max(timeout, _OPENING),
            )
        except StoreUnavailable as error:
            self.close()
            why_unreachable(url, error)
            raise
        except BaseException:
            self.close()
            raise

    def read(self, work: Callable[[Connection], T], *, unhurried: bool = False) -> T:
        """See :class:`app.storage.database.Database`."""
        if unhurried:

            def patient(connection: Connection) -> T:
                begin_reading(connection, _PATIENCE)
                return work(connection)

            return self._tried(lambda deadline: self._read(patient, deadline, begins=True), timeout=_UNHURRIED)
        return self._tried(lambda deadline: self._read(work, deadline))

    def glance(self, work: Callable[[Connection], T], *, use: Use = "reads") -> T:
        """See :class:`app.storage.database.Database`."""

        def look(deadline: float) -> T:
            # No BEGIN and no ROLLBACK: a statement is a transaction by itself, and the round trip is the only one.
            with self._lent(self._reading[use], deadline, autocommit=True) as connection:
                return work(connection)

        return self._tried(look)

    def _read(self, work: Callable[[Connection], T], deadline: float, *, use: Use = "reads", begins: bool = False) -> T:
        """Return what ``work`` reads in one transaction, which it ``begins`` itself if it says so."""
        with self._lent(self._reading[use], deadline, autocommit=begins) as connection:
            value = work(connection)
            # Nothing was written. After a ROLLBACK psycopg has the server forget every statement that it prepared.
            connection.commit()
            return value

    def _tried(self, read: Callable[[float], T], *, timeout: float | None = None) -> T:
        """Return what a read returns; one more try is made where the connection turns out to have been dropped."""
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        try:
            return read(deadline)
        except DBAPIError as error:
            if not error.connection_invalidated or time.monotonic() >= deadline:
                raise _unavailable(error) from error
        try:
            return read(deadline)
        except DBAPIError as error:
            raise _unavailable(error) from error

    def write(self, work: Callable[[Connection], Done[T]]) -> T:
        """See :class:`app.storage.database.Database`."""
        deadline = time.monotonic() + self._timeout
        with contextlib.ExitStack() as stack:
            connection = self._locked(stack, deadline)
            try:
                done = work(connection)
                if not done.write:
                    connection.rollback()
                    return done.value
            except (DBAPIError, psycopg.Error) as error:
                raise _unavailable(error) from error
            raw = driver(connection)
            if raw.info.transaction_status != TransactionStatus.INTRANS or time.monotonic() >= deadline:
                raise StoreUnavailable("time ran out before the commit; nothing was changed")
            raw.deadline = max(deadline, time.monotonic() + self._timeout / 2)
            _commit(connection, raw)
            return done.value

    def write_beside(self, work: Callable[[Connection], Done[T]]) -> T:
        """See :class:`app.storage.database.Database`."""

        def attempt(deadline: float) -> T:
            with self._lent(self._beside, deadline) as connection:
                done = work(connection)
                if not done.write:
                    connection.rollback()
                    return done.value
                raw = driver(connection)
                if time.monotonic() >= deadline:
                    raise StoreUnavailable("time ran out before the commit; nothing was changed")
                raw.deadline = max(deadline, time.monotonic() + self._timeout / 2)
                _commit(connection, raw)
                return done.value

        return self._tried(attempt)

    def _locked(self, stack: contextlib.ExitStack, deadline: float) -> Connection:
        """Return a connection in a transaction that holds the log lock; ``stack`` gives it back.

        A stale pooled connection shows here, before anything of the flip was sent: so one more try is safe.
        """
        for again in (True, False):
            lent = contextlib.ExitStack()
            dropped = False
            try:
                with lent:
                    connection = lent.enter_context(self._lent(self._flips, deadline, autocommit=True))
                    connection.begin()  # for SQLAlchemy; what the server is told follows
                    raw = driver(connection)
                    try:
                        raw.execute(_LOCK, prepare=False)
                    finally:
                        dropped = raw.closed  # looked at before it is thrown away
                    stack.push(lent.pop_all())
                    return connection
            except psycopg.Error as error:
                if not again or not dropped or time.monotonic() >= deadline:
                    raise _unavailable(error) from error
        raise AssertionError("the second try returns or raises")

    @contextmanager
    def _lent(self, source: Engine, deadline: float, *, autocommit: bool = False) -> Iterator[Connection]:
        """Lend a connection with a deadline; one that anything went wrong on is thrown away."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        try:
            with connecting_until(deadline):
                connection = source.connect()
        except PoolTimeoutError as error:
            raise StoreUnavailable("every connection to the database is busy; nothing was changed") from error
        except DBAPIError as error:
            raise StoreUnavailable(f"the database cannot be reached: {_told(error)}") from error
        try:
            raw = driver(connection)
            raw.deadline = deadline
            if raw.autocommit != autocommit:
                raw.autocommit = autocommit  # sends nothing
            yield connection
            if raw.info.transaction_status == TransactionStatus.IDLE:
                raw.deadline = math.inf  # nothing more is said, and so nothing can come too late
        except BaseException:
            connection.invalidate()
            raise
        finally:
            connection.close()

    def close(self) -> None:
        """See :class:`app.storage.database.Database`."""
        self._closed = True
        for each in {self._flips, self._beside, *self._reading.values()}:
            each.dispose()


def _commit(connection: Connection, raw: BoundedConnection) -> None:
    raw.warned = None
    try:
        connection.commit()
    except DBAPIError as error:
        raise OutcomeUnknown(f"the database did not confirm the commit: {_told(error)}") from error
    # A wait for a standby that is cut short ends in a COMMIT that looks like success, and in a warning beside it
    # (https://www.postgresql.org/docs/current/warm-standby.html, synchronous replication). Its text is in the server's
    # language, so that every warning counts.
    if raw.warned is not None:
        raise OutcomeUnknown(f"the database committed with a warning, perhaps on one server only: {raw.warned}")


def _told(error: DBAPIError | psycopg.Error) -> str:
    said = error.orig if isinstance(error, DBAPIError) else error
    return str(said).strip() or type(said).__name__


def _unavailable(error: DBAPIError | psycopg.Error) -> StoreUnavailable:
    return StoreUnavailable(f"the database did not do its work: {_told(error)}; nothing was changed")


@contextmanager
def connection(url: URL) -> Iterator[Connection]:
    """Lend a connection for a migration.

    Raises:
        StoreRefused: the address is wrong.
        StoreUnavailable: the server could not be reached.
    """
    source = engine(url, {}, for_flips, poolclass=NullPool)
    try:
        try:
            lent = source.connect()
        except (DBAPIError, ArgumentError) as error:
            told = _told(error) if isinstance(error, DBAPIError) else str(error)
            raise StoreUnavailable(f"the database cannot be reached: {told}") from error
        with lent:
            driver(lent).deadline = time.monotonic() + _MIGRATION_SECONDS
            yield lent
    finally:
        source.dispose()
