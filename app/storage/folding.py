"""The fold as the tables hold it: where a node's replica begins, once the log itself has said the same.

Only the log is chained. The tables beside it can be edited without a trace, and a hold that is missing there is a
killed run that goes: so nothing of them is believed that the log does not fold to.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, bindparam, select

from app.service.store import Head, Loaded, LogDiverged
from app.storage.rows import entries_between, holds_by_target, mark_row, read_stand
from app.storage.tables import holds, log, targets
from haltline.errors import HaltlineError
from haltline.flips import Kill, Position, parse_entry
from haltline.replica import Replica, hold_of
from haltline.verdict import Hold

_PAGE: Final = 20_000
"""Flips read at a time: some 10 MB, and to a server 150 ms away a seventh of a second for each."""

_FLIPS: Final[Select[int, str, str]] = (
    select(log.c.seq, log.c.hash, log.c.body)
    .where(log.c.seq > bindparam("after"), log.c.kind != "note")
    .order_by(log.c.seq)
    .limit(_PAGE)
)


@dataclass(slots=True)
class _Folded:
    """What the flips of a log come to.

    Attributes:
        killed: per active hold, by its seq, the target and the stored kill.
        targets: per target that was ever killed its last_kill, its barrier and its version.
    """

    killed: dict[int, tuple[str, Row[int, str, str]]] = field(default_factory=dict)
    targets: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def take(self, row: Row[int, str, str]) -> None:
        """Fold one flip in, without looking at its hash: for a log of 100,000 flips that would take too long."""
        seq: int = row.seq
        members = json.loads(row.body)
        kind, target = members["kind"], members["target"]
        if kind == "kill":
            barrier = seq if members["queued"] == "discard" else self.targets.get(target, (0, 0, 0))[1]
            self.targets[target] = (seq, barrier, seq)
            self.killed[seq] = (target, row)
        elif kind == "revive":
            self.targets[target] = (*self.targets[target][:2], seq)
            for hold in members["holds"]:
                if self.killed[hold][0] != target:
                    raise LogDiverged(f"entry {seq} releases hold {hold}, which is not on {target}")
                del self.killed[hold]
        else:
            raise LogDiverged(f"entry {seq} is no flip that this version knows")


def _flips(connection: Connection) -> Iterator[Row[int, str, str]]:
    after = 0
    while True:
        rows = connection.execute(_FLIPS, {"after": after}).all()
        yield from rows
        if len(rows) < _PAGE:
            return
        after = rows[-1].seq


def _fold(connection: Connection) -> _Folded:
    folded = _Folded()
    for row in _flips(connection):
        try:
            folded.take(row)
        except (ValueError, LookupError, TypeError) as error:
            raise LogDiverged(f"entry {row.seq} of the log cannot be understood: it was edited") from error
    return folded


def _hold(row: Row[int, str, str], head: Head) -> Hold:
    """Return the hold of an active kill, its own hash verified."""
    try:
        entry = parse_entry(json.loads(row.body), namespace=head.namespace, epoch=head.epoch)
    except HaltlineError as error:
        raise LogDiverged(f"entry {row.seq} of the log was edited: {error}") from error
    if not isinstance(entry, Kill) or entry.position != Position(row.seq, row.hash):
        raise LogDiverged(f"entry {row.seq} of the log is not the kill that stands there: it was edited")
    return hold_of(entry)


def _check_holds(rows: Sequence[Row[Any]], folded: _Folded, head: Head) -> dict[str, tuple[Hold, ...]]:
    """Return the table's holds by target, which are those of the log."""
    odd = {(row.seq, row.target) for row in rows} ^ {(seq, target) for seq, (target, _) in folded.killed.items()}
    if odd:
        seq, target = min(odd)
        raise LogDiverged(f"hold {seq} on {target} is active in the log or in the table holds, not in both: edited")
    active = holds_by_target(rows)
    for hold in (hold for each in active.values() for hold in each):
        if hold != _hold(folded.killed[hold.seq][1], head):
            raise LogDiverged(f"hold {hold.seq} in the table holds is not the one that the log has: it was edited")
    return active


def _check_targets(remembered: Mapping[str, Row[Any]], folded: _Folded) -> None:
    odd = remembered.keys() ^ folded.targets.keys()
    if odd:
        raise LogDiverged(f"{min(odd)} is in the log or in the table targets, not in both: it was edited")
    for target, expected in folded.targets.items():
        row = remembered[target]
        found = (row.last_kill, row.barrier, row.version)
        if found != expected:
            raise LogDiverged(
                f"{target} has last_kill, barrier and version {found} in the table targets, "
                f"but {expected} in the log: it was edited"
            )


def load_replica(connection: Connection, remember_since: str, newest: int) -> Loaded:
    """Return the head, the fold and the newest entries; see :meth:`app.service.store.Store.load`.

    Raises:
        LogDiverged: head and tables do not hold what the log folds to: they were edited. The message says which.
    """
    stand = read_stand(connection)
    head = stand.head
    rows = connection.execute(select(holds).order_by(holds.c.seq)).all()
    if len(rows) != stand.active_holds:
        raise LogDiverged(
            f"the head counts {stand.active_holds} active holds, but there are {len(rows)}: the database was edited"
        )
    folded = _fold(connection)
    active = _check_holds(rows, folded, head)
    known: dict[str, Row[Any]] = {row.target: row for row in connection.execute(select(targets))}
    _check_targets(known, folded)
    kept = {name: row for name, row in known.items() if name in active or row.last_kill_at >= remember_since}
    replica = Replica(
        head.namespace,
        head.epoch,
        head.position,
        MappingProxyType(active),
        MappingProxyType({name: mark_row(row) for name, row in kept.items()}),
        floor_seq=max((row.last_kill for name, row in known.items() if name not in kept), default=0),
    )
    first = max(head.position.seq - newest, 0)
    return Loaded(head, replica, entries_between(connection, first, head.position.seq, newest) if newest else ())
