"""How the benchmarks measure and judge."""

from __future__ import annotations

import gc

import pytest

from bench.figure import QUICK, Bound, Effort, Met, noted, skipped
from bench.measure import calls, compare, compared, no_collection, shown, statement


def test_pairs_take_turns_and_change_places() -> None:
    """Each pair runs side by side, and neither contender always goes first."""
    order: list[str] = []

    def base(loops: int) -> float:
        order.append("a")
        return 1.0 * loops

    def contender(loops: int) -> float:
        order.append("b")
        return 3.0 * loops

    result = compare(base, contender, rounds=4, loops=2)
    assert order == ["a", "b", "a", "b", "b", "a", "a", "b", "b", "a"]  # the first two only warm up
    assert (result.ratio, result.base_s, result.taken_s) == (3.0, 1.0, 3.0)


def test_the_ratio_is_the_median_of_the_pairs() -> None:
    """A pair that was disturbed as a whole, or a single outlier, does not move the ratio."""
    result = compared([1.0, 10.0, 1.0, 1.0, 1.0], [2.0, 20.0, 2.0, 90.0, 2.0])
    assert result.ratio == 2.0


def test_one_pair_is_enough() -> None:
    """A single round has a ratio, and quartiles that are it."""
    result = compared([2.0], [3.0])
    assert (result.low, result.ratio, result.high) == (1.5, 1.5, 1.5)


def test_the_collector_rests_meanwhile() -> None:
    """No garbage is collected inside, and afterwards it is as it was."""
    assert gc.isenabled()
    with no_collection():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_contenders_do_their_work_as_often_as_told() -> None:
    """Both kinds of contender repeat what they were given."""
    done: list[int] = []
    assert calls(lambda: done.append(1))(3) >= 0
    assert statement("done.append(1)", {"done": done})(4) >= 0
    assert len(done) == 7


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.000_000_041_26, "41.3 ns"),
        (0.000_001_5, "1.50 µs"),
        (0.002_346, "2.35 ms"),
        (123.4, "123 s"),
        (-0.002, "-2.00 ms"),
    ],
)
def test_times_are_shown_with_three_digits(seconds: float, text: str) -> None:
    """A time has three significant digits and a unit that fits."""
    assert shown(seconds) == text


@pytest.mark.parametrize(
    ("least", "value", "met"),
    [
        (False, 2.0, Met.GOAL),
        (False, 2.01, Met.MUST),
        (False, 4.0, Met.MUST),
        (False, 4.001, Met.MISSED),
        (True, 4.0, Met.GOAL),
        (True, 2.0, Met.MUST),
        (True, 1.999, Met.MISSED),
    ],
)
def test_a_bound_judges_the_unrounded_value(least: bool, value: float, met: Met) -> None:  # noqa: FBT001
    """The bounds themselves are inside; what is just beyond is not rounded in."""
    bound = Bound(must=2, goal=4, least=True) if least else Bound(must=4, goal=2)
    assert bound.judge(value) is met


def test_a_figure_shows_its_bounds() -> None:
    """A row says what was asked, with the unit."""
    row = Bound(must=50_000, goal=150_000, unit=" rows/s", least=True).figure(
        "export", "what", value=60_000, measured="60,000", floor="nothing"
    )
    assert (row.must, row.goal, row.met) == ("≥ 50,000 rows/s", "≥ 150,000 rows/s", Met.MUST)


def test_what_was_not_measured_is_not_missed() -> None:
    """A skipped row and one of which nothing is asked fail nothing."""
    assert skipped("peers", "what", "why").met is Met.SKIPPED
    assert noted("commit", "what", measured="1").met is Met.NOTED


def test_effort_scales_every_count() -> None:
    """A quick run measures less of everything, but never nothing."""
    assert Effort().of(60) == 60
    assert QUICK.of(60) == 3
    assert QUICK.of(200) == 10
