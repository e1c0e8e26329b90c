"""The ttl may be changed at any time, by any node, however slowly: no kill is promised before the last old lease ends.

The model keeps real time and what every reader sees at each moment; the code under test sees only the clocks of its
nodes, which are apart by as much as they may be.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from app.domain.promises import CLOCKS_APART_S, NOT_KNOWN, TTL_MAX_MS, TTL_MIN_MS, effective_at, outlasting_ms

START: Final = 1_800_000_000.0
TTLS: Final = st.sampled_from([TTL_MIN_MS, 500, 1_000, 3_000, TTL_MAX_MS])
WAITS: Final = st.one_of(st.just(0.0), st.floats(0, 0.5), st.floats(0, 8))
SKEWS: Final = st.floats(-CLOCKS_APART_S / 2, CLOCKS_APART_S / 2)


@dataclass(frozen=True)
class Step:
    """Something that a node does under the log lock.

    Attributes:
        wait: how long after the step before it gets the lock, seconds.
        commit: how long its commit takes until it is visible, seconds.
        skew: how far its node's clock is ahead.
        ttl_ms: the ttl that it sets; None for a flip.
        settles: whether it lives to write down when the change was in force.
    """

    wait: float
    commit: float
    skew: float
    ttl_ms: int | None
    settles: bool


@dataclass
class World:
    """What is really so.

    Attributes:
        now: real time.
        seen: the ttl that readers see, and from when.
        row: ttl_ms, changed_at and before_ms as the database has them.
    """

    now: float = START
    seen: list[tuple[float, int]] = field(default_factory=lambda: [(START - 100, 1_000)])
    row: tuple[int, float, int] = (1_000, 0.0, 0)

    def change(self, step: Step, ttl_ms: int) -> None:
        """Set the ttl."""
        before, changed_at, before_ms = self.row
        left = outlasting_ms(self.now + step.skew, ttl_ms=before, changed_at=changed_at, before_ms=before_ms)
        self.now += step.commit
        if ttl_ms != before:
            self.row = (ttl_ms, NOT_KNOWN, left)
            self.seen.append((self.now, ttl_ms))
        if step.settles and self.row[1] == NOT_KNOWN:
            self.row = (self.row[0], self.now + step.skew + CLOCKS_APART_S, self.row[2])

    def flip(self, step: Step, *, wrong: float = 0.0, out: float = 0.0) -> tuple[float, float]:
        """Return when a flip is promised to be effective, and when the last lease granted without it really ends.

        Args:
            step: the flip.
            wrong: how far its node's clock is wrong besides, seconds.
            out: how much less than that was measured, seconds.
        """
        skew = step.skew + wrong
        ttl_ms, changed_at, before_ms = self.row
        self.now += step.commit
        promised = effective_at(
            self.now + skew, ttl_ms=ttl_ms, changed_at=changed_at, before_ms=before_ms, ahead=skew - out
        )
        until = [begin for begin, _ in self.seen[1:]] + [self.now]
        ends = [end + ttl / 1000 for end, (_, ttl) in zip(until, self.seen, strict=True)]
        return promised - skew, max(ends)


STEPS: Final = st.builds(
    Step, wait=WAITS, commit=WAITS, skew=SKEWS, ttl_ms=st.one_of(st.none(), TTLS), settles=st.booleans()
)


@given(st.lists(STEPS, min_size=1, max_size=12))
def test_no_promise_is_early(steps: list[Step]) -> None:
    """Whatever is changed, how slowly it commits and whoever dies in the middle: every old lease ends in time."""
    world = World()
    for step in steps:
        world.now += step.wait
        if step.ttl_ms is not None:
            world.change(step, step.ttl_ms)
        else:
            promised, ended = world.flip(step)
            assert promised >= ended - 1e-6, (promised - ended, world)


@given(st.lists(STEPS, min_size=1, max_size=12), st.floats(-9_000, 9_000), st.floats(0, 2))
def test_no_promise_of_a_wrong_clock_is_early(steps: list[Step], wrong: float, out: float) -> None:
    """However wrong the clock of the node that kills is, and with it measured to what the question took."""
    world = World()
    for step in steps:
        world.now += step.wait
        if step.ttl_ms is not None:
            world.change(step, step.ttl_ms)
        else:
            sure = out if wrong > 3 else -out if wrong < -3 else 0.0
            promised, ended = world.flip(step, wrong=wrong, out=sure)
            assert promised >= ended - 1e-4, (promised - ended, world)


@given(st.lists(STEPS, max_size=6), TTLS, SKEWS)
def test_no_promise_is_late_for_ever(steps: list[Step], ttl_ms: int, skew: float) -> None:
    """Once a change is settled and its old leases have ended, a kill is effective after the ttl alone."""
    world = World()
    for step in steps:
        world.now += step.wait
        if step.ttl_ms is not None:
            world.change(step, step.ttl_ms)
    world.change(Step(0, 0, 0, ttl_ms, settles=True), ttl_ms)
    world.now += TTL_MAX_MS / 1000 + 2 * CLOCKS_APART_S
    promised, _ = world.flip(Step(0, 0, skew, None, settles=True))
    assert abs(promised - world.now - ttl_ms / 1000) < 1e-6


def test_lowered_twice_within_a_second() -> None:
    """5000 to 1000 to 200: a lease of the first ttl still counts for a kill after the second change."""
    left = outlasting_ms(START, ttl_ms=5_000)
    assert left == 5_000
    left = outlasting_ms(START + 0.5, ttl_ms=1_000, changed_at=START, before_ms=left)
    assert left == 4_500
    assert effective_at(START + 0.6, ttl_ms=200, changed_at=START + 0.5, before_ms=left) >= START + 5


def test_a_moment_that_is_not_known_counts_from_the_kill() -> None:
    """While nobody knows when the change was in force, a kill waits for the older ttl from its own moment on."""
    assert effective_at(START, ttl_ms=200, changed_at=NOT_KNOWN, before_ms=5_000) == START + 5
    assert effective_at(START, ttl_ms=200, changed_at=START + 0.5, before_ms=3_000) == START + 3
