"""The flip transaction: what a kill and a revive read, decide and write, under the exclusive log lock.

Each statement is sent by itself, after the lock was granted: on PostgreSQL a statement that takes the lock and reads in
one go reads what was there before it waited.
"""

from __future__ import annotations

import json
from typing import Any, Final, cast

from sqlalchemy import Connection, bindparam, delete, insert, update

from app.service.store import (
    Committed,
    Flag,
    FlipIdTaken,
    FlipResult,
    KillOrder,
    LogRow,
    NoSuchHold,
    ReviveOrder,
    StaleView,
    StoreFull,
    Ttl,
)
from app.storage.appending import Appended, next_entry, with_entry, write_entry
from app.storage.database import Done
from app.storage.rows import Stand, read_before
from app.storage.tables import holds, targets
from haltline.flips import Kill
from haltline.replica import hold_of, mark_after
from haltline.scopes import Scope

_HOLD: Final = insert(holds).values({column.name: bindparam(f"hold_{column.name}") for column in holds.c})
_RELEASE: Final = delete(holds).where(holds.c.seq.in_(bindparam("released", expanding=True)))
_FIRST: Final = insert(targets).values({column.name: bindparam(f"mark_{column.name}") for column in targets.c})
_AGAIN: Final = (
    update(targets)
    .where(targets.c.target == bindparam("mark_target"))
    .values({column.name: bindparam(f"mark_{column.name}") for column in targets.c if column.name != "target"})
)
_FLIPPED: Final = (
    update(targets).where(targets.c.target == bindparam("mark_target")).values(version=bindparam("mark_version"))
)
# The target comes before the hold, which refers to it.
KILL_FIRST: Final = with_entry(_FIRST, _HOLD)
KILL_AGAIN: Final = with_entry(_AGAIN, _HOLD)
REVIVE: Final = with_entry(_RELEASE, _FLIPPED)


def _content(order: KillOrder | ReviveOrder) -> dict[str, Any]:
    content: dict[str, Any] = {
        "kind": "kill",
        "actor": order.actor,
        "flip_id": order.flip_id,
        "target": str(order.target),
        "reason": order.reason,
    }
    if isinstance(order, ReviveOrder):
        return {**content, "kind": "revive", "holds": list(order.holds)}
    return {**content, "in_flight": order.in_flight, "queued": order.queued}


def _replay(order: KillOrder | ReviveOrder, row: LogRow, flag: Flag, ttl: Ttl) -> FlipResult:
    """Answer a flip_id that is already in the log: the same flip again, or somebody else's."""
    members = json.loads(row.body)
    if any(members.get(name) != value for name, value in _content(order).items()):
        return FlipIdTaken(row.position.seq)
    return Committed(row, members, flag, ttl, replayed=True)


def kill(connection: Connection, order: KillOrder, *, max_active_holds: int) -> Done[FlipResult]:
    """Write a kill; see :meth:`app.service.store.Store.kill`."""
    stand, seen, before = read_before(connection, order.flip_id, order.target)
    if seen is not None:
        return Done(_replay(order, seen, before, stand.head.ttl), write=False)
    if order.target.scope is Scope.RUN and stand.active_holds >= max_active_holds:
        return Done(StoreFull(max_active_holds), write=False)
    appended = next_entry(stand, _content(order), at=order.at)
    after = _held(connection, stand, appended, before)
    return Done(Committed(appended.row, appended.members, after, stand.head.ttl, replayed=False), write=True)


def _held(connection: Connection, stand: Stand, appended: Appended, before: Flag) -> Flag:
    entry = cast(Kill, appended.entry)
    hold, mark, version = hold_of(entry), mark_after(entry, before.mark), entry.position.seq
    values = {
        "mark_target": str(entry.target),
        "mark_last_kill": mark.last_kill,
        "mark_last_kill_at": entry.at,
        "mark_barrier": mark.barrier,
        "mark_version": version,
        "hold_seq": hold.seq,
        "hold_target": str(entry.target),
        "hold_actor": hold.actor,
        "hold_at": hold.at,
        "hold_reason": hold.reason,
        "hold_in_flight": hold.in_flight,
        "hold_queued": hold.queued,
        "hold_flip_id": hold.flip_id,
    }
    together = KILL_FIRST if before.mark is None else KILL_AGAIN
    write_entry(connection, together, stand, appended, values, more_holds=1)
    return Flag(before.target, (*before.holds, hold), mark, version)


def revive(connection: Connection, order: ReviveOrder) -> Done[FlipResult]:
    """Write a revive; see :meth:`app.service.store.Store.revive`.

    Raises:
        ValueError: the holds are not ascending, or there are none.
    """
    if not order.holds or sorted(set(order.holds)) != list(order.holds):
        raise ValueError(f"a revive names at least one hold, ascending, not {order.holds!r:.60}")
    stand, seen, before = read_before(connection, order.flip_id, order.target)
    if seen is not None:
        return Done(_replay(order, seen, before, stand.head.ttl), write=False)
    if before.version not in order.seen_versions:
        return Done(StaleView(before), write=False)
    active = {hold.seq for hold in before.holds}
    missing = tuple(seq for seq in order.holds if seq not in active)
    if missing:
        return Done(NoSuchHold(missing, before), write=False)
    return Done(_released(connection, stand, order, before), write=True)


def _released(connection: Connection, stand: Stand, order: ReviveOrder, before: Flag) -> Committed:
    appended = next_entry(stand, _content(order), at=order.at)
    version = appended.entry.position.seq
    values = {"released": list(order.holds), "mark_target": str(order.target), "mark_version": version}
    write_entry(connection, REVIVE, stand, appended, values, more_holds=-len(order.holds))
    left = tuple(hold for hold in before.holds if hold.seq not in order.holds)
    after = Flag(before.target, left, before.mark, version)
    return Committed(appended.row, appended.members, after, stand.head.ttl, replayed=False)
