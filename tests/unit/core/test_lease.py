"""For how long a lease lasts, and what the clocks have to say to it."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from haltline.lease import (
    NEVER,
    REALTIME_TOLERANCE_NS,
    SPAN_MAX_US,
    TTL_MAX_MS,
    WATCH_NS,
    ClockState,
    Drift,
    Lease,
    Readings,
    Watch,
    clock_state,
    lease_until,
    seconds,
    slewed,
    watch_from,
)
from haltline.verdict import Reason

MS = 1_000_000
SECOND = 1_000_000_000
THEN = Readings(10**15, 1_700_000_000 * SECOND, 9 * 10**14, 9 * 10**14)


def later(passed: int, *, real: int = 0, mono: int = 0, raw: int = 0) -> Readings:
    """Return the clocks ``passed`` ns after THEN, some of them off by that many ns."""
    return Readings(THEN.boot + passed, THEN.real + passed + real, THEN.mono + passed + mono, THEN.raw + passed + raw)


def test_a_lease_is_dated_from_when_the_truth_was_read() -> None:
    """499/500 of the time from receiving the request to reading the truth, and of the ttl, after t0."""
    assert lease_until(0, span_us=1_000, ttl_ms=1_000) == 998_998_000
    assert lease_until(7 * SECOND, span_us=1_000, ttl_ms=1_000) == 7_998_998_000


def test_a_lease_is_exact() -> None:
    """Span and ttl are whole microseconds, of which 499/500 is a whole number of nanoseconds: nothing is rounded."""
    assert lease_until(0, span_us=1, ttl_ms=1) == Fraction(499, 500) * 1_001_000
    assert lease_until(-1, span_us=1, ttl_ms=1) == lease_until(0, span_us=1, ttl_ms=1) - 1


def test_no_ttl_counts_beyond_five_seconds() -> None:
    """Whatever the service states, no lease lasts longer."""
    longest = lease_until(0, span_us=1, ttl_ms=TTL_MAX_MS)
    assert lease_until(0, span_us=1, ttl_ms=TTL_MAX_MS + 1) == longest
    assert lease_until(0, span_us=1, ttl_ms=2**53 - 1) == longest
    assert longest < 5 * SECOND


def test_a_tenth_is_given_up_while_the_clocks_disagree() -> None:
    """While slewing, 9/10 are kept instead of 499/500."""
    assert lease_until(0, span_us=1_000, ttl_ms=1_000, drift=Drift.SLEWING) == 900_900_000
    assert [each.value for each in Drift] == [499, 450]


@pytest.mark.parametrize(
    ("span_us", "ttl_ms"), [(0, 1_000), (-1, 1_000), (SPAN_MAX_US + 1, 1_000), (1, 0), (1, -1_000)]
)
def test_without_proof_there_is_no_lease(span_us: int, ttl_ms: int) -> None:
    """A read that did not begin after the request, or far too late after it, or no ttl, grants nothing."""
    with pytest.raises(ValueError, match="no lease"):
        lease_until(0, span_us=span_us, ttl_ms=ttl_ms)


def test_the_longest_span_is_accepted() -> None:
    """Fifteen seconds between request and read are the most."""
    assert lease_until(0, span_us=SPAN_MAX_US, ttl_ms=1) == (15 * SECOND + MS) * 499 // 500


@pytest.mark.parametrize("nanoseconds", [0, 1, 999, 10**9, 2**53, 2**53 + 1, 2**60 + 123_456_789, 10**18 - 1, -1])
def test_a_moment_in_seconds_is_never_rounded_up(nanoseconds: int) -> None:
    """The float is below the moment, by no more than two of its steps."""
    moment = Fraction(nanoseconds, 10**9)
    shown = seconds(nanoseconds)
    assert Fraction(shown) < moment
    assert moment - Fraction(shown) <= 2 * Fraction(math.ulp(shown))


def test_the_first_lease_has_expired() -> None:
    """A process starts without permission, on a replica of nothing, and says that it is not ready."""
    assert NEVER.until == -math.inf
    assert NEVER.replica.position.seq == 0
    assert NEVER.stop.reason is Reason.NOT_READY


def test_leases_are_compared_by_identity() -> None:
    """Two leases are never taken for the same one."""
    assert Lease(NEVER.replica, NEVER.until, NEVER.stop) != NEVER


@pytest.mark.parametrize(
    ("now", "state"),
    [
        (later(0), ClockState.STEADY),
        (later(SECOND), ClockState.STEADY),
        (later(SECOND, real=REALTIME_TOLERANCE_NS), ClockState.STEADY),
        (later(SECOND, real=REALTIME_TOLERANCE_NS + 1), ClockState.AHEAD),
        (later(SECOND, real=3600 * SECOND), ClockState.AHEAD),
        (later(-1), ClockState.AHEAD),
        (later(SECOND, real=-REALTIME_TOLERANCE_NS), ClockState.STEADY),
        (later(SECOND, real=-REALTIME_TOLERANCE_NS - 1), ClockState.BEHIND),
        (later(SECOND, mono=2 * MS), ClockState.STEADY),
        (later(SECOND, mono=2 * MS + 1), ClockState.SLEWED),
        (later(SECOND, mono=-2 * MS), ClockState.STEADY),
        (later(SECOND, mono=-2 * MS - 1), ClockState.SLEWED),
        (later(0, mono=MS), ClockState.STEADY),
        (later(0, mono=MS + 1), ClockState.SLEWED),
        (later(SECOND, real=SECOND, mono=SECOND), ClockState.AHEAD),
        (later(SECOND, real=-SECOND, mono=SECOND), ClockState.SLEWED),
        (Readings(THEN.boot + 9 * SECOND, THEN.real + 9 * SECOND, THEN.mono, THEN.raw), ClockState.STEADY),
        (Readings(THEN.boot, THEN.real + 9 * SECOND, THEN.mono, THEN.raw), ClockState.AHEAD),
    ],
)
def test_what_the_clocks_say(now: Readings, state: ClockState) -> None:
    """Each anomaly is told at its threshold and not before, the worst first; a counted sleep is none."""
    assert clock_state(THEN, now) is state


def test_a_slew_is_told_over_a_longer_time() -> None:
    """What a short exchange hides in its millisecond of tolerance shows over the watch."""
    assert not slewed(THEN, later(5 * MS, mono=MS))
    assert slewed(THEN, later(WATCH_NS, mono=WATCH_NS // 1_000 + MS + 1))
    assert slewed(THEN, later(WATCH_NS, mono=-(WATCH_NS // 1_000) - MS - 1))


def test_a_watch_begins_with_the_first_exchange() -> None:
    """Without a watch, after a long pause, or after a clock that ran backwards, it begins anew."""
    fresh = Watch(THEN, THEN)
    assert watch_from(None, THEN) == fresh
    for pause in (2 * WATCH_NS, -1):
        now = later(pause)
        assert watch_from(fresh, now) == Watch(now, now)


def test_a_watch_reaches_back_one_to_two_times_its_length() -> None:
    """Exchange by exchange it moves on, and its older reading is never older than promised nor much younger."""
    watch = Watch(THEN, THEN)
    for step in range(1, 100):
        now = later(step * WATCH_NS // 7)
        watch = watch_from(watch, now)
        back = now.boot - watch.older.boot
        assert back <= 2 * WATCH_NS
        assert back >= WATCH_NS or step < 7
