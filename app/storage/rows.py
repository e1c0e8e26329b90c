"""Rows of the tables as values of the port, and the statements that read them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, bindparam, select

from app.service.store import Flag, Head, LogRow, StoredToken, Ttl
from app.storage.errors import StoreRefused
from app.storage.tables import holds, log, log_head, targets, tokens
from haltline.canonical import MAX_INTEGER, canonical
from haltline.flips import Position
from haltline.replica import Mark
from haltline.scopes import Target, parse_target
from haltline.verdict import Hold

# Statements are built once: SQLAlchemy then finds their SQL by identity, which is a third of the cost of a flip.
_HEAD: Final = select(log_head)
_ENTRY: Final[Select[int, str, str]] = select(log.c.seq, log.c.hash, log.c.body)
BEFORE: Final = (
    select(
        log_head,
        log.c.seq.label("seen_seq"),
        log.c.hash.label("seen_hash"),
        log.c.body.label("seen_body"),
        *(column.label(f"mark_{column.name}") for column in targets.c),
        *(column.label(f"hold_{column.name}") for column in holds.c),
    )
    .join_from(log_head, log, log.c.flip_id == bindparam("flip_id"), isouter=True)
    .join(targets, targets.c.target == bindparam("target"), isouter=True)
    .join(holds, holds.c.target == targets.c.target, isouter=True)
    .order_by(holds.c.seq)
)
_BY_SEQ: Final = _ENTRY.where(log.c.seq == bindparam("seq"))
_BETWEEN: Final = (
    _ENTRY.where(log.c.seq > bindparam("after"), log.c.seq <= bindparam("up_to"))
    .order_by(log.c.seq)
    .limit(bindparam("limit"))
)
# The limit stands inside, so that a long way to go is not read, and sorted, in whole for each page of it.
_NEXT: Final = (
    _ENTRY.where(log.c.seq > bindparam("after")).order_by(log.c.seq).limit(bindparam("limit")).subquery("coming")
)
HEAD_AND_NEXT: Final = (
    select(log_head, *(column.label(f"next_{column.name}") for column in _NEXT.c))
    .join_from(log_head, _NEXT, _NEXT.c.seq <= log_head.c.seq, isouter=True)
    .order_by(_NEXT.c.seq)
)
_TARGET: Final = select(targets).where(targets.c.target == bindparam("target"))
_HOLDS: Final = select(holds).where(holds.c.target == bindparam("target")).order_by(holds.c.seq)

_NO_LOG: Final = "the database has no log yet: the service makes it when it starts"


@dataclass(frozen=True, slots=True)
class Stand:
    """The head row: what the port calls the head, and what the next entry needs besides.

    Attributes:
        head: where the log stands.
        at: the ``at`` of the newest entry.
        active_holds: how many holds are active on all targets together.
    """

    head: Head
    at: str
    active_holds: int


def bounded(seq: int) -> int:
    """Return ``seq``, or the largest position there can be: what is beyond fits no column, and no entry is there."""
    return min(seq, MAX_INTEGER)


def find_stand(connection: Connection) -> Stand | None:
    """Return the head row, or None if there is no log yet."""
    row = connection.execute(_HEAD).one_or_none()
    return None if row is None else _stand(row)


def _stand(row: Row[Any]) -> Stand:
    head = Head(
        row.namespace,
        row.epoch,
        Position(row.seq, row.hash),
        Ttl(row.ttl_ms, row.ttl_changed_at, row.ttl_before_ms),
    )
    return Stand(head, row.at, row.active_holds)


def read_stand(connection: Connection) -> Stand:
    """Return the head row.

    Raises:
        StoreRefused: there is no log yet.
    """
    stand = find_stand(connection)
    if stand is None:
        raise StoreRefused(_NO_LOG)
    return stand


def log_row(row: Row[int, str, str]) -> LogRow:
    """Return a row of ``seq, hash, body``."""
    return LogRow(Position(row.seq, row.hash), row.body)


def entry_statement() -> Select[int, str, str]:
    """Return a statement that reads entries, to be narrowed; its rows are for :func:`log_row`."""
    return _ENTRY


def read_before(connection: Connection, flip_id: str, target: Target) -> tuple[Stand, LogRow | None, Flag]:
    """Return all that a flip has to know, in one statement: one round trip under the log lock instead of four.

    Returns:
        the head row; the entry of the flip_id, if there is one; and what is known of the target.

    Raises:
        StoreRefused: there is no log yet.
    """
    rows = connection.execute(BEFORE, {"flip_id": flip_id, "target": str(target)}).all()
    if not rows:
        raise StoreRefused(_NO_LOG)
    first = rows[0]
    seen = None if first.seen_seq is None else LogRow(Position(first.seen_seq, first.seen_hash), first.seen_body)
    if first.mark_target is None:
        return _stand(first), seen, Flag(target, (), None, 0)
    active = tuple(_held(row, target) for row in rows if row.hold_seq is not None)
    mark = Mark(first.mark_last_kill, first.mark_barrier)
    return _stand(first), seen, Flag(target, active, mark, first.mark_version)


def _held(row: Row[Any], target: Target) -> Hold:
    return Hold(
        row.hold_seq,
        target,
        row.hold_actor,
        row.hold_at,
        row.hold_reason,
        row.hold_in_flight,
        row.hold_queued,
        row.hold_flip_id,
    )


def read_next(connection: Connection, after: int, limit: int) -> tuple[Head, list[LogRow]]:
    """Return the head and the entries after ``after``, at most ``limit``, ascending: in one statement.

    Raises:
        StoreRefused: there is no log yet.
    """
    rows = connection.execute(HEAD_AND_NEXT, {"after": bounded(after), "limit": limit}).all()
    if not rows:
        raise StoreRefused(_NO_LOG)
    entries = [LogRow(Position(row.next_seq, row.next_hash), row.next_body) for row in rows if row.next_seq is not None]
    return _stand(rows[0]).head, entries


def entry_at(connection: Connection, seq: int) -> LogRow | None:
    """Return the entry at a position."""
    row = connection.execute(_BY_SEQ, {"seq": bounded(seq)}).one_or_none()
    return None if row is None else log_row(row)


def entries_between(connection: Connection, after: int, up_to: int, limit: int) -> list[LogRow]:
    """Return the entries with ``after`` < seq <= ``up_to``, ascending, at most ``limit``."""
    bounds = {"after": bounded(after), "up_to": bounded(up_to), "limit": limit}
    return [log_row(row) for row in connection.execute(_BETWEEN, bounds)]


def hold_row(row: Row[Any], target: Target) -> Hold:
    """Return a row of ``holds`` on a target that is already parsed."""
    return Hold(row.seq, target, row.actor, row.at, row.reason, row.in_flight, row.queued, row.flip_id)


def mark_row(row: Row[Any]) -> Mark:
    """Return what a row of ``targets`` remembers."""
    return Mark(row.last_kill, row.barrier)


def read_flag(connection: Connection, target: Target) -> Flag:
    """Return what is known of one target."""
    named = {"target": str(target)}
    row = connection.execute(_TARGET, named).one_or_none()
    if row is None:
        return Flag(target, (), None, 0)
    active = tuple(hold_row(hold, target) for hold in connection.execute(_HOLDS, named))
    return Flag(target, active, mark_row(row), row.version)


def read_flags(connection: Connection, after: str, limit: int) -> Sequence[Flag]:
    """Return the killed targets whose text is greater than ``after``, in that order."""
    page = select(holds.c.target).distinct().where(holds.c.target > after).order_by(holds.c.target).limit(limit)
    names = connection.execute(page).scalars().all()
    if not names:
        return ()
    known = {row.target: row for row in connection.execute(select(targets).where(targets.c.target.in_(names)))}
    by_target = holds_by_target(
        connection.execute(select(holds).where(holds.c.target.in_(names)).order_by(holds.c.seq))
    )
    return [
        Flag(by_target[name][0].target, by_target[name], mark_row(known[name]), known[name].version) for name in names
    ]


def holds_by_target(rows: Iterable[Row[Any]]) -> dict[str, tuple[Hold, ...]]:
    """Return rows of ``holds``, which come in the order of their seq, by the text of their target."""
    gathered: dict[str, list[Hold]] = {}
    for row in rows:
        there = gathered.setdefault(row.target, [])
        there.append(hold_row(row, there[0].target if there else parse_target(row.target)))
    return {name: tuple(active) for name, active in gathered.items()}


def token_row(row: Row[Any]) -> StoredToken:
    """Return a row of ``tokens``."""
    return StoredToken(
        row.token_id,
        row.secret_sha256,
        row.subject,
        row.role,
        None if row.tenants is None else tuple(json.loads(row.tenants)),
        row.created_at,
        row.expires_at,
        row.revoked_at,
    )


def token_values(token: StoredToken) -> dict[str, Any]:
    """Return a token as a row of ``tokens``."""
    return {
        "token_id": token.token_id,
        "secret_sha256": token.secret_sha256,
        "subject": token.subject,
        "role": token.role,
        "tenants": None if token.tenants is None else canonical(list(token.tenants)).decode(),
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "revoked_at": token.revoked_at,
    }


def find_token(connection: Connection, token_id: str) -> StoredToken | None:
    """Return one token, revoked or not."""
    row = connection.execute(select(tokens).where(tokens.c.token_id == token_id)).one_or_none()
    return None if row is None else token_row(row)


def find_live_tokens(connection: Connection, roles: Sequence[str], at: float, limit: int) -> list[StoredToken]:
    """Return the tokens of some roles that are neither revoked nor over at a moment, the newest first."""
    live = (
        select(tokens)
        .where(tokens.c.role.in_(roles), tokens.c.revoked_at.is_(None), tokens.c.expires_at > at)
        .order_by(tokens.c.created_at.desc(), tokens.c.token_id)
        .limit(limit)
    )
    return [token_row(row) for row in connection.execute(live)]
