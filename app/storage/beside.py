"""Beside the log: the stamp secrets, and the outcomes of clean-ups. No flip reads or writes a row of these tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Insert,
    Row,
    Table,
    and_,
    bindparam,
    delete,
    or_,
    select,
    tuple_,
)
from sqlalchemy.dialects import postgresql, sqlite

from app.service.store import OutcomeQuery, StampSecret, StoredOutcome
from app.storage.database import Done
from app.storage.rows import bounded
from app.storage.tables import outcomes, stamp_secrets, tokens
from haltline.canonical import canonical

T = TypeVar("T")

_SECRETS: Final = select(stamp_secrets).order_by(stamp_secrets.c.number.desc())
_OLD: Final = (
    select(outcomes.c.run, outcomes.c.flip)
    .where(outcomes.c.kept_at < bindparam("before"))
    .order_by(outcomes.c.kept_at)
    .limit(bindparam("limit"))
)
_FORGET: Final = delete(outcomes).where(tuple_(outcomes.c.run, outcomes.c.flip).in_(_OLD))


def _insert_new(table: Table) -> dict[str, Insert]:
    """Return, for each dialect, what inserts the rows whose key is not there yet."""
    return {
        "sqlite": sqlite.insert(table).on_conflict_do_nothing(),
        "postgresql": postgresql.insert(table).on_conflict_do_nothing(),
    }


_ADD_SECRET: Final = _insert_new(stamp_secrets)
_KEEP: Final = _insert_new(outcomes)


def read_secrets(connection: Connection) -> list[StampSecret]:
    """Return the stamp secrets, the newest first."""
    return [StampSecret(row.id, bytes.fromhex(row.secret), row.made_at) for row in connection.execute(_SECRETS)]


def insert_secret(connection: Connection, secret: StampSecret, *, number: int) -> None:
    """Write a stamp secret as the one of its number, unless another is there."""
    values = {"number": number, "id": secret.id, "secret": secret.secret.hex(), "made_at": secret.made_at}
    connection.execute(_ADD_SECRET[connection.dialect.name], values)


def add_secret(
    connection: Connection, secret: StampSecret, *, after: str | None, keep: int
) -> Done[Sequence[StampSecret]]:
    """Write a stamp secret after the one that the caller knows; see :meth:`app.service.store.Store.add_stamp_secret`.

    Two nodes may be here at once: both take the next number, and the one that comes second finds it taken.
    """
    newest = connection.execute(_SECRETS.limit(1)).one_or_none()
    if (None if newest is None else newest.id) != after:
        return Done(read_secrets(connection), write=False)
    number = 1 if newest is None else newest.number + 1
    insert_secret(connection, secret, number=number)
    connection.execute(delete(stamp_secrets).where(stamp_secrets.c.number <= number - keep))
    return Done(read_secrets(connection), write=True)


def keep_outcomes(connection: Connection, told: Sequence[StoredOutcome]) -> Done[int]:
    """Write outcomes; see :meth:`app.service.store.Store.keep_outcomes`."""
    # In one order for everybody: two batches that share rows must not wait for each other.
    rows = [_values(each) for each in sorted(told, key=lambda each: (each.run, each.flip))]
    statement = _KEEP[connection.dialect.name].values(rows).returning(outcomes.c.flip)
    return Done(len(connection.execute(statement).all()), write=True)


def forget_outcomes(connection: Connection, *, before: float, limit: int) -> Done[int]:
    """Remove old outcomes; see :meth:`app.service.store.Store.forget_outcomes`."""
    gone = connection.execute(_FORGET, {"before": before, "limit": limit}).rowcount
    return Done(gone, write=gone > 0)


def read_outcomes(connection: Connection, query: OutcomeQuery) -> list[StoredOutcome]:
    """Return the outcomes that a query names."""
    statement = select(outcomes).where(*_filters(query)).order_by(outcomes.c.flip, outcomes.c.run).limit(query.limit)
    if query.view is not None:
        # By the bindings that tokens have: there are few, and a page of others' outcomes is never read to be dropped.
        bindings = connection.execute(select(tokens.c.tenants).where(tokens.c.tenants.is_not(None)).distinct())
        seen = [text for text in bindings.scalars() if set(json.loads(text)) <= set(query.view)]
        statement = statement.where(outcomes.c.tenants.in_(seen))
    return [_outcome(row) for row in connection.execute(statement)]


def _filters(query: OutcomeQuery) -> list[ColumnElement[bool]]:
    filters: list[ColumnElement[bool]] = []
    if query.flip is not None:
        filters.append(outcomes.c.flip == bounded(query.flip))
    if query.run is not None:
        filters.append(outcomes.c.run == query.run)
    if query.after is not None:
        flip, run = bounded(query.after[0]), query.after[1]
        filters.append(or_(outcomes.c.flip > flip, and_(outcomes.c.flip == flip, outcomes.c.run > run)))
    return filters


def _values(outcome: StoredOutcome) -> dict[str, Any]:
    bound = None if outcome.tenants is None else canonical(list(outcome.tenants)).decode()
    members = {name: getattr(outcome, name) for name in StoredOutcome.__slots__}
    return {**members, "tenants": bound}


def _outcome(row: Row[Any]) -> StoredOutcome:
    members = row._asdict()
    return StoredOutcome(**{**members, "tenants": None if row.tenants is None else tuple(json.loads(row.tenants))})
