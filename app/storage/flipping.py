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
from app.storage.appending import append
from app.storage.database import Done
from app.storage.rows import Stand, read_flag, read_stand_and_flip
from app.storage.tables import holds, targets
from haltline.flips import Kill
from haltline.replica import hold_of, mark_after
from haltline.scopes import Scope

_HOLD: Final = insert(holds)
_RELEASE: Final = delete(holds).where(holds.c.seq.in_(bindparam("released", expanding=True)))
_FIRST: Final = insert(targets)
_AGAIN: Final = (
    update(targets)
    .where(targets.c.target == bindparam("name"))
    .values(
        last_kill=bindparam("new_kill"),
        last_kill_at=bindparam("new_at"),
        barrier=bindparam("new_barrier"),
        version=bindparam("new_version"),
    )
)
_FLIPPED: Final = update(targets).where(targets.c.target == bindparam("name")).values(version=bindparam("new_version"))


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
    return {**content, "in_flight": "finish", "queued": "discard"}


def _replay(connection: Connection, order: KillOrder | ReviveOrder, row: LogRow, ttl: Ttl) -> FlipResult:
    """Answer a flip_id that is already in the log: the same flip again, or somebody else's."""
    members = json.loads(row.body)
    if any(members.get(name) != value for name, value in _content(order).items()):
        return FlipIdTaken(row.position.seq)
    return Committed(row, members, read_flag(connection, order.target), ttl, replayed=True)


def kill(connection: Connection, order: KillOrder, *, max_active_holds: int) -> Done[FlipResult]:
    """Write a kill; see :meth:`app.service.store.Store.kill`."""
    stand, seen = read_stand_and_flip(connection, order.flip_id)
    if seen is not None:
        return Done(_replay(connection, order, seen, stand.head.ttl), write=False)
    if order.target.scope is Scope.RUN and stand.active_holds >= max_active_holds:
        return Done(StoreFull(max_active_holds), write=False)
    before = read_flag(connection, order.target)
    appended = append(connection, stand, _content(order), at=order.at, more_holds=1)
    after = _held(connection, before, cast(Kill, appended.entry))
    return Done(Committed(appended.row, appended.members, after, stand.head.ttl, replayed=False), write=True)


def _held(connection: Connection, before: Flag, entry: Kill) -> Flag:
    hold, mark, version = hold_of(entry), mark_after(entry, before.mark), entry.position.seq
    name = str(entry.target)
    # The target comes first: the hold refers to it.
    if before.mark is None:
        first = {"target": name, "last_kill": mark.last_kill, "last_kill_at": entry.at, "barrier": mark.barrier}
        connection.execute(_FIRST, {**first, "version": version})
    else:
        changed = {"new_kill": mark.last_kill, "new_at": entry.at, "new_barrier": mark.barrier}
        connection.execute(_AGAIN, {"name": name, "new_version": version, **changed})
    connection.execute(
        _HOLD,
        {
            "seq": hold.seq,
            "target": name,
            "actor": hold.actor,
            "at": hold.at,
            "reason": hold.reason,
            "in_flight": hold.in_flight,
            "queued": hold.queued,
            "flip_id": hold.flip_id,
        },
    )
    return Flag(before.target, (*before.holds, hold), mark, version)


def revive(connection: Connection, order: ReviveOrder) -> Done[FlipResult]:
    """Write a revive; see :meth:`app.service.store.Store.revive`.

    Raises:
        ValueError: the holds are not ascending, or there are none.
    """
    if not order.holds or sorted(set(order.holds)) != list(order.holds):
        raise ValueError(f"a revive names at least one hold, ascending, not {order.holds!r:.60}")
    stand, seen = read_stand_and_flip(connection, order.flip_id)
    if seen is not None:
        return Done(_replay(connection, order, seen, stand.head.ttl), write=False)
    before = read_flag(connection, order.target)
    if before.version not in order.seen_versions:
        return Done(StaleView(before), write=False)
    active = {hold.seq for hold in before.holds}
    missing = tuple(seq for seq in order.holds if seq not in active)
    if missing:
        return Done(NoSuchHold(missing, before), write=False)
    return Done(_released(connection, stand, order, before), write=True)


def _released(connection: Connection, stand: Stand, order: ReviveOrder, before: Flag) -> Committed:
    appended = append(connection, stand, _content(order), at=order.at, more_holds=-len(order.holds))
    version = appended.entry.position.seq
    connection.execute(_RELEASE, {"released": list(order.holds)})
    connection.execute(_FLIPPED, {"name": str(order.target), "new_version": version})
    left = tuple(hold for hold in before.holds if hold.seq not in order.holds)
    after = Flag(before.target, left, before.mark, version)
    return Committed(appended.row, appended.members, after, stand.head.ttl, replayed=False)
