"""PostgreSQL under the flip log: an advisory transaction lock for flips, one snapshot for each read, time-outs for all.

Flips and reads have pools of their own: a kill never waits for a connection that an export or a refresh holds.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from psycopg import IsolationLevel
from psycopg.pq import TransactionStatus
from sqlalchemy import URL, Connection, Engine, NullPool, QueuePool, create_engine, event, text
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.service.store import OutcomeUnknown, StoreUnavailable
from app.storage.database import Done
from app.storage.errors import StoreRefused
from app.storage.migrate import check_schema
from app.storage.postgres_connection import BoundedConnection

T = TypeVar("T")

MINIMUM: Final = 140_000
"""The oldest server that is supported, as server_version_num."""

LOG_LOCK: Final = 0x68616C746C696E65
"""The key of the advisory lock on the log, "haltline" in ASCII: flips take it exclusively."""

_CONNECT_SECONDS: Final = 2  # the least that libpq and psycopg accept, per host of the address
_UNHURRIED: Final = 30.0
_MIGRATION_SECONDS: Final = 180.0
_IDLE_MS: Final = 500  # a node that is paused between two statements holds the log lock no longer than this
_FLIPPERS: Final = 4
_READERS: Final = 8

# One round trip for both. synchronous_commit is set here and not left to the server's configuration: an acknowledged
# kill is on disk. remote_apply is stricter, and stays.
_LOCK: Final = text(
    f"SELECT pg_advisory_xact_lock({LOG_LOCK}), set_config('synchronous_commit', CASE"
    " current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true)"
)
_PATIENCE: Final = text(
    f"SELECT set_config('statement_timeout', '{int(_UNHURRIED * 1000)}', true),"
    f" set_config('idle_in_transaction_session_timeout', '{int(_UNHURRIED * 1000)}', true)"
)
_SETTINGS: Final = text(
    "SELECT current_setting('server_version_num')::int AS version, current_setting('server_version') AS shown,"
    " current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,"
    " current_setting('server_encoding') AS encoding"
)


def _engine(url: URL, settings: dict[str, int], prepare: Callable[[BoundedConnection], None], **pool: Any) -> Engine:
    if url.get_driver_name() != "psycopg":
        raise StoreRefused(f"PostgreSQL is reached with psycopg, not with {url.get_driver_name()}: use postgresql://")
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    given = url.query.get("options", "")
    url = url.update_query_dict({
        "connect_timeout": str(_CONNECT_SECONDS),
        "target_session_attrs": "read-write",  # never a standby: it may not have heard of a kill
        "application_name": "haltline",
        "options": f"{given if isinstance(given, str) else ' '.join(given)} {options}".strip(),
    })  # fmt: skip
    # use_native_hstore: no look-up of a type that is not used, on each first connection.
    # hide_parameters: no error, and so no journal, repeats the values of a statement.
    engine = create_engine(url, use_native_hstore=False, hide_parameters=True, **pool)

    def connect(_dialect: object, _record: object, args: list[Any], named: dict[str, Any]) -> BoundedConnection:
        raw = BoundedConnection.connect(*args, **named)
        raw.deadline = time.monotonic() + _CONNECT_SECONDS
        prepare(raw)
        return raw

    event.listen(engine, "do_connect", connect)
    return engine


def _for_flips(raw: BoundedConnection) -> None:
    # Said outright, because a role or a database may have another default. READ COMMITTED: every statement after the
    # lock sees what was committed before the lock was granted.
    raw.isolation_level = IsolationLevel.READ_COMMITTED
    raw.read_only = False


def _for_reads(raw: BoundedConnection) -> None:
    raw.isolation_level = IsolationLevel.REPEATABLE_READ
    raw.read_only = True


def _driver(connection: Connection) -> BoundedConnection:
    driver = connection.connection.driver_connection
    if not isinstance(driver, BoundedConnection):
        raise TypeError("a connection of this module is a BoundedConnection")
    return driver


class PostgresDatabase:
    """A PostgreSQL server."""

    def __init__(self, url: URL, *, timeout: float = 2.0) -> None:
        """Connect, and check that the server keeps what it acknowledges and has the schema of this code.

        Args:
            url: ``postgresql://user:password@host:port/name``; several hosts as libpq takes them.
            timeout: how long one transaction may take, seconds; its commit may take half of it longer.

        Raises:
            StoreRefused: the address, the server's version or settings, or the schema is wrong.
            StoreUnavailable: the server could not be reached.
        """
        self._timeout = timeout
        self._closed = False
        settings = {
            "lock_timeout": int(timeout * 500),
            "statement_timeout": int(timeout * 800),  # before our own deadline: the connection then stays usable
            "idle_in_transaction_session_timeout": _IDLE_MS,
        }
        pool = {"poolclass": QueuePool, "max_overflow": 0, "pool_timeout": timeout / 2, "pool_use_lifo": True}
        self._flips = _engine(url, settings, _for_flips, pool_size=_FLIPPERS, **pool)
        self._reads = _engine(url, settings, _for_reads, pool_size=_READERS, **pool)
        try:
            self.read(_check_server)
        except BaseException:
            self.close()
            raise

    def read(self, work: Callable[[Connection], T], *, unhurried: bool = False) -> T:
        """See :class:`app.storage.database.Database`."""
        deadline = time.monotonic() + (_UNHURRIED if unhurried else self._timeout)
        if unhurried:
            work = _patiently(work)
        try:
            return self._read(work, deadline)
        except DBAPIError as error:
            if not error.connection_invalidated or time.monotonic() >= deadline:
                raise _unavailable(error) from error
        # A pooled connection that the server had dropped: SQLAlchemy has now thrown away all that are as old.
        try:
            return self._read(work, deadline)
        except DBAPIError as error:
            raise _unavailable(error) from error

    def _read(self, work: Callable[[Connection], T], deadline: float) -> T:
        with self._lent(self._reads, deadline) as connection:
            value = work(connection)
            connection.rollback()
            return value

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
            except DBAPIError as error:
                raise _unavailable(error) from error
            raw = _driver(connection)
            if raw.info.transaction_status != TransactionStatus.INTRANS or time.monotonic() >= deadline:
                raise StoreUnavailable("time ran out before the commit; nothing was changed")
            raw.deadline = max(deadline, time.monotonic() + self._timeout / 2)
            _commit(connection, raw)
            return done.value

    def _locked(self, stack: contextlib.ExitStack, deadline: float) -> Connection:
        """Return a connection in a transaction that holds the log lock; ``stack`` gives it back.

        A stale pooled connection shows here, before anything of the flip was sent: so one more try is safe.
        """
        for again in (True, False):
            lent = contextlib.ExitStack()
            try:
                with lent:
                    connection = lent.enter_context(self._lent(self._flips, deadline))
                    connection.execute(_LOCK)
                    stack.push(lent.pop_all())
                    return connection
            except DBAPIError as error:
                if not again or not error.connection_invalidated or time.monotonic() >= deadline:
                    raise _unavailable(error) from error
        raise AssertionError("the second try returns or raises")

    @contextmanager
    def _lent(self, engine: Engine, deadline: float) -> Iterator[Connection]:
        """Lend a connection with a deadline; one that anything went wrong on is thrown away."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        try:
            connection = engine.connect()
        except PoolTimeoutError as error:
            raise StoreUnavailable("every connection to the database is busy; nothing was changed") from error
        except DBAPIError as error:
            raise StoreUnavailable(f"the database cannot be reached: {_told(error)}") from error
        try:
            _driver(connection).deadline = deadline
            yield connection
        except BaseException:
            connection.invalidate()
            raise
        finally:
            connection.close()

    def close(self) -> None:
        """See :class:`app.storage.database.Database`."""
        self._closed = True
        self._flips.dispose()
        self._reads.dispose()


