"""Laws of planned work, against a model of the drain rule that reads the log and knows no fold."""

from __future__ import annotations

import contextlib
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from haltline import CapabilityFrozen, Halt, Refusal, StampRefused
from haltline.draining import discarded, held, judge_planned
from haltline.replica import from_snapshot
from haltline.scopes import Path, path
from haltline.testing import FakeSwitch, fake_switch
from haltline.verdict import GO, Go, Reason, Stop
from tests.property.test_core_fold import CAPABILITIES, Op, capabilities, paths, stories, told
from tests.support.counts import NIGHTLY
from tests.unit.core.logs import EPOCH, NAMESPACE

pytestmark = pytest.mark.timeout(1_800 if NIGHTLY else 60)  # the full counts take minutes

many = settings(max_examples=5_000 if NIGHTLY else 300)
fewer = settings(max_examples=1_000 if NIGHTLY else 60, deadline=None)

RUNS: Final = ("r-1", "r-2")
TARGETS: Final = ("global", "tenant:acme", "run:r-1", "run:r-1.a", "run:r-2", "capability:send", "capability:read")


class Model:
    """What the log itself says of work planned at ``seq``, read entry by entry."""

    def __init__(self, members: list[dict[str, Any]], seq: int, targets: set[str]) -> None:
        kills = {each["seq"]: each for each in members if each["kind"] == "kill" and each["target"] in targets}
        revives = [each for each in members if each["kind"] == "revive"]
        released = {(each["target"], hold) for each in revives for hold in each["holds"]}
        since = {number: kill for number, kill in kills.items() if number > seq}
        active = {number: kill for number, kill in kills.items() if (kill["target"], number) not in released}
        self.dead = any(kill["queued"] == "discard" for kill in since.values())
        self.passes = not self.dead and all(
            kill["queued"] == "drain" and number in since for number, kill in active.items()
        )


def model(members: list[dict[str, Any]], seq: int, above: Path, capability: str | None) -> Model:
    """Return what the log says of an effect of this path and capability."""
    named = set() if capability is None else {f"capability:{capability}"}
    return Model(members, seq, set(above.keys) | named)


@many
@given(stories, paths, capabilities, st.data())
def test_the_drain_rule(story: list[Op], above: Path, capability: str | None, data: st.DataObject) -> None:
    """Go, stopped for now, or dead for ever: as the log says, at every position from the stamp's on."""
    log, _ = told(story)
    entries = log.entries()
    seq = data.draw(st.integers(0, len(entries)))
    for reached in range(len(entries) + 1):
        replica = log.empty().extend(entries[:reached])
        verdict = judge_planned(replica, above, seq, capability)
        if reached < seq:
            assert isinstance(verdict, Stop)
            assert verdict.reason is Reason.BEHIND
            continue
        said = model(log.members[:reached], seq, above, capability)
        alone = model(log.members[:reached], seq, above, None)
        assert discarded(replica, above, seq, capability) is said.dead
        assert isinstance(verdict, Go) is said.passes
        if isinstance(verdict, Stop):
            event("dead" if said.dead else "held")
            assert verdict.reason is (Reason.FROZEN if alone.passes else Reason.KILLED)
            assert verdict.killed
        elif held(replica, above, capability):
            event("drained")


@many
@given(stories, paths, capabilities, st.data())
def test_the_dead_stay_dead(story: list[Op], above: Path, capability: str | None, data: st.DataObject) -> None:
    """No later entry, a revive least of all, brings a discarded stamp back; nor does it stop what nothing hit."""
    log, _ = told(story)
    entries = log.entries()
    seq = data.draw(st.integers(0, len(entries)))
    replica, dead = log.empty().extend(entries[:seq]), False
    for entry in entries[seq:]:
        replica = replica.extend([entry])
        now = discarded(replica, above, seq, capability)
        assert now or not dead
        assert not now or judge_planned(replica, above, seq, capability) != GO
        dead = now


@many
@given(stories, paths, st.data())
def test_a_stamp_is_never_stricter_than_a_run(story: list[Op], above: Path, data: st.DataObject) -> None:
    """Where a run armed at a position may go on, work planned there may; without a draining kill they are alike."""
    log, _ = told(story)
    replica = log.replica()
    seq = data.draw(st.integers(0, log.head.seq))
    run, work = replica.judge(above, seq), judge_planned(replica, above, seq)
    assert not isinstance(run, Go) or isinstance(work, Go)
    drains = any(each.get("queued") == "drain" for each in log.members)
    assert drains or isinstance(run, Go) is isinstance(work, Go)


