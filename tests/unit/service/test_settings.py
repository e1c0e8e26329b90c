"""Settings: a lowered ttl is dated by this node's clock, and so refused where that is known to be wrong."""

from __future__ import annotations

from functools import partial

import pytest
from structlog.testing import capture_logs

from app.service.settings import ClocksApart, Settings
from app.service.skew import Skew
from app.service.store import StoreUnavailable, Ttl
from tests.unit.service.fakes import ManualClocks, MemoryStore


def build(ahead_s: float | None, *, takes_s: float = 0.0) -> tuple[Settings, Skew, MemoryStore]:
    """Return the use case on a node whose clock is so far ahead of the database's, which takes so long to answer."""
    store, clocks = MemoryStore(), ManualClocks()

    def clock() -> float | None:
        clocks.pass_s(takes_s / 2)
        told = None if ahead_s is None else clocks.wall() - ahead_s
        clocks.pass_s(takes_s / 2)
        return told

    store.clock = clock
    skew = Skew(store, clocks)
    return Settings(store, clocks, skew, ring=lambda _: None), skew, store


@pytest.mark.parametrize("ahead_s", [1.2, -1.2, 86_400.0])
def test_a_wrong_clock_lowers_nothing(ahead_s: float) -> None:
    """Over a second apart the ttl is not lowered, and the refusal says by how much, which way, and what to do."""
    settings, _, store = build(ahead_s)
    with pytest.raises(ClocksApart, match="ahead of" if ahead_s > 0 else "behind") as refused:
        settings.change(ttl_ms=500, actor="ada")
    assert f"{abs(ahead_s):.1f} s" in str(refused.value)
    assert "time service" in str(refused.value)
    assert (store.ttl, store.rows) == (Ttl(1_000), [])


@pytest.mark.parametrize("ahead_s", [None, 0.0, 0.9, -0.9])
def test_a_clock_that_is_near_lowers_it(ahead_s: float | None) -> None:
    """Within a second, and where the database has no clock of its own, nothing is refused."""
    settings, _, _ = build(ahead_s)
    assert settings.change(ttl_ms=500, actor="ada").ttl.ttl_ms == 500


def test_what_needs_no_clock_is_never_refused() -> None:
    """A ttl as long as every lease that may still run is taken, and so is the one that is set already."""
    settings, _, store = build(5.0)
    assert settings.change(ttl_ms=1_000, actor="ada").seq is None
    assert settings.change(ttl_ms=2_000, actor="ada").ttl.ttl_ms == 2_000
    store.ttl = Ttl(200, 1_800_000_000.0, 5_000)
    assert settings.change(ttl_ms=200, actor="ada").seq is None
    with pytest.raises(ClocksApart):
        settings.change(ttl_ms=400, actor="ada")  # raised, but to less than what may still run
    store.ttl = Ttl(200, float("inf"), 5_000)
    with pytest.raises(ClocksApart):
        settings.change(ttl_ms=200, actor="ada")  # it would be settled by this clock
    assert settings.change(ttl_ms=5_000, actor="ada").ttl.ttl_ms == 5_000


def test_a_slow_answer_is_no_difference() -> None:
    """What the question took is not taken for a difference, and a real one is not hidden by it."""
    for ahead_s, at_least in ((0.0, 0.0), (0.9, 0.0), (5.0, 4.0), (-5.0, -4.0)):
        _, skew, _ = build(ahead_s, takes_s=2.0)
        assert skew.measure() == pytest.approx(at_least)


@pytest.mark.parametrize(("ahead_s", "warned"), [(0.4, False), (-0.4, False), (0.6, True), (-0.6, True), (None, False)])
def test_clocks_that_drift_apart_are_told_of(ahead_s: float | None, *, warned: bool) -> None:
    """From half a second on the journal says so, before anything is refused."""
    _, skew, _ = build(ahead_s)
    with capture_logs() as journal:
        assert skew.measure() == (None if ahead_s is None else pytest.approx(ahead_s))
    assert [each["event"] for each in journal] == ["clocks_apart"] * warned
    assert skew.seconds == (None if ahead_s is None else pytest.approx(ahead_s))


def test_a_clock_that_stays_wrong_is_told_of_once() -> None:
    """Measured every minute, it would fill the journal; that it is right again is told, and that it went wrong anew."""
    _, skew, store = build(0.0)
    with capture_logs() as journal:
        for ahead_s in (2.0, 2.1, 0.0, 0.1, -2.0):
            store.clock = partial(float, ManualClocks().wall() - ahead_s)
            skew.measure()
    assert [each["event"] for each in journal] == ["clocks_apart", "clocks_together_again", "clocks_apart"]


def test_a_clock_that_cannot_be_asked_changes_nothing() -> None:
    """A database that does not answer is not taken for one whose clock is right."""
    settings, _, store = build(0.0)
    store.failure = StoreUnavailable("gone")
    with pytest.raises(StoreUnavailable):
        settings.change(ttl_ms=500, actor="ada")
    store.failure = None
    assert store.rows == []