def _patiently(work: Callable[[Connection], T]) -> Callable[[Connection], T]:
    """Return ``work`` with the session's time-outs lifted: a node that makes 100,000 holds of rows is not idle."""

    def patient(connection: Connection) -> T:
        connection.execute(_PATIENCE)
        return work(connection)

    return patient


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


def _check_server(connection: Connection) -> None:
    found = connection.execute(_SETTINGS).one()
    if found.version < MINIMUM:
        raise StoreRefused(f"PostgreSQL {found.shown} is too old: {MINIMUM // 10_000} or newer is needed")
    if found.fsync != "on" or found.full_page_writes != "on":
        raise StoreRefused("the server runs with fsync or full_page_writes off and would lose acknowledged kills")
    if found.encoding != "UTF8":
        raise StoreRefused(f"the database has the encoding {found.encoding}: create it with ENCODING 'UTF8'")
    check_schema(connection)


def _told(error: DBAPIError) -> str:
    return str(error.orig).strip() or type(error.orig).__name__


def _unavailable(error: DBAPIError) -> StoreUnavailable:
    return StoreUnavailable(f"the database did not do its work: {_told(error)}; nothing was changed")


@contextmanager
def connection(url: URL) -> Iterator[Connection]:
    """Lend a connection for a migration.

    Raises:
        StoreRefused: the address is wrong.
        StoreUnavailable: the server could not be reached.
    """
    engine = _engine(url, {}, _for_flips, poolclass=NullPool)
    try:
        try:
            lent = engine.connect()
        except (DBAPIError, ArgumentError) as error:
            told = _told(error) if isinstance(error, DBAPIError) else str(error)
            raise StoreUnavailable(f"the database cannot be reached: {told}") from error
        with lent:
            _driver(lent).deadline = time.monotonic() + _MIGRATION_SECONDS
            yield lent
    finally:
        engine.dispose()
