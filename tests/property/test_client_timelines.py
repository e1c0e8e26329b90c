"""After a kill took effect nothing passes, whatever is paused, delayed, lost or played again."""

from __future__ import annotations

import os
from typing import Final

import pytest

from tests.support.counts import NIGHTLY
from tests.support.timeline import Timeline, receipt_anchored

TIMELINES: Final = 1_000_000 if NIGHTLY else 10_000
FIRST_SEED: Final = int.from_bytes(os.urandom(6), "big") if NIGHTLY else 0


@pytest.mark.timeout(7_200 if NIGHTLY else 300)
def test_no_check_passes_after_effective_at() -> None:
    """In 10^4 random timelines on a push and 10^6 at night; and no lease outlives its read by more than the ttl."""
    passed = 0
    for seed in range(FIRST_SEED, FIRST_SEED + TIMELINES):
        outcome = Timeline(seed).play()
        assert outcome.late == (), f"seed {seed}"
        assert outcome.outlived <= 0, f"seed {seed}"
        passed += outcome.passed
    assert passed > 5 * TIMELINES, "timelines in which nothing ever passes prove nothing"


def test_dating_leases_from_arrival_is_caught() -> None:
    """The same property finds the mistake within a few hundred timelines, and by seconds."""
    outcomes = [Timeline(seed, receipt_anchored).play() for seed in range(300)]
    assert sum(bool(outcome.late) for outcome in outcomes) >= 10
    assert max(max(outcome.late, default=0) for outcome in outcomes) > 1_000_000_000
    assert max(outcome.outlived for outcome in outcomes) > 1_000_000_000
