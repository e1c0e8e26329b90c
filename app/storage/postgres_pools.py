"""Connections to PostgreSQL: how each is made, and how many there are of each kind.

Flips, reads, bulk reads, the refresher and what is written beside the log have pools of their own: a kill never waits
for a connection that somebody else holds, and neither does the read that every lease rests on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from psycopg import IsolationLevel
from sqlalchemy import URL, Engine, QueuePool, create_engine, event

from app.domain.lanes import Lane
from app.storage.errors import StoreRefused
from app.storage.postgres_connection import BoundedConnection, connect_deadline
from app.storage.postgres_dialect import DRIVER, register

CONNECT_SECONDS: Final = 2  # the least that libpq and psycopg accept, per host of the address
IDLE_MS: Final = 500
"""A node that is paused between two statements holds the log lock no longer than this."""


@dataclass(frozen=True, slots=True)
class Pools:
    """How many connections a process may hold at most; each is made when it is first needed.

    Attributes:
        flips: for whatever takes the log lock.
        beside: for what is written beside the log, which is never urgent.
        reads: for requests that read.
        bulk: for exports and events; 0 to have them use those of ``reads``.
        refresh: for the refresher.
    """

    flips: int = 4
    reads: int = 8
    bulk: int = 2
    refresh: int = 1
    beside: int = 1


LANES: Final[Mapping[Lane, Pools]] = {
    Lane.ALL: Pools(),
    Lane.CONTROL: Pools(),
    # It never flips, and reads tokens only; the one for flips is for a log that has yet to be made.
    Lane.WORKER: Pools(flips=1, reads=4, bulk=0),
}
"""The pools of each lane."""


SESSION: Final = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
"""What every session has a time-out for, in milliseconds all of them."""


def session_settings(timeout: float) -> dict[str, int]:
    """Return what each session has in force, so that no server or pooler keeps a call for longer than it may take.

    Args:
        timeout: how long one transaction may take, seconds.
    """
    # statement_timeout ends before our own deadline: the connection then stays usable.
    return dict(zip(SESSION, (int(timeout * 500), int(timeout * 800), IDLE_MS), strict=True))


def engine(url: URL, settings: Mapping[str, int], prepare: Callable[[BoundedConnection], None], **pool: Any) -> Engine:
    """Return an engine that makes bounded connections to the primary.

    Args:
        url: the address.
        settings: what each session has in force, milliseconds.
        prepare: called with each new connection; must send nothing.
        pool: arguments of the pool.

    Raises:
        StoreRefused: the address names another driver.
    """
    if url.get_driver_name() != "psycopg":
        raise StoreRefused(f"PostgreSQL is reached with psycopg, not with {url.get_driver_name()}: use postgresql://")
    # use_native_hstore: no look-up of a type that is not used, on each first connection.
    # hide_parameters: no error, and so no journal, repeats the values of a statement.
    register()
    made = create_engine(
        address(url, settings).set(drivername=DRIVER), use_native_hstore=False, hide_parameters=True, **pool
    )

    def connect(_dialect: object, _record: object, args: list[Any], named: dict[str, Any]) -> BoundedConnection:
        raw = BoundedConnection.connect(*args, **named)
        raw.deadline = connect_deadline(CONNECT_SECONDS)
        prepare(raw)
        return raw

    event.listen(made, "do_connect", connect)
    return made


def address(url: URL, settings: Mapping[str, int], *, primary: bool = True) -> URL:
    """Return an address with everything that a session needs.

    Args:
        url: what was configured.
        settings: what each session has in force, milliseconds.
        primary: whether nothing but a server that takes writes will do.
    """
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    given = url.query.get("options", "")
    return url.update_query_dict({
        "connect_timeout": str(CONNECT_SECONDS),
        # Never a standby: it may not have heard of a kill.
        "target_session_attrs": "read-write" if primary else "any",
        "application_name": "haltline",
        "options": f"{given if isinstance(given, str) else ' '.join(given)} {options}".strip(),
    })  # fmt: skip


def pool(size: int, timeout: float) -> dict[str, Any]:
    """Return the arguments of a pool.

    Args:
        size: how many connections it has at most.
        timeout: how long one transaction may take, seconds; half of it is waited for a connection.
    """
    return {
        "poolclass": QueuePool,
        "pool_size": size,
        "max_overflow": 0,
        "pool_timeout": timeout / 2,
        # The place of a connection that was thrown away is lent next, and has a new one made: whoever tries again after
        # a stale connection gets that, and not another that is as old.
        "pool_use_lifo": True,
    }


def for_flips(raw: BoundedConnection) -> None:
    """Have a new connection write, each statement seeing what was committed before it.

    Said outright, because a role or a database may have another default. READ COMMITTED: every statement after the lock
    sees what was committed before the lock was granted.
    """
    raw.isolation_level = IsolationLevel.READ_COMMITTED
    raw.read_only = False


def for_reads(raw: BoundedConnection) -> None:
    """Have a new connection read, each transaction seeing one state."""
    raw.isolation_level = IsolationLevel.REPEATABLE_READ
    raw.read_only = True