@many
@given(stories, paths, capabilities, st.data())
def test_killing_more_never_allows_more(
    story: list[Op], above: Path, capability: str | None, data: st.DataObject
) -> None:
    """One more kill on the path, of either kind, at any time after the stamp: what was refused stays refused."""
    log, _ = told(story)
    seq = data.draw(st.integers(0, log.head.seq))
    before = judge_planned(log.replica(), above, seq, capability)
    log.kill(data.draw(st.sampled_from(above.keys)), queued=data.draw(st.sampled_from(["discard", "drain"])))
    after = judge_planned(log.replica(), above, seq, capability)
    assert isinstance(before, Go) or isinstance(after, Stop)


@many
@given(stories, paths, capabilities, st.data())
def test_a_snapshot_judges_alike(story: list[Op], above: Path, capability: str | None, data: st.DataObject) -> None:
    """Barriers survive being written out; and below the floor every stamp is dead."""
    log, _ = told(story)
    replica = log.replica()
    seq = data.draw(st.integers(0, log.head.seq))
    read = from_snapshot(replica.snapshot(), namespace=NAMESPACE, epoch=EPOCH)
    assert judge_planned(read, above, seq, capability) == judge_planned(replica, above, seq, capability)
    floor = data.draw(st.integers(0, log.head.seq))
    cut = from_snapshot({**replica.snapshot(), "floor_seq": floor}, namespace=NAMESPACE, epoch=EPOCH)
    assert not seq < floor or discarded(cut, above, seq, capability)
    assert discarded(cut, above, seq, capability) is (seq < floor or discarded(read, above, seq, capability))


# -- the same through a switch, with real stamps -------------------------------------------------------------------


class Step(NamedTuple):
    """One step: a kill, a revive, planning by a run or its child, or redeeming everything planned so far."""

    what: str
    target: str
    queued: str
    capability: str


steps = st.lists(
    st.builds(
        Step,
        st.sampled_from(["kill", "revive", "plan", "plan", "redeem"]),
        st.sampled_from(TARGETS),
        st.sampled_from(["discard", "drain", "drain"]),
        st.sampled_from([each for each in CAPABILITIES if each]),
    ),
    max_size=14,
)


def plan(switch: FakeSwitch, step: Step) -> list[tuple[str, Path, str, int]]:
    """Return the stamps that a run and its child can have now, each with its path, capability and position."""
    made = []
    with contextlib.suppress(Halt, CapabilityFrozen), switch.run("r-1", tenant="acme") as run:
        made.append((run.plan(step.capability), path("r-1", tenant="acme"), step.capability, switch.position.seq))
        with run.child("a") as child:
            above = path("r-1.a", tenant="acme", ancestors=("r-1",))
            made.append((child.plan(step.capability), above, step.capability, switch.position.seq))
    return made


def redeemed(switch: FakeSwitch, text: str) -> Refusal | None:
    """Redeem a stamp, and return why it is refused; None where its work passes its check."""
    try:
        with switch.redeem(text) as work:
            work.check()
    except StampRefused as refused:
        return refused.reason
    return None


@fewer
@given(steps)
def test_redeeming_follows_the_rule(story: list[Step]) -> None:
    """Whatever happened since, each stamp is redeemed or refused as the log says, and stays what it was once dead."""
    switch = fake_switch()
    stamps: list[tuple[str, Path, str, int]] = []
    for step in [*story, Step("redeem", "global", "discard", "send")]:
        if step.what == "kill":
            switch.service.kill(step.target, queued=step.queued)  # type: ignore[arg-type]
        elif step.what == "revive" and switch.service.holds(step.target):
            switch.service.revive(step.target)
        elif step.what == "plan":
            stamps.extend(plan(switch, step))
        elif step.what == "redeem":
            members = [dict(each) for each in switch.service.entries]
            for text, above, capability, seq in stamps:
                said = model(members, seq, above, capability)
                outcome = redeemed(switch, text)
                event("redeemed" if outcome is None else outcome)
                assert outcome is (None if said.passes else Refusal.DISCARDED)
                assert said.passes is not said.dead
    assert {each.stamp for each in switch.discarded()} <= {each[0] for each in stamps}
