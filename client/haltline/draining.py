"""The stopping rule of planned work: what a discarding kill voids for ever, and what passes a kill that drains.

Planned work is judged by the log position at which it was planned. Against the barrier of a target it is as a run is
against its last kill: a barrier above the position stops it, an equal one does not, for who planned at that position
had seen the kill. Against an active hold it is the other way round: only work that was planned before the kill, below
its position, is what that kill lets drain.
"""

from __future__ import annotations

from haltline.replica import Replica, told
from haltline.scopes import Path, Scope, Target
from haltline.verdict import GO, Hold, Reason, Stop, Verdict


def discarded(replica: Replica, path: Path, seq: int, capability: str | None = None) -> bool:
    """Return whether work planned at ``seq`` is void for ever, also after a revive.

    Args:
        replica: the fold.
        path: the targets above the work.
        seq: the log position at which it was planned.
        capability: the capability that it uses; None for the run alone.
    """
    return (
        seq < replica.floor_seq
        or any(_void(replica, key, seq) for key in path.keys)
        or (capability is not None and _void(replica, f"capability:{capability}", seq))
    )


def judge_planned(replica: Replica, path: Path, seq: int, capability: str | None = None) -> Verdict:
    """Return the verdict for one effect of planned work; the lease is judged elsewhere.

    Args:
        replica: the fold.
        path: the targets above the effect.
        seq: the log position at which the work was planned.
        capability: the capability that the effect uses, a valid id; None to judge the work alone.

    Returns:
        ``GO``; or a ``Stop`` with reason KILLED (the path), FROZEN (the capability only), UNSEEN or BEHIND, naming
        every hold that blocks, the broadest first.
    """
    if replica.position.seq < seq:
        return Stop(
            Reason.BEHIND,
            detail=f"the work was planned at position {seq}, this replica has reached {replica.position.seq}",
        )
    holds: list[Hold] = []
    killed: list[Target] = []
    for target, key in zip(path.targets, path.keys, strict=True):
        blocking = _blocking(replica, key, seq)
        if blocking or _void(replica, key, seq):
            holds.extend(blocking)
            killed.append(target)
    below_floor = seq < replica.floor_seq
    reason = Reason.KILLED if killed or below_floor else Reason.FROZEN
    if reason is Reason.FROZEN:
        unseen = replica.unseen(path)
        if unseen is not None:
            return unseen
    if capability is not None:
        key = f"capability:{capability}"
        blocking = _blocking(replica, key, seq)
        if blocking or _void(replica, key, seq):
            holds.extend(blocking)
            killed.append(Target(Scope.CAPABILITY, capability))
    if not killed and not below_floor:
        return GO
    return Stop(reason, tuple(holds), tuple(killed), _detail(replica, holds, killed, seq))


def held(replica: Replica, path: Path, capability: str | None = None) -> bool:
    """Return whether a target on the path is killed right now, drained or not."""
    return any(key in replica.holds for key in path.keys) or (
        capability is not None and f"capability:{capability}" in replica.holds
    )


def _void(replica: Replica, key: str, seq: int) -> bool:
    mark = replica.marks.get(key)
    return mark is not None and mark.barrier > seq


def _blocking(replica: Replica, key: str, seq: int) -> tuple[Hold, ...]:
    """Return the active holds on a target that the work does not pass: it says discard, or came before the work."""
    return tuple(hold for hold in replica.holds.get(key, ()) if hold.queued != "drain" or seq >= hold.seq)


def _detail(replica: Replica, holds: list[Hold], killed: list[Target], seq: int) -> str:
    if holds:
        return told(holds)
    if killed:
        return f"{killed[0]} was killed after the work was planned, and what was planned is discarded: plan it anew"
    return f"planned at position {seq}, before {replica.floor_seq}, the oldest kill still remembered: plan it anew"
