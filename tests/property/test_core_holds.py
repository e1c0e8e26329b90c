"""Holds against a plain model of sets: releasing one never frees another, and only releasing frees."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from haltline.flips import follow
from haltline.replica import Replica, from_snapshot
from haltline.scopes import path
from haltline.verdict import Go, Reason
from tests.support.counts import NIGHTLY
from tests.unit.core.logs import EPOCH, NAMESPACE, Log

pytestmark = pytest.mark.timeout(1_800 if NIGHTLY else 60)  # the full counts take minutes

TARGETS: Final = ("global", "tenant:acme", "feature:outreach", "run:r-1", "run:r-2", "capability:send")
PATH: Final = path("r-1", tenant="acme", feature="outreach")

targets = st.sampled_from(TARGETS)


class Holds(RuleBasedStateMachine):
    """Operators kill and revive; a model keeps, per target, the set of holds and when it was last killed."""

    @initialize()
    def open(self) -> None:
        """Begin with an opened log, an empty model, and a run armed at the beginning."""
        self.log = Log()
        self.replica = self.log.replica()
        self.held: dict[str, set[int]] = {target: set() for target in TARGETS}
        self.last_kill: dict[str, int] = {}
        self.barrier: dict[str, int] = {}
        self.armed = {1}

    def fold(self) -> None:
        """Fold in what was appended since."""
        self.replica = self.replica.extend(
            follow(self.log.members[self.replica.position.seq :], after=self.replica.position)
        )

    @rule(key=targets, drain=st.booleans(), seen=st.booleans())
    def kill(self, *, key: str, drain: bool, seen: bool) -> None:
        """Kill a target; the replica hears of it now or with the next."""
        seq = self.log.kill(key, queued="drain" if drain else "discard")
        self.held[key].add(seq)
        self.last_kill[key] = seq
        if not drain:
            self.barrier[key] = seq
        if seen:
            self.fold()

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """Release one hold of one target."""
        key = data.draw(st.sampled_from([each for each in TARGETS if self.held[each]]))
        hold = data.draw(st.sampled_from(sorted(self.held[key])))
        self.log.revive(key, hold)
        self.held[key].discard(hold)
        self.fold()

    @rule(key=targets, named=st.sets(st.integers(1, 40), min_size=1, max_size=5))
    def release_by_guess(self, key: str, named: set[int]) -> None:
        """Release whatever ids, be they of this target, of another, released already or of no kill at all."""
        known = {hold for hold in named if hold <= self.log.head.seq}
        if known:
            self.log.revive(key, *known)
            self.held[key] -= known
            self.fold()

    @rule(key=targets)
    def blip(self, key: str) -> None:
        """Kill and revive before anybody looks."""
        seq = self.log.kill(key)
        self.log.revive(key, seq)
        self.last_kill[key] = self.barrier[key] = seq

    @rule()
    def note(self) -> None:
        """Append something that is no flip."""
        self.log.note("token_created")

    @rule()
    def reconnect(self) -> None:
        """Lose the replica and take it from a snapshot."""
        self.fold()
        self.replica = from_snapshot(self.replica.snapshot(), namespace=NAMESPACE, epoch=EPOCH)

    @rule()
    def arm(self) -> None:
        """Arm another run at the head."""
        self.armed.add(self.log.head.seq)

    @invariant()
    def the_holds_are_those_of_the_model(self) -> None:
        """What is folded in full shows exactly the model's holds and marks."""
        replica = self.whole()
        assert {key: [hold.seq for hold in holds] for key, holds in replica.holds.items()} == {
            key: sorted(holds) for key, holds in self.held.items() if holds
        }
        assert {key: (mark.last_kill, mark.barrier) for key, mark in replica.marks.items()} == {
            key: (seq, self.barrier.get(key, 0)) for key, seq in self.last_kill.items()
        }

    @invariant()
    def the_verdict_is_that_of_the_model(self) -> None:
        """A run goes if no target on its path is held or was killed since it was armed, and its tool is not held."""
        replica = self.whole()
        for armed in self.armed:
            halted = {key for key in PATH.keys if self.held[key] or self.last_kill.get(key, 0) > armed}
            verdict = replica.judge(PATH, armed, "send")
            if isinstance(verdict, Go):
                assert not halted
                assert not self.held["capability:send"]
            else:
                assert halted or self.held["capability:send"]
                assert verdict.reason is (Reason.KILLED if halted else Reason.FROZEN)
                assert {hold.seq for hold in verdict.holds} == {
                    seq for key in (*PATH.keys, "capability:send") for seq in self.held[key]
                }

    def whole(self) -> Replica:
        """Return the replica of the whole log, folded on from the one at hand."""
        return self.replica.extend(follow(self.log.members[self.replica.position.seq :], after=self.replica.position))


TestHolds = Holds.TestCase
TestHolds.settings = settings(
    max_examples=2_000 if NIGHTLY else 50, stateful_step_count=50 if NIGHTLY else 20, deadline=None
)
