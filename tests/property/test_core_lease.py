"""Laws of the lease: it never outlives the truth by more than its ttl, and expired never says go."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

import pytest
from hypothesis import assume, event, example, given, settings
from hypothesis import strategies as st

from haltline.lease import SPAN_MAX_US, TTL_MAX_MS, Drift, lease_until, seconds
from tests.support.counts import NIGHTLY

pytestmark = pytest.mark.timeout(1_800 if NIGHTLY else 60)  # the full counts take minutes

many = settings(max_examples=10_000 if NIGHTLY else 500)

SECOND: Final = 1_000_000_000
YEAR: Final = 366 * 86_400 * SECOND

spans = st.integers(1, SPAN_MAX_US)
ttls = st.integers(1, 10_000)
moments = st.integers(0, YEAR)
drifts = st.sampled_from(Drift)
rates = st.integers(-1_000, 1_000)
"""How far a clock runs wrong, parts in a million: up to a thousandth either way."""


@many
@given(moments, spans, ttls, drifts)
def test_a_lease_ends_within_what_was_proven(t0: int, span_us: int, ttl_ms: int, drift: Drift) -> None:
    """It ends after t0, and at most span and ttl later, less the part that is given up for drift."""
    until = lease_until(t0, span_us=span_us, ttl_ms=ttl_ms, drift=drift)
    exact = t0 + Fraction(drift.value, 500) * (span_us * 1_000 + min(ttl_ms, TTL_MAX_MS) * 1_000_000)
    assert until == exact
    assert t0 < until < t0 + span_us * 1_000 + TTL_MAX_MS * 1_000_000


@many
@given(moments, spans, spans, ttls, ttls)
def test_more_proof_never_shortens_a_lease(t0: int, span: int, other: int, ttl: int, longer: int) -> None:
    """A later read or a longer ttl ends no earlier; a slew never ends later."""
    span, other = sorted((span, other))
    ttl, longer = sorted((ttl, longer))
    until = lease_until(t0, span_us=span, ttl_ms=ttl)
    assert until <= lease_until(t0, span_us=other, ttl_ms=longer)
    assert lease_until(t0, span_us=span, ttl_ms=ttl, drift=Drift.SLEWING) <= until
    assert lease_until(t0 + 1, span_us=span, ttl_ms=ttl) == until + 1


@many
@given(st.integers(0, 2**63))
@example(2**53 + 1)
@example(9_007_199_254_740_993_000)
def test_seconds_are_below_the_moment(nanoseconds: int) -> None:
    """However long the machine has been up, the float is below the exact moment."""
    assert Fraction(seconds(nanoseconds)) < Fraction(nanoseconds, 10**9)


@many
@given(st.integers(0, 2**53), st.integers(-3, 3))
def test_expired_never_says_go(until: int, off: int) -> None:
    """A clock that shows the end of the lease, or later, in floating point, does not pass the check's comparison."""
    reading = until + off
    assume(0 <= reading <= 2**53)
    if reading / 1e9 < seconds(until):  # what a check compares: the clock's float with the lease's
        assert reading < until


def shows(real: int, rate: int, offset: int) -> int:
    """Return what a clock that runs wrong by ``rate`` parts in a million shows at a real time, ns, rounded down."""
    return offset + real * (1_000_000 + rate) // 1_000_000


@many
@given(
    client=rates,
    node=rates,
    booted=moments,
    started=moments,
    travel=st.integers(0, 2 * SECOND),
    waited=st.integers(1_000, 15 * SECOND),
    commit=st.integers(0, 3 * SECOND),
    ttl_ms=st.integers(200, TTL_MAX_MS),
    looked=st.integers(0, 10 * SECOND),
)
def test_no_lease_outlives_the_truth_by_more_than_ttl(
    *,
    client: int,
    node: int,
    booted: int,
    started: int,
    travel: int,
    waited: int,
    commit: int,
    ttl_ms: int,
    looked: int,
) -> None:
    """On any timeline, with clocks off by a thousandth: a kill that the read missed stops everybody by F + ttl.

    In real nanoseconds: the client stamps t0 at 0; the node receives after ``travel`` and reads ``waited`` later; the
    kill is acknowledged at F, ``commit`` after that read began, which is why the read could miss it. However late the
    reply arrives, a check at F + ttl or later does not pass.
    """
    read = travel + waited
    acknowledged = read + commit
    received_at = -(-shows(travel, node, started) // 1_000)
    read_at = shows(read, node, started) // 1_000
    assume(0 < read_at - received_at <= SPAN_MAX_US)
    until = lease_until(shows(0, client, booted), span_us=read_at - received_at, ttl_ms=ttl_ms)
    check = acknowledged + ttl_ms * 1_000_000 + looked
    event("the kill came at once" if commit == 0 else "the kill came later")
    assert shows(check, client, booted) >= until
