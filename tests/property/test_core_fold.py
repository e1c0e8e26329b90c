"""Laws of the fold: order and repetition of arrival are irrelevant, a kill only stops, a revive starts nothing."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from haltline.canonical import canonical, parse
from haltline.errors import PositionGap
from haltline.flips import Entry, Note, Stub
from haltline.replica import Replica, from_snapshot
from haltline.scopes import Path, path
from haltline.verdict import GO, Go, Reason, Stop, Verdict
from tests.support.counts import NIGHTLY
from tests.unit.core.logs import EPOCH, NAMESPACE, Log

pytestmark = pytest.mark.timeout(1_800 if NIGHTLY else 60)  # the full counts take minutes

TARGETS: Final = (
    *("global", "tenant:acme", "tenant:umbrella", "feature:outreach"),
    *("run:r-1", "run:r-2", "capability:send", "capability:read"),
)
PATHS: Final = (
    path("r-1"),
    path("r-1", tenant="acme", feature="outreach"),
    path("r-2", tenant="umbrella"),
    path("r-3", feature="outreach"),
)
CAPABILITIES: Final = (None, "send", "read")

many = settings(max_examples=2_000 if NIGHTLY else 200)


class Op(NamedTuple):
    """One step of a story: a kill of a target, a revive of the holds of some earlier steps, or a note."""

    what: str
    target: str
    queued: str
    steps: tuple[int, ...]


ops = st.builds(
    Op,
    st.sampled_from(["kill", "kill", "revive", "revive", "note"]),
    st.sampled_from(TARGETS),
    st.sampled_from(["discard", "drain"]),
    st.sets(st.integers(0, 15), min_size=1, max_size=6).map(lambda steps: tuple(sorted(steps))),
)
stories = st.lists(ops, max_size=16)
paths = st.sampled_from(PATHS)
capabilities = st.sampled_from(CAPABILITIES)


def told(story: list[Op], *, left_out: int | None = None) -> tuple[Log, list[int]]:
    """Return the log of a story, one step perhaps left out, and where the log stood after each step.

    A revive names the kills of its steps that stand in the log already, whatever their target; without one it is a
    note.
    """
    log, after, kills = Log(), list[int](), dict[int, int]()
    for step, op in enumerate(story):
        holds = [kills[each] for each in op.steps if each in kills]
        if step == left_out:
            pass
        elif op.what == "kill":
            kills[step] = log.kill(op.target, queued=op.queued)
        elif op.what == "revive" and holds:
            log.revive(op.target, *holds)
        else:
            log.note("token_created")
        after.append(log.head.seq)
    return log, after


def prefixes(log: Log, entries: list[Entry]) -> list[Replica]:
    """Return the fold of every prefix of a log, each folded from the beginning by itself."""
    return [log.empty().extend(entries[:count]) for count in range(len(entries) + 1)]


def forgotten(entry: Entry, data: st.DataObject) -> Entry | Stub:
    """Return a note as it is or as its stub, which is all that a tenant-bound reader gets of it."""
    return Stub(entry.position) if isinstance(entry, Note) and data.draw(st.booleans()) else entry


# -- arrival ---------------------------------------------------------------------------------------------------------


@many
@given(stories, st.data())
def test_the_order_and_repetition_of_arrival_are_irrelevant(story: list[Op], data: st.DataObject) -> None:
    """Slices in any order, with repeats and holes, lead through prefixes only, and to the same replica."""
    log, _ = told(story)
    entries = log.entries()
    every = prefixes(log, entries)
    replica = log.empty()
    for _ in range(data.draw(st.integers(0, 8))):
        start = data.draw(st.integers(0, len(entries)))
        part = [forgotten(each, data) for each in entries[start : data.draw(st.integers(start, len(entries)))]]
        if part:
            hole = data.draw(st.none() | st.integers(0, len(part) - 1))
            part = part if hole is None else part[:hole] + part[hole + 1 :]
        again = data.draw(st.booleans())
        if part and again:
            part = part + part[data.draw(st.integers(0, len(part) - 1)) :]
        before = replica
        try:
            replica = replica.extend(part)
        except PositionGap:
            event("gap")
            assert replica is before
        assert replica == every[replica.position.seq]
        assert replica.position.seq >= before.position.seq
    # Asking again from the position that was reached mends every gap.
    assert replica.extend(entries[replica.position.seq :]) == every[-1]


@many
@given(stories, st.randoms(use_true_random=False))
def test_shuffled_entries_never_make_a_state_of_their_own(story: list[Op], random: Any) -> None:
    """Single entries, arriving in any order and several times, fold as soon as they fit and never before."""
    log, _ = told(story)
    entries = log.entries()
    every = prefixes(log, entries)
    arriving = entries * 2
    random.shuffle(arriving)
    replica = log.empty()
    for entry in [*arriving, *entries]:
        try:
            replica = replica.extend([entry])
        except PositionGap:
            assert entry.position.seq > replica.position.seq + 1
        assert replica == every[replica.position.seq]
    assert replica == every[-1]


@many
@given(stories, st.integers(0, 17))
def test_in_one_go_or_one_by_one(story: list[Op], at: int) -> None:
    """How a log is cut into batches does not count."""
    log, _ = told(story)
    entries = log.entries()
    single = log.empty()
    for entry in entries:
        single = single.extend([entry])
    assert single == log.replica() == log.empty().extend(entries[:at]).extend(entries[at:])
    assert log.empty().extend(iter(entries)) == single


@many
@given(stories, st.integers(0, 17))
def test_a_snapshot_in_between_changes_nothing(story: list[Op], at: int) -> None:
    """Extending what a snapshot gave is the same as the snapshot of what was extended."""
    log, _ = told(story)
    entries = log.entries()
    early, whole = log.empty().extend(entries[:at]), log.replica()
    sent = parse(canonical(early.snapshot()))
    read = from_snapshot(sent, namespace=NAMESPACE, epoch=EPOCH)
    assert read == early
    assert read.extend(entries) == whole
    assert canonical(read.extend(entries).snapshot()) == canonical(whole.snapshot())


# -- what a kill and a revive can do ---------------------------------------------------------------------------------


@many
@given(stories.filter(bool), st.data(), paths, capabilities)
def test_killing_more_never_allows_more(story: list[Op], data: st.DataObject, on: Path, uses: str | None) -> None:
    """Whatever goes after a story with one kill more would have gone without it too, and no hold is lost."""
    extra = data.draw(st.integers(0, len(story) - 1))
    story = [*story[:extra], story[extra]._replace(what="kill"), *story[extra + 1 :]]
    with_it, with_after = told(story)
    without, without_after = told(story, left_out=extra)
    armed = data.draw(st.integers(-1, len(story) - 1))
    more = with_it.replica().judge(on, with_after[armed] if armed >= 0 else 1, uses)
    less = without.replica().judge(on, without_after[armed] if armed >= 0 else 1, uses)
    event(f"{type(less).__name__} becomes {type(more).__name__}")
    if isinstance(more, Go):
        assert less is GO
    assert len(blocking(more)) >= len(blocking(less))


def blocking(verdict: Verdict) -> tuple[object, ...]:
    """Return the holds that a verdict names."""
    return verdict.holds if isinstance(verdict, Stop) else ()


@many
@given(stories, stories, paths, capabilities, st.data())
def test_a_revive_never_allows_a_run_armed_before_the_kill(
    before: list[Op], after: list[Op], on: Path, uses: str | None, data: st.DataObject
) -> None:
    """Once a target on its path was killed after it was armed, nothing that follows lets the run go on."""
    log, _ = told(before)
    armed = log.head.seq
    target = data.draw(st.sampled_from(on.keys))
    log.kill(target, queued=data.draw(st.sampled_from(["discard", "drain"])))
    for op in after:
        holds = [hold.seq for hold in log.replica().holds.get(op.target, ())]
        if op.what == "revive" and holds:
            log.revive(op.target, *holds)
        elif op.what == "kill":
            log.kill(op.target)
        replica = log.replica()
        for earlier in {1, armed}:
            verdict = replica.judge(on, earlier, uses)
            assert isinstance(verdict, Stop)
            assert verdict.reason is Reason.KILLED
            assert target in map(str, verdict.killed)


@many
@given(stories, paths, capabilities, st.data())
def test_a_blip_always_halts(story: list[Op], on: Path, uses: str | None, data: st.DataObject) -> None:
    """A kill that is revived at once, and seen only afterwards, stops who was armed before it and nobody else."""
    log, _ = told(story)
    replica = log.replica()
    armed = log.head.seq
    before = replica.judge(on, armed, uses)
    target = data.draw(st.sampled_from(on.keys))
    hold = log.kill(target)
    log.revive(target, hold)
    seen_at_once = replica.extend(log.entries())
    verdict = seen_at_once.judge(on, armed, uses)
    assert isinstance(verdict, Stop)
    assert verdict.reason is Reason.KILLED
    assert seen_at_once.judge(on, log.head.seq, uses) == before


@many
@given(stories, paths, capabilities, st.data())
def test_what_happens_elsewhere_does_not_count(
    story: list[Op], on: Path, uses: str | None, data: st.DataObject
) -> None:
    """Kills and revives of targets off its path change nothing for a run."""
    log, after = told(story)
    armed = data.draw(st.sampled_from([1, *after]))
    before = log.replica().judge(on, armed, uses)
    mine = {*on.keys, f"capability:{uses}"}
    for target in (*TARGETS, "run:r-1x", "run:acme", "tenant:r-1", "feature:send"):
        if target not in mine:
            log.kill(target)
    assert log.replica().judge(on, armed, uses) == before


@many
@given(stories, paths, capabilities, st.integers(0, 40))
def test_a_verdict_names_the_broadest_first(story: list[Op], on: Path, uses: str | None, armed: int) -> None:
    """Holds and targets of a stop are ordered by breadth, holds of one target by their seq, none twice."""
    log, _ = told(story)
    verdict = log.replica().judge(on, armed, uses)
    assert (verdict is GO) is bool(verdict)
    if not isinstance(verdict, Stop):
        return
    order = [(hold.target.scope.breadth, hold.seq) for hold in verdict.holds]
    assert order == sorted(set(order))
    breadths = [target.scope.breadth for target in verdict.killed]
    assert breadths == sorted(set(breadths))
    assert {hold.target for hold in verdict.holds} <= set(verdict.killed)
    assert (verdict.reason is Reason.BEHIND) is (armed > log.head.seq)
    assert verdict.detail
