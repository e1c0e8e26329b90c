"""SQLite under the flip log: one connection, one native thread, a rollback journal, and an fdatasync before every ack.

One connection does everything, reads too, so that no reader can ever keep a kill waiting for a lock. The journal is a
rollback journal (TRUNCATE) and not a WAL: SQLite before 3.51.3 can corrupt a WAL (https://sqlite.org/wal.html, section
"The WAL-Reset Bug"), and a copy of the file without its WAL silently loses kills.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from sqlalchemy import URL, Connection, Engine, StaticPool, create_engine
from sqlalchemy.exc import DBAPIError

from app.service.store import LogDiverged, OutcomeUnknown, StoreUnavailable
from app.storage.database import Done, Use
from app.storage.errors import StoreRefused
from app.storage.migrate import upgrade_connection
from app.storage.serial import Closed, NotStarted, SerialThread, StillRunning
from app.storage.sqlite_file import OwnedFile

T = TypeVar("T")

MINIMUM: Final = (3, 37, 0)
"""The first SQLite with STRICT tables (https://sqlite.org/stricttables.html)."""

_MEMORY: Final = ":memory:"
_BUSY_SECONDS: Final = 1.0  # for a backup or a shell that reads the file; our own threads never meet
_UNHURRIED: Final = 60.0
_READ_SECONDS: Final = 0.5  # a filter that finds little must not keep a kill waiting while it scans a long log
_OPCODES: Final = 5_000  # about 0.2 ms between two looks at the clock

# A write that fails comes before the commit: in this journal mode that is the truncation of the journal, which is a
# step later than every write and sync of the database (https://sqlite.org/atomiccommit.html). Until then the journal is
# whole, and SQLite has rolled back, or will when the file is opened again.
_NOT_WRITTEN: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE})

_PRAGMAS: Final = (
    ("synchronous", "FULL", 2),
    ("foreign_keys", "ON", 1),
    ("recursive_triggers", "ON", 1),
    ("trusted_schema", "OFF", 0),
)


def _set_pragmas(raw: sqlite3.Connection, path: str) -> None:
    for name, value, shown in _PRAGMAS:
        raw.execute(f"PRAGMA {name} = {value}")
        if raw.execute(f"PRAGMA {name}").fetchone()[0] != shown:
            raise StoreRefused(f"SQLite does not take PRAGMA {name} = {value}")
    mode = raw.execute("PRAGMA journal_mode = TRUNCATE").fetchone()[0]
    if mode != ("memory" if path == _MEMORY else "truncate"):
        raise StoreRefused(f"SQLite does not leave journal mode {mode}: another process has {path} open")


def _raw_connection(path: str) -> sqlite3.Connection:
    """Return a connection with every pragma in force, whose transactions are begun by this module alone."""
    if sqlite3.sqlite_version_info < MINIMUM:
        raise StoreRefused(f"SQLite {sqlite3.sqlite_version} has no STRICT tables: 3.37 or newer is needed")
    # isolation_level=None: Python would begin DEFERRED transactions by itself, whose later upgrade to a writing one
    # fails at once, without waiting, if anybody else writes. check_same_thread stays on: one thread, for ever.
    raw = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, cached_statements=256)
    try:
        _set_pragmas(raw, path)
    except BaseException:
        raw.close()
        raise
    return raw


def _file_of(url: URL) -> Path | None:
    """Return the file that an address names, None for a database in memory."""
    if url.host or url.username or url.password or url.port or url.query:
        raise StoreRefused("an SQLite address is sqlite:///relative/path or sqlite:////absolute/path, nothing more")
    if url.get_driver_name() != "pysqlite":
        raise StoreRefused(f"SQLite is opened with Python's own driver, not with {url.get_driver_name()}")
    name = url.database or _MEMORY
    if name.startswith("file:"):
        raise StoreRefused("file: addresses are not supported: name the file by its path")
    return None if name == _MEMORY else Path(name)


class _Session:
    """The one connection, as the driver and as SQLAlchemy see it; lives on the native thread."""

    def __init__(self, path: str) -> None:
        self.raw = _raw_connection(path)
        # hide_parameters: no error, and so no journal, repeats the values of a statement.
        self._engine: Engine = create_engine(
            "sqlite://", creator=lambda: self.raw, poolclass=StaticPool, hide_parameters=True
        )
        self.connection: Connection = self._engine.connect()

    def close(self) -> None:
        with contextlib.suppress(DBAPIError, sqlite3.Error):
            self.connection.close()
        self._engine.dispose()
        self.raw.close()


