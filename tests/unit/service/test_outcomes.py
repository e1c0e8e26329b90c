"""Outcomes as a use case: kept once, one batch at a time, and removed when they are too old."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import pytest
import structlog

from app.domain.access import Permission, Principal, Role
from app.service.outcomes import SWEEP_S, SWEPT, WAITING, Outcomes, Told
from app.service.store import OutcomeQuery, OutcomeUnknown, StoredOutcome, StoreUnavailable
from tests.unit.service.fakes import ManualClocks, MemoryStore

DAY_S: Final = 86_400.0
WHO: Final = Principal("k3v9x0q2m7ab", "mailer", Role.WORKER, ("acme",), frozenset({Permission.LEASE}), 2e9)
CLEANUPS: Final = (
    {"name": "close", "outcome": "done", "ms": 7},
    {"name": "release", "outcome": "failed", "ms": 8, "detail": "refused"},
)
TOLD: Final = Told("r-1", 2, "mailer-1", "i-1", "2026-11-20T20:25:11.123456Z", "cleanup", CLEANUPS)


def build() -> tuple[Outcomes, MemoryStore, ManualClocks]:
    """Return the use case over fakes."""
    store, clocks = MemoryStore(), ManualClocks()
    return Outcomes(store, clocks), store, clocks


def kept(outcomes: Outcomes) -> list[str]:
    """Return the runs whose outcomes are kept."""
    return [each.run for each in outcomes.listed(OutcomeQuery(flip=2, limit=10_000))]


def test_an_outcome_is_kept_with_who_told_it_and_when() -> None:
    """The subject and the tenants of the token, and the node's own time of day."""
    outcomes, _, clocks = build()
    assert outcomes.keep(WHO, [TOLD]) == 1
    (found,) = outcomes.listed(OutcomeQuery(run="r-1"))
    assert (found.subject, found.tenants, found.kept_at) == ("mailer", ("acme",), clocks.wall())
    assert (found.at, found.worker, found.instance, found.ended) == (TOLD.at, "mailer-1", "i-1", "cleanup")
    assert found.cleanups.startswith('[{"ms":7,"name":"close","outcome":"done"}')


def test_what_is_told_again_is_kept_once() -> None:
    """And says so."""
    outcomes, _, _ = build()
    assert outcomes.keep(WHO, [TOLD, replace(TOLD, run="r-2")]) == 2
    assert outcomes.keep(WHO, [TOLD, replace(TOLD, run="r-3", ended="killed")]) == 1
    assert kept(outcomes) == ["r-1", "r-2", "r-3"]


def test_what_is_told_is_counted() -> None:
    """By how runs ended and what became of cleanups; what could not be kept is not."""
    outcomes, store, _ = build()
    outcomes.keep(WHO, [TOLD, replace(TOLD, run="r-2", ended="killed", cleanups=())])
    store.failure = StoreUnavailable("gone")
    with pytest.raises(StoreUnavailable):
        outcomes.keep(WHO, [replace(TOLD, run="r-3")])
    assert outcomes.told == {"cleanup": 1, "killed": 1}
    assert outcomes.cleanups == {"done": 1, "failed": 1}


class Slow(MemoryStore):
    """A store that keeps outcomes when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.entered = threading.Event()
        self.at_once = self.most = 0

    def keep_outcomes(self, outcomes: Sequence[StoredOutcome]) -> int:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        self.entered.set()
        assert self.go.wait(20)
        self.at_once -= 1
        return super().keep_outcomes(outcomes)


def test_one_batch_is_written_at_a_time() -> None:
    """Some wait for their turn, not for long; the others are told at once that there is none, and nothing is kept."""
    store = Slow()
    outcomes = Outcomes(store, ManualClocks())
    came: list[Any] = []
    first = threading.Thread(target=lambda: came.append(outcomes.keep(WHO, [TOLD])))
    first.start()
    assert store.entered.wait(10)
    others = [
        threading.Thread(target=lambda n=n: came.append(outcomes.keep(WHO, [replace(TOLD, run=f"x-{n}")])))
        for n in range(WAITING + 4)
    ]
    for thread in others:
        thread.start()
    for thread in others:
        thread.join(20)  # none of them gets its turn
    assert came == [None] * len(others)
    store.go.set()
    first.join(20)
    assert store.most == 1
    assert outcomes.keep(WHO, [replace(TOLD, run="r-2")]) == 1
    assert kept(outcomes) == ["r-1", "r-2"]


def test_a_batch_that_fails_gives_its_turn_back() -> None:
    """The next one is kept."""
    outcomes, store, _ = build()
    for failure in (StoreUnavailable("gone"), OutcomeUnknown("lost")):
        store.failure = failure
        with pytest.raises(type(failure)):
            outcomes.keep(WHO, [TOLD])
    store.failure = None
    assert outcomes.keep(WHO, [TOLD]) == 1


def test_outcomes_are_removed_after_30_days() -> None:
    """Not before; dated by when they were heard, whatever the worker's clock says."""
    outcomes, _, clocks = build()
    outcomes.keep(WHO, [replace(TOLD, at="1999-01-01T00:00:00.000000Z")])
    clocks.pass_s(15 * DAY_S)
    outcomes.keep(WHO, [replace(TOLD, run="r-2", at="2999-01-01T00:00:00.000000Z")])
    clocks.pass_s(15 * DAY_S - 1)
    outcomes.sweep()
    assert kept(outcomes) == ["r-1", "r-2"]
    clocks.pass_s(SWEEP_S)
    outcomes.sweep()
    assert kept(outcomes) == ["r-2"]
    clocks.pass_s(16 * DAY_S)
    outcomes.sweep()
    assert kept(outcomes) == []


def test_many_are_removed_a_batch_a_round() -> None:
    """So that a sweep takes no longer than a batch; and where there is nothing to remove, nobody looks for a while."""
    outcomes, store, clocks = build()
    for number in range(0, 2 * SWEPT + 7, 100):
        outcomes.keep(WHO, [replace(TOLD, run=f"r-{number + each}") for each in range(100)])
    clocks.pass_s(31 * DAY_S)
    left = [len(store.told)]
    for _ in range(4):
        outcomes.sweep()
        left.append(len(store.told))
    assert left == [1_100, 600, 100, 0, 0]
    outcomes.keep(WHO, [TOLD])
    clocks.pass_s(SWEEP_S - 1)
    store.told[2, "r-1"] = replace(store.told[2, "r-1"], kept_at=0.0)
    outcomes.sweep()
    assert len(store.told) == 1
    clocks.pass_s(1)
    outcomes.sweep()
    assert len(store.told) == 0


def test_a_sweep_that_fails_is_made_later() -> None:
    """It raises nothing, and says so."""
    outcomes, store, clocks = build()
    outcomes.keep(WHO, [TOLD])
    clocks.pass_s(31 * DAY_S)
    store.failure = StoreUnavailable("gone")
    with structlog.testing.capture_logs() as journal:
        outcomes.sweep()
    assert [line["event"] for line in journal] == ["outcomes_not_swept"]
    store.failure = None
    clocks.pass_s(SWEEP_S)
    outcomes.sweep()
    assert len(store.told) == 0
