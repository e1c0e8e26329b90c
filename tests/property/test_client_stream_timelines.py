"""On lease streams, too, nothing passes after a kill took effect, whatever is paused, delayed, lost or spliced."""

from __future__ import annotations

import os
from typing import Final

import pytest

from tests.support.counts import NIGHTLY
from tests.support.stream_mutants import MUTANTS
from tests.support.stream_timeline import StreamTimeline

TIMELINES: Final = 100_000 if NIGHTLY else 800
BLIPS: Final = 10_000 if NIGHTLY else 200
FIRST_SEED: Final = int.from_bytes(os.urandom(6), "big") if NIGHTLY else 0


@pytest.mark.timeout(7_200 if NIGHTLY else 120)
def test_no_check_passes_after_effective_at() -> None:
    """Streams of two nodes, one after the other and overlapping; and each client learns of the kill in the end."""
    passed = 0
    for seed in range(FIRST_SEED, FIRST_SEED + TIMELINES):
        outcome = StreamTimeline(seed).play()
        assert outcome.late == (), f"seed {seed}"
        assert outcome.halted, f"seed {seed}"
        passed += outcome.passed
    assert passed > 50 * TIMELINES, "timelines in which nothing ever passes prove nothing"


@pytest.mark.timeout(1_200 if NIGHTLY else 60)
def test_a_blip_halts_every_run() -> None:
    """A kill that is revived 1 to 50 ms later, heard of or not while it stood: no run that was armed before goes on."""
    for seed in range(FIRST_SEED, FIRST_SEED + BLIPS):
        outcome = StreamTimeline(seed, blip=True).play()
        assert (outcome.late, outcome.halted) == ((), True), f"seed {seed}"


@pytest.mark.parametrize("mistake", MUTANTS)
def test_a_mistake_is_caught(mistake: str) -> None:
    """The same property finds each of them within some thousand timelines, so it proves something."""
    assert any(StreamTimeline(seed, MUTANTS[mistake]).play().late for seed in range(3_000))
