"""Choose the store by the address of its database."""

from __future__ import annotations

from typing import Final

from app.domain.lanes import Lane
from app.service.store import Store
from app.storage.address import parse_address
from app.storage.sql_store import SqlStore

MAX_ACTIVE_HOLDS: Final = 100_000
"""Active holds beyond which kills of runs are refused: every worker's replica carries all of them."""


def open_store(
    url: str, *, max_active_holds: int = MAX_ACTIVE_HOLDS, timeout: float | None = None, lane: Lane = Lane.ALL
) -> Store:
    """Return the store at ``url``, ready for :meth:`app.service.store.Store.open_log`.

    An SQLite file is brought to the schema of this code; a PostgreSQL database must have it already
    (``haltline-server migrate``).

    Args:
        url: ``sqlite:///path``, ``sqlite://`` (in memory, for tests), or ``postgresql://...``.
        max_active_holds: active holds beyond which kills of runs, and of nothing broader, are refused.
        timeout: how long one call may take, seconds; None for the dialect's own (SQLite 5, PostgreSQL 2).
        lane: the lane that this process serves: it decides how many connections to PostgreSQL there may be, and what
            for.

    Raises:
        StoreRefused: the address is wrong, or the database cannot be used as it is; the message says what to do.
        StoreUnavailable: the database could not be reached.
    """
    backend, parsed = parse_address(url)
    options = {} if timeout is None else {"timeout": timeout}
    if backend == "sqlite":
        from app.storage.sqlite import SqliteDatabase

        return SqlStore(SqliteDatabase(parsed, **options), max_active_holds=max_active_holds)
    from app.storage.postgres import PostgresDatabase
    from app.storage.postgres_pools import LANES

    return SqlStore(PostgresDatabase(parsed, pools=LANES[lane], **options), max_active_holds=max_active_holds)
