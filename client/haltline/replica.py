"""The fold: what a log says about every target, as one immutable value that knows its position.

Service and client share it, so that the stopping rule exists once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, TypeVar

from haltline.errors import InvalidDocument, InvalidEntry, InvalidTarget, PositionGap
from haltline.flips import GENESIS_HASH, Entry, Kill, Position, Revive, Stub, is_epoch, is_hash, is_moment
from haltline.scopes import Path, Scope, Target, check_id, check_namespace, parse_target
from haltline.verdict import GO, Hold, Reason, Stop, Verdict

_T = TypeVar("_T")

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Mark:
    """What a target remembers of kills, also after they were released.

    Attributes:
        last_kill: the ``seq`` of the newest kill of any policy; a run armed before it is halted.
        barrier: the ``seq`` of the newest kill that discards planned work; 0 where there was none.
    """

    last_kill: int
    barrier: int = 0


@dataclass(frozen=True, slots=True)
class Replica:
    """The fold of a log up to a position.

    Compare replicas by ``position``; identity (``is``) tells whether anything was folded in between.

    Attributes:
        namespace: the log's namespace; empty in the replica of nothing.
        epoch: the log's epoch; empty in the replica of nothing.
        position: how far the log was folded.
        holds: per killed target, as text, its active holds in the order of their ``seq``.
        marks: per target that was ever killed, as text, what it remembers.
        floor_seq: marks of kills up to here may be missing, so that runs armed before it are halted.
        tenants: the tenants whose kills it holds; None for all. Of others it cannot know, so it never says go.
    """

    namespace: str = ""
    epoch: str = ""
    position: Position = Position()
    holds: Mapping[str, tuple[Hold, ...]] = field(default_factory=lambda: _NOTHING, repr=False)
    marks: Mapping[str, Mark] = field(default_factory=lambda: _NOTHING, repr=False)
    floor_seq: int = 0
    tenants: frozenset[str] | None = None

    def extend(self, entries: Iterable[Entry | Stub]) -> Replica:
        """Return the replica with ``entries`` folded in; entries it has already seen are passed over.

        The cost is one copy of each index that changes, whatever the number of entries.

        Args:
            entries: entries in the order of their ``seq``, of this log; the caller has checked namespace and epoch.

        Raises:
            PositionGap: an entry is missing, or does not follow the one before. Nothing is taken.
        """
        position = self.position
        holds: dict[str, tuple[Hold, ...]] | None = None
        marks: dict[str, Mark] | None = None
        for entry in entries:
            if entry.position.seq <= position.seq:
                if entry.position.seq == position.seq and entry.position.hash != position.hash:
                    raise PositionGap(f"entry {position.seq} is not the entry {position.seq} seen before")
                continue
            if entry.position.seq != position.seq + 1:
                raise PositionGap(f"entry {position.seq + 1} should come next, but it is {entry.position.seq}")
            if not isinstance(entry, Stub) and entry.prev_hash != position.hash:
                raise PositionGap(f"entry {entry.position.seq} does not follow the entry {position.seq} seen before")
            position = entry.position
            if isinstance(entry, Kill):
                holds = _copied(self.holds) if holds is None else holds
                marks = _copied(self.marks) if marks is None else marks
                key = str(entry.target)
                holds[key] = (*holds.get(key, ()), hold_of(entry))
                marks[key] = mark_after(entry, marks.get(key))
            elif isinstance(entry, Revive):
                holds = _copied(self.holds) if holds is None else holds
                key = str(entry.target)
                left = tuple(hold for hold in holds.get(key, ()) if hold.seq not in entry.holds)
                if left:
                    holds[key] = left
                else:
                    holds.pop(key, None)
        if position == self.position:
            return self
        return Replica(
            self.namespace,
            self.epoch,
            position,
            self.holds if holds is None else MappingProxyType(holds),
            self.marks if marks is None else MappingProxyType(marks),
            self.floor_seq,
            self.tenants,
        )

    def judge(self, path: Path, armed_seq: int, capability: str | None = None) -> Verdict:
        """Return the verdict for one effect of one run; the lease is judged elsewhere.

        Args:
            path: the targets above the effect.
            armed_seq: the log position at which the run was armed; a kill after it halts the run, revived or not.
            capability: the capability that the effect uses, a valid id; None to judge the run alone.

        Returns:
            ``GO``; or a ``Stop`` with reason KILLED (the run), FROZEN (the capability only), UNSEEN (a tenant whose
            kills this replica does not hold) or BEHIND, naming every hold that blocks, the broadest first.
        """
        if self.position.seq < armed_seq:
            return Stop(
                Reason.BEHIND,
                detail=f"the run was armed at position {armed_seq}, this replica has reached {self.position.seq}",
            )
        holds: list[Hold] = []
        killed: list[Target] = []
        for target, key in zip(path.targets, path.keys, strict=True):
            active = self.holds.get(key, ())
            mark = self.marks.get(key)
            if active or (mark is not None and mark.last_kill > armed_seq):
                holds.extend(active)
                killed.append(target)
        below_floor = armed_seq < self.floor_seq
        frozen = () if capability is None else self.holds.get(f"capability:{capability}", ())
        if not killed and not below_floor:
            unseen = self.unseen(path)
            if unseen is not None:
                return unseen
            if not frozen:
                return GO
        if frozen and capability is not None:
            holds.extend(frozen)
            frozen_target = Target(Scope.CAPABILITY, capability)
            if not killed and not below_floor:
                return Stop(Reason.FROZEN, tuple(holds), (frozen_target,), told(holds))
            killed.append(frozen_target)
        if holds:
            detail = told(holds)
        elif killed:
            detail = f"{killed[0]} was killed and revived after the run was armed: a revive starts nothing, restart it"
        else:
            detail = f"armed at position {armed_seq}, before {self.floor_seq}, the oldest kill still remembered"
        return Stop(Reason.KILLED, tuple(holds), tuple(killed), detail)

    def unseen(self, path: Path) -> Stop | None:
        """Return the stop of a path with a tenant whose kills this replica was never told of."""
        if self.tenants is None:
            return None
        for target in path.targets:
            if target.scope is Scope.TENANT and target.id not in self.tenants:
                bound = ", ".join(sorted(self.tenants))
                return Stop(
                    Reason.UNSEEN,
                    detail=f"the token is bound to tenants {bound}: a kill of {target} would never be seen here",
                )
        return None

    def snapshot(self) -> dict[str, Any]:
        """Return the replica as the JSON object that :func:`from_snapshot` reads."""
        return {
            "seq": self.position.seq,
            "hash": self.position.hash,
            "floor_seq": self.floor_seq,
            "holds": [hold_members(hold) for key in sorted(self.holds) for hold in self.holds[key]],
            "marks": {key: [mark.last_kill, mark.barrier] for key, mark in self.marks.items()},
        }


def _copied(index: Mapping[str, _T]) -> dict[str, _T]:
    """Return a dict of an index. Behind a proxy, ``dict()`` asks for every key; its own copy() is ten times as fast."""
    return index.copy() if isinstance(index, MappingProxyType) else dict(index)


def told(holds: list[Hold]) -> str:
    """Return one sentence about the holds that block."""
    first = holds[0]
    more = f" (and {len(holds) - 1} more)" if len(holds) > 1 else ""
    return f"{first.target} killed by {first.actor} at {first.at}, log position {first.seq}: {first.reason}{more}"


def hold_of(kill: Kill) -> Hold:
    """Return the hold that a kill makes."""
    return Hold(
        kill.position.seq, kill.target, kill.actor, kill.at, kill.reason, kill.in_flight, kill.queued, kill.flip_id
    )


def mark_after(kill: Kill, before: Mark | None) -> Mark:
    """Return what a target remembers after ``kill``: the newest kill, and the newest that discards."""
    seq = kill.position.seq
    if kill.queued == "discard":
        return Mark(seq, seq)
    return Mark(seq, before.barrier if before is not None else 0)


def hold_members(hold: Hold) -> dict[str, Any]:
    """Return a hold as a JSON object."""
    return {
        "seq": hold.seq,
        "target": str(hold.target),
        "actor": hold.actor,
        "at": hold.at,
        "reason": hold.reason,
        "in_flight": hold.in_flight,
        "queued": hold.queued,
        "flip_id": hold.flip_id,
    }


def _parse_hold(members: object, limit: int, targets: Mapping[str, Target]) -> Hold:
    """Return a hold of a snapshot; ``targets`` are those that its marks name, read already."""
    if not isinstance(members, dict):
        raise InvalidEntry("snapshot: a hold is not an object")
    seq, at, reason = members.get("seq"), members.get("at"), members.get("reason")
    in_flight, queued = members.get("in_flight"), members.get("queued")
    if type(seq) is not int or not 1 <= seq <= limit:
        raise InvalidEntry(f"snapshot: a hold's seq {seq!r:.40} is not a position up to {limit}")
    if not isinstance(at, str) or not is_moment(at) or not isinstance(reason, str) or not reason:
        raise InvalidEntry(f"snapshot: hold {seq}: at or reason is missing or malformed")
    if in_flight not in ("abort", "finish") or queued not in ("discard", "drain"):
        raise InvalidEntry(f"snapshot: hold {seq}: in_flight or queued is missing or unknown")
    named = members.get("target")
    try:
        target = targets.get(named) if type(named) is str else None
        target = parse_target(named) if target is None else target
        actor = check_id(members.get("actor"), "actor")
        flip_id = check_id(members.get("flip_id"), "flip_id")
    except InvalidTarget as error:
        raise InvalidEntry(f"snapshot: hold {seq}: {error}") from None
    return Hold(seq, target, actor, at, reason, in_flight, queued, flip_id)


def _parse_mark(members: object, limit: int) -> Mark:
    if not isinstance(members, list) or len(members) != 2:
        raise InvalidEntry("snapshot: a mark is not a pair of positions")
    last_kill, barrier = members
    if type(last_kill) is not int or type(barrier) is not int:
        raise InvalidEntry("snapshot: a mark is not a pair of positions")
    if not 1 <= last_kill <= limit or not 0 <= barrier <= last_kill:
        raise InvalidEntry(f"snapshot: a mark is not a pair of positions up to {limit}")
    return Mark(last_kill, barrier)


def _seq_of(read: tuple[Hold, str]) -> int:
    return read[0].seq


def from_snapshot(members: object, *, namespace: str, epoch: str, tenants: frozenset[str] | None = None) -> Replica:
    """Return the replica of a snapshot.

    Args:
        members: the JSON object that :meth:`Replica.snapshot` made.
        namespace: the namespace of the log it is of.
        epoch: the epoch of the log it is of.
        tenants: the tenants whose kills it holds; None for all.

    Raises:
        InvalidDocument: it is not a whole snapshot: absence of knowledge is never read as absence of kills.
    """
    if not isinstance(members, dict):
        raise InvalidDocument("a snapshot is a JSON object")
    seq, head, floor = members.get("seq"), members.get("hash"), members.get("floor_seq")
    listed, remembered = members.get("holds"), members.get("marks")
    if type(seq) is not int or seq < 0 or not isinstance(head, str) or not is_hash(head):
        raise InvalidEntry("snapshot: seq or hash is missing or malformed")
    if seq == 0 and head != GENESIS_HASH:
        raise InvalidEntry("snapshot: a log without entries has no hash")
    if type(floor) is not int or not 0 <= floor <= seq:
        raise InvalidEntry("snapshot: floor_seq is missing or malformed")
    if not isinstance(listed, list) or not isinstance(remembered, dict):
        raise InvalidEntry("snapshot: holds or marks are missing")
    # With 100,000 holds this takes about as long as a lease lasts: so each target is read once, and is its own key.
    try:
        check_namespace(namespace)
        targets = {key: parse_target(key) for key in remembered}
        marks = {key: _parse_mark(mark, seq) for key, mark in remembered.items()}
    except InvalidTarget as error:
        raise InvalidEntry(f"snapshot: {error}") from None
    if not is_epoch(epoch):
        raise InvalidEntry("snapshot: the epoch is malformed")
    holds: dict[str, tuple[Hold, ...]] = {}
    before = 0
    read = [(_parse_hold(each, seq, targets), each["target"]) for each in listed]
    for hold, key in sorted(read, key=_seq_of):
        mark = marks.get(key)
        if mark is None or mark.last_kill < hold.seq or (hold.queued == "discard" and mark.barrier < hold.seq):
            raise InvalidEntry(f"snapshot: hold {hold.seq} on {key} has no mark: the snapshot is not whole")
        if hold.seq == before:
            raise InvalidEntry(f"snapshot: hold {hold.seq} stands twice")
        before = hold.seq
        holds[key] = (*holds.get(key, ()), hold)
    return Replica(
        namespace, epoch, Position(seq, head), MappingProxyType(holds), MappingProxyType(marks), floor, tenants
    )
