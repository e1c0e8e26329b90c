"""What the generic store needs of a dialect: a consistent read, an exclusive write, and a close."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeAlias, TypeVar

from sqlalchemy import Connection

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Use: TypeAlias = Literal["reads", "bulk", "refresh"]
"""What a read is for: none of them takes a connection that another of them needs."""


@dataclass(frozen=True, slots=True)
class Done(Generic[T_co]):
    """What a write transaction came to.

    Attributes:
        value: what the caller gets.
        write: whether to commit; otherwise the transaction is rolled back, and cannot end in an unknown outcome.
    """

    value: T_co
    write: bool


class Database(Protocol):
    """One database under the flip log. Safe to call from several threads."""

    def read(self, work: Callable[[Connection], T], *, unhurried: bool = False) -> T:
        """Return what ``work`` reads in one transaction that begins inside this call and sees one state.

        Args:
            work: called with the connection, at most twice (again only where nothing was answered).
            unhurried: whether the read may take long because the process cannot do without it (its first load).

        Raises:
            StoreUnavailable: it could not be read in time.
            LogDiverged: the database under this process was taken away or replaced (SQLite's file).
        """

    def glance(self, work: Callable[[Connection], T], *, use: Use = "reads") -> T:
        """Return what ``work`` reads with ONE statement, which begins inside this call and sees one state.

        Where the database is far away, this is the one round trip that has to be.

        Args:
            work: executes one statement; called at most twice (again only where nothing was answered).
            use: what it is for.

        Raises:
            StoreUnavailable: it could not be read in time.
            LogDiverged: the database under this process was taken away or replaced (SQLite's file).
        """

    def write(self, work: Callable[[Connection], Done[T]]) -> T:
        """Return what ``work`` came to in one transaction that holds the exclusive log lock from its beginning.

        Every statement of ``work`` sees everything that was committed before the lock was granted.

        Args:
            work: called with the connection, at most once after the lock was granted.

        Raises:
            StoreUnavailable: it failed before the commit was begun; nothing was changed.
            OutcomeUnknown: it failed after the commit was begun.
            LogDiverged: the database under this process was taken away or replaced; nothing was changed.
        """

    def write_beside(self, work: Callable[[Connection], Done[T]]) -> T:
        """Return what ``work`` came to in one transaction beside the log: it takes no log lock, and no flip waits.

        Args:
            work: called with the connection, at most twice (again only where nothing was answered). It touches no table
                that a flip reads or writes.

        Raises:
            StoreUnavailable: it failed before the commit was begun; nothing was changed.
            OutcomeUnknown: it failed after the commit was begun.
            LogDiverged: the database under this process was taken away or replaced; nothing was changed.
        """

    def close(self) -> None:
        """Give back every connection; later calls raise StoreUnavailable."""