class SqliteDatabase:
    """The embedded database."""

    def __init__(self, url: URL, *, timeout: float = 5.0, owner_wait: float = 5.0) -> None:
        """Own the file, open it and bring it to the schema of this code.

        Args:
            url: ``sqlite:///path``, or ``sqlite://`` for a database in memory (tests).
            timeout: how long a caller waits for its work, the work before it included, seconds.
            owner_wait: how long to wait for another owner that is just leaving, seconds.

        Raises:
            StoreRefused: the file, its place, its owner or its schema is wrong.
            StoreUnavailable: SQLite could not open it.
        """
        path = _file_of(url)
        self._timeout = timeout
        self._session: _Session | None = None
        self._owned = None if path is None else OwnedFile(path, wait=owner_wait)
        self._path = _MEMORY if self._owned is None else str(self._owned.path)
        self._thread = SerialThread("haltline-sqlite")
        try:
            self._run(self._migrate, timeout=_UNHURRIED, writing=False)
        except BaseException:
            self.close()
            raise

    def read(self, work: Callable[[Connection], T], *, unhurried: bool = False) -> T:
        """See :class:`app.storage.database.Database`."""
        timeout = _UNHURRIED if unhurried else self._timeout

        def job() -> T:
            self._same_file()
            session = self._open()
            if not unhurried:
                until = time.monotonic() + _READ_SECONDS
                session.raw.set_progress_handler(lambda: time.monotonic() > until, _OPCODES)
            try:
                return self._transaction(session, "BEGIN", lambda connection: Done(work(connection), write=False))
            finally:
                if self._session is session:  # one that was thrown away is closed
                    session.raw.set_progress_handler(None, 0)

        return self._run(job, timeout=timeout, writing=False)

    def glance(self, work: Callable[[Connection], T], *, use: Use = "reads") -> T:  # noqa: ARG002 - one connection
        """See :class:`app.storage.database.Database`."""
        return self.read(work)

    def write(self, work: Callable[[Connection], Done[T]]) -> T:
        """See :class:`app.storage.database.Database`."""
        return self._run(
            lambda: self._transaction(self._open(), "BEGIN IMMEDIATE", work), timeout=self._timeout, writing=True
        )

    def write_beside(self, work: Callable[[Connection], Done[T]]) -> T:
        """See :class:`app.storage.database.Database`; whoever writes to a file has all of it."""
        return self.write(work)

    def close(self) -> None:
        """See :class:`app.storage.database.Database`."""
        with contextlib.suppress(Closed, NotStarted, StillRunning):
            self._thread.run(self._discard, timeout=self._timeout)
        self._thread.close()
        if self._owned is not None:
            self._owned.release()

    def _run(self, job: Callable[[], T], *, timeout: float, writing: bool) -> T:
        try:
            return self._thread.run(job, timeout=timeout)
        except Closed:
            raise StoreUnavailable("the store is closed") from None
        except NotStarted:
            raise StoreUnavailable(f"the database was busy for {timeout:g} s; nothing was changed") from None
        except StillRunning:
            if writing:
                raise OutcomeUnknown(f"the disk did not confirm within {timeout:g} s") from None
            raise StoreUnavailable(f"the database did not answer within {timeout:g} s") from None

    # What follows runs on the native thread only.

    def _same_file(self) -> None:
        if self._owned is not None and not self._owned.in_place():
            raise LogDiverged(
                f"{self._path} is not the file that this process has opened: it was moved, replaced or removed; "
                f"put it back and start the service again"
            )

    def _open(self) -> _Session:
        if self._session is None:
            self._same_file()  # SQLite would open whatever lies there now, and make a file if nothing does
            try:
                self._session = _Session(self._path)
            except sqlite3.Error as error:
                raise StoreUnavailable(f"{self._path} cannot be opened: {error}") from error
        return self._session

    def _migrate(self) -> None:
        try:
            with _beginning(self._open()):
                upgrade_connection(self._open().connection)
        except DBAPIError as error:
            raise StoreUnavailable(f"{self._path} cannot be migrated: {error.orig}") from error

    def _discard(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _transaction(self, session: _Session, begin: str, work: Callable[[Connection], Done[T]]) -> T:
        try:
            session.raw.execute(begin)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the database cannot begin a transaction: {error}") from error
        try:
            done = work(session.connection)
        except BaseException as error:
            self._undo(session)
            if isinstance(error, DBAPIError):
                raise StoreUnavailable(f"the database refused: {error.orig}; nothing was changed") from error
            raise
        if done.write:
            self._commit(session)
        else:
            self._undo(session)
        return done.value

    def _commit(self, session: _Session) -> None:
        try:
            session.raw.commit()
        except sqlite3.Error as error:
            undone, code = self._undo(session), error.sqlite_errorcode
            if undone and code & 0xFF == sqlite3.SQLITE_BUSY:
                # SQLite promises that the transaction was still open: it was rolled back whole.
                raise StoreUnavailable("another process reads the database file; nothing was changed") from error
            if undone and code in _NOT_WRITTEN:
                self._discard()
                raise StoreUnavailable(f"the disk did not take it: {error}; nothing was changed") from error
            if self._path != _MEMORY:
                self._discard()  # whatever state it is in, a new connection begins with SQLite's own recovery
            raise OutcomeUnknown(f"the database did not confirm the commit: {error}") from error
        session.connection.rollback()  # SQLAlchemy has its own idea of a transaction; the driver has none any more

    def _undo(self, session: _Session) -> bool:
        """Roll back and return whether that is certain; a connection that cannot is thrown away."""
        try:
            session.raw.rollback()
            session.connection.rollback()
        except (sqlite3.Error, DBAPIError):
            self._discard()
            return False
        return True


@contextmanager
def _beginning(session: _Session) -> Iterator[None]:
    """Begin every transaction of SQLAlchemy for real, and as a writing one: for migrations."""
    from sqlalchemy import event

    def begin(_: Connection) -> None:
        session.raw.execute("BEGIN IMMEDIATE")

    event.listen(session.connection, "begin", begin)
    try:
        yield
    finally:
        event.remove(session.connection, "begin", begin)


@contextmanager
def connection(url: URL, *, owner_wait: float = 5.0) -> Iterator[Connection]:
    """Own the file of an address and lend a connection on which every transaction is a writing one.

    Args:
        url: ``sqlite:///path``.
        owner_wait: how long to wait for another owner that is just leaving, seconds.

    Raises:
        StoreRefused: the file, its place or its owner is wrong.
    """
    path = _file_of(url)
    if path is None:
        raise StoreRefused("a database in memory begins anew each time: name a file")
    owned = OwnedFile(path, wait=owner_wait)
    try:
        session = _Session(str(owned.path))
        try:
            with _beginning(session):
                yield session.connection
        finally:
            session.close()
    except sqlite3.Error as error:
        raise StoreUnavailable(f"{owned.path} cannot be opened: {error}") from error
    finally:
        owned.release()
