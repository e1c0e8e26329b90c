"""A guard for SQLAlchemy engines: what writes is asked for, and an abort cancels the statement that runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, TypeAlias
from weakref import WeakSet

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, ExceptionContext, ExecutionContext

from haltline.context import here
from haltline.current import current_run
from haltline.errors import CapabilityFrozen, ConfigurationError, Halt
from haltline.native import make_condition
from haltline.run import Run
from haltline.scopes import check_capability

Cancel: TypeAlias = Callable[[Any], object]
"""Cancels what a DBAPI connection is doing, called in another thread; harmless where it does nothing."""

_AGAIN_S: Final = 0.1
"""After how long a statement that has not ended is cancelled again: it may not have begun at the server, seconds."""

_CANCEL_S: Final = 2.0
"""How long one cancellation may take, seconds."""

_TRIES: Final = 3
"""How many cancellations in a row may fail before that is said, and the statement left alone."""

_BEGINS_READ: Final = re.compile(
    r"(?:\s|--[^\n]*(?:\n|$)|/\*(?!!).*?\*/)*(?:SELECT|VALUES|SHOW|EXPLAIN|WITH|SAVEPOINT|RELEASE|ROLLBACK)\b",
    re.IGNORECASE | re.DOTALL,
)
_CHANGES: Final = re.compile(r"\b(?:INSERT|UPDATE|DELETE|MERGE|INTO|EXECUTE)\b|;\s*\S|/\*!", re.IGNORECASE)


def writes(statement: str) -> bool:
    """Return whether a statement may write, by its words: whatever does not clearly read, does.

    A function that writes, called by a SELECT, does not show. Words inside texts count: better one refusal too many.
    """
    return _BEGINS_READ.match(statement) is None or _CHANGES.search(statement) is not None


def guard(
    engine: Engine,
    *,
    capability: str | None = None,
    writes: Callable[[str], bool] = writes,
    cancel: Cancel | None = None,
) -> None:
    """Have an engine's statements carried out for the current run only.

    A statement that writes is refused where the run is stopped, and so is the commit of a transaction that has written:
    it rolls back, and what surfaces is ``Killed``. An abort cancels the statement that is running, a reading one, too.
    A stopped run may still read, and roll back. Fetching rows is not watched.

    An engine under asyncio, ``guard(async_engine.sync_engine)``, is only asked; its statements end with their task in
    ``async with run.abortable()``.

    Args:
        engine: the engine, to be guarded once.
        capability: the capability that writing uses.
        writes: tells of a statement's text whether it writes, such as ``lambda statement: True`` for all.
        cancel: for drivers other than psycopg, psycopg2 and sqlite3; the connection is thrown away afterwards.

    Raises:
        ConfigurationError: it is not known how to cancel a statement with this driver.
        InvalidTarget: ``capability`` is not a valid id.
    """
    spoils = True
    if engine.dialect.is_async:
        cancel = None
    elif cancel is None:
        if engine.dialect.driver not in _CANCELS:
            raise ConfigurationError(
                f"how to cancel a statement with the driver {engine.dialect.driver} is not known here: pass "
                f"cancel=, a function that is given the driver's connection and called in another thread"
            )
        cancel, spoils = _CANCELS[engine.dialect.driver]
    guarded = _Guard(None if capability is None else check_capability(capability), writes, cancel, spoils=spoils)
    event.listen(engine, "before_cursor_execute", guarded.before)
    event.listen(engine, "after_cursor_execute", guarded.after)
    event.listen(engine, "handle_error", guarded.failed)
    event.listen(engine, "prepare_twophase", guarded.commit)
    event.listen(engine, "commit", guarded.commit)
    event.listen(engine, "rollback", guarded.rollback)


def _cancel_psycopg(connection: Any) -> None:
    connection.cancel_safe(timeout=_CANCEL_S)


def _cancel_psycopg2(connection: Any) -> None:
    connection.cancel()


def _interrupt(connection: Any) -> None:
    connection.interrupt()


_CANCELS: Final[dict[str, tuple[Cancel, bool]]] = {
    # A cancellation that PostgreSQL was sent may come late, and end what the connection is used for next.
    "psycopg": (_cancel_psycopg, True),
    "psycopg2": (_cancel_psycopg2, True),
    "pysqlite": (_interrupt, False),
}


class _Guard:
    """The listeners of one engine."""

    def __init__(
        self, capability: str | None, writes: Callable[[str], bool], cancel: Cancel | None, *, spoils: bool
    ) -> None:
        self._capability = capability
        self._writes = writes
        self._cancel = cancel
        self._spoils = spoils
        self._running: dict[ExecutionContext, _Statement] = {}
        self._written: WeakSet[Connection] = WeakSet()

    def before(
        self, conn: Connection, _cursor: Any, statement: str, _parameters: Any, context: ExecutionContext, _many: object
    ) -> None:
        if self._writes(statement):
            run, capability = current_run(), self._capability
            run.check(capability)
            self._written.add(conn)
        else:
            entered = here()
            if entered is None or not entered.run.verdict():
                return
            run, capability = entered.run, None
        if self._cancel is not None:
            connection = conn.connection.driver_connection
            running = _Statement(run, capability, self._cancel, connection, spoils=self._spoils)
            running.begin()
            self._running[context] = running

    def after(
        self, _conn: Connection, _cursor: Any, _sql: str, _parameters: Any, context: ExecutionContext, _many: object
    ) -> None:
        running = self._running.get(context)
        if running is None:
            return
        running.end()
        error = running.error()
        if error is not None:
            raise error  # it was too late for the statement; its transaction is not committed
        del self._running[context]

    def failed(self, context: ExceptionContext) -> BaseException | None:
        execution = context.execution_context
        running = None if execution is None else self._running.pop(execution, None)
        if running is None:
            if isinstance(context.original_exception, Halt):
                context.is_disconnect = False  # ours, and nothing was sent: the connection is as it was
            return None
        running.end()
        error = running.error()
        if error is None or not isinstance(context.original_exception, Exception | type(error)):
            return None
        context.is_disconnect = running.spoilt or (
            context.is_disconnect and isinstance(context.original_exception, Exception)
        )
        context.invalidate_pool_on_disconnect = False
        return error

    def commit(self, conn: Connection, _xid: object = None) -> None:
        if conn in self._written:
            current_run().check(self._capability)
            self._written.discard(conn)

    def rollback(self, conn: Connection) -> None:
        self._written.discard(conn)


class _Statement:
    """One statement that is running.

    Attributes:
        spoilt: whether a cancellation may still be on its way to the connection.
    """

    def __init__(self, run: Run, capability: str | None, cancel: Cancel, connection: Any, *, spoils: bool) -> None:
        self._run = run
        self._capability = capability
        self._block = run.abortable(capability)
        self._cancel = cancel
        self._connection = connection
        self._spoils = spoils
        self._guard = make_condition()
        self._ended = False
        self.spoilt = False

    def begin(self) -> None:
        self._block.__enter__()
        self._block.on_abort(self._end_it)

    def end(self) -> None:
        with self._guard:
            if self._ended:
                return
            self._ended = True
            self._guard.notify_all()
        self._block.__exit__(None, None, None)

    def error(self) -> Halt | CapabilityFrozen | None:
        stop = self._block.stop
        return None if stop is None else self._run.stopped_by(stop, self._capability)

    def _end_it(self) -> None:
        """Cancel the statement, until it has ended."""
        failures = 0
        while not self._ended:
            try:
                self._cancel_it()
                failures = 0
            except Exception:
                failures += 1
                # Where it has ended there may be nothing left to be cancelled.
                if failures == _TRIES and not self._ended:
                    raise
            with self._guard:
                if not self._ended:
                    self._guard.wait(_AGAIN_S)

    def _cancel_it(self) -> None:
        with self._guard:
            if self._ended:
                return
            self.spoilt = self._spoils
            if not self._spoils:
                self._cancel(self._connection)  # takes no time, and never ends what the connection does next
        if self._spoils:
            self._cancel(self._connection)


__all__ = ["guard", "writes"]
