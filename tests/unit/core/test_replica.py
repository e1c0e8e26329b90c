"""The fold: what a log says about every target."""

from __future__ import annotations

import pytest

from haltline.errors import PositionGap
from haltline.flips import Position, Stub
from haltline.replica import Mark, Replica
from haltline.verdict import Hold
from tests.unit.core.logs import EPOCH, NAMESPACE, Log


def held(replica: Replica) -> dict[str, list[int]]:
    """Return the ids of the active holds of every killed target."""
    return {key: [hold.seq for hold in holds] for key, holds in replica.holds.items()}


def test_nothing_is_killed_before_the_first_entry() -> None:
    """The replica of nothing is at position 0 and knows no target."""
    assert Replica().position == Position(0, "0" * 64)
    assert (dict(Replica().holds), dict(Replica().marks)) == ({}, {})


def test_a_kill_makes_a_hold() -> None:
    """The hold's id is the seq of its kill, and it carries what the kill said."""
    log = Log()
    seq = log.kill("run:r-1", reason="why", actor="bob", flip_id="f-1")
    hold = log.replica().holds["run:r-1"][0]
    assert hold == Hold(seq, hold.target, "bob", f"2026-11-20T20:25:11.{seq:06d}Z", "why", "finish", "discard", "f-1")
    assert str(hold.target) == "run:r-1"


def test_a_revive_releases_the_holds_it_names() -> None:
    """A target is killed while it has a hold; others keep theirs."""
    log = Log()
    first, second, third = log.kill("run:r-1"), log.kill("run:r-1"), log.kill("run:r-1")
    assert held(log.replica()) == {"run:r-1": [first, second, third]}
    log.revive("run:r-1", second)
    assert held(log.replica()) == {"run:r-1": [first, third]}
    log.revive("run:r-1", first, third)
    assert held(log.replica()) == {}


def test_a_revive_reaches_no_other_target() -> None:
    """Holds are released on the target that the revive names, even where its list names others'."""
    log = Log()
    mine, other = log.kill("run:r-1"), log.kill("run:r-2")
    log.revive("run:r-1", mine, other)
    assert held(log.replica()) == {"run:r-2": [other]}


def test_a_released_hold_stays_released() -> None:
    """Naming a hold again, or one that never was, changes nothing."""
    log = Log()
    hold = log.kill("run:r-1")
    log.revive("run:r-1", hold)
    before = log.replica()
    log.revive("run:r-1", 1, hold)
    log.revive("tenant:acme", hold)
    after = log.replica()
    assert held(after) == held(before) == {}
    assert after.marks == before.marks


def test_marks_survive_a_revive() -> None:
    """What a target remembers of kills is not taken back by a revive."""
    log = Log()
    hold = log.kill("run:r-1")
    log.revive("run:r-1", hold)
    assert dict(log.replica().marks) == {"run:r-1": Mark(hold, hold)}


def test_a_draining_kill_moves_no_barrier() -> None:
    """``drain`` moves last_kill and leaves the barrier where it was; ``discard`` moves both."""
    log = Log()
    first = log.kill("run:r-1", queued="drain")
    assert log.replica().marks["run:r-1"] == Mark(first, 0)
    second = log.kill("run:r-1")
    assert log.replica().marks["run:r-1"] == Mark(second, second)
    third = log.kill("run:r-1", queued="drain")
    assert log.replica().marks["run:r-1"] == Mark(third, second)


def test_notes_and_stubs_move_the_position_only() -> None:
    """An entry that is not a flip, or not this reader's business, changes no flag."""
    log = Log()
    log.kill("tenant:acme")
    before = log.replica()
    log.note("token_created")
    after = before.extend([Stub(log.head)])
    assert after.position == log.head
    assert (after.holds, after.marks) == (before.holds, before.marks)
    assert after == before.extend(log.entries()[-1:])


def test_nothing_new_is_the_same_object() -> None:
    """A replica that learns nothing is not replaced, so that a run's memory of its verdict stays valid."""
    log = Log()
    log.kill("run:r-1")
    replica = log.replica()
    assert replica.extend([]) is replica
    assert replica.extend(log.entries()) is replica
    log.note("token_created")
    assert replica.extend(log.entries()) is not replica


def test_extending_leaves_the_old_replica_alone() -> None:
    """A replica is a value: who holds the old one keeps what it said."""
    log = Log()
    hold = log.kill("run:r-1")
    before = log.replica()
    log.revive("run:r-1", hold)
    log.kill("run:r-2")
    after = before.extend(log.entries())
    assert held(before) == {"run:r-1": [hold]}
    assert held(after) == {"run:r-2": [4]}
    with pytest.raises(TypeError):
        after.holds["run:r-1"] = ()  # type: ignore[index]


def test_the_log_is_kept_in_mind() -> None:
    """Namespace and epoch stay those of the first replica."""
    replica = Log().replica()
    assert (replica.namespace, replica.epoch) == (NAMESPACE, EPOCH)


def test_a_missing_entry_is_a_gap() -> None:
    """Entries that do not continue the position are refused whole."""
    log = Log()
    log.kill("run:r-1")
    log.kill("run:r-2")
    entries = log.entries()
    replica = log.empty().extend(entries[:1])
    for some in (entries[2:], [Stub(entries[2].position)]):
        with pytest.raises(PositionGap, match="entry 2 should come next"):
            replica.extend(some)
    assert replica.position.seq == 1


def test_a_gap_in_the_middle_takes_nothing() -> None:
    """A batch with a hole in it changes nothing, also not its sound beginning."""
    log = Log()
    for run in range(5):
        log.kill(f"run:r-{run}")
    entries = log.entries()
    replica = log.empty().extend(entries[:1])
    with pytest.raises(PositionGap):
        replica.extend([*entries[1:3], *entries[4:]])
    assert held(replica) == {}


def test_entries_seen_before_are_passed_over() -> None:
    """Repeats at the start, in the middle and at the end of a batch change nothing."""
    log = Log()
    log.kill("run:r-1")
    log.kill("run:r-1")
    entries = log.entries()
    repeated = [*entries[:2], *entries[:3], *entries[1:], *entries]
    assert log.empty().extend(entries[:1]).extend(repeated) == log.replica()


def test_another_history_is_noticed() -> None:
    """An entry that does not follow the one seen before, or differs at the same position, is refused."""
    log, other = Log(), Log(epoch="f" * 16)
    for each in (log, other):
        each.kill("run:r-1")
        each.kill("run:r-2")
    replica = log.empty().extend(log.entries()[:2])
    with pytest.raises(PositionGap, match="does not follow"):
        replica.extend(other.entries()[2:])
    for seen in (other.entries()[1:2], [Stub(other.entries()[1].position)]):
        with pytest.raises(PositionGap, match="not the entry 2"):
            replica.extend(seen)
    with pytest.raises(PositionGap, match="does not follow"):
        replica.extend([Stub(Position(3, "f" * 64)), *_next(log)])


def _next(log: Log) -> list[Stub]:
    log.kill("run:r-3")
    return log.entries()[3:]  # type: ignore[return-value]
