"""For how long a lease is granted, when the next is asked for, and what disagreeing clocks do to both."""

from __future__ import annotations

import pytest

from haltline.lease import NEVER, Drift, lease_until, seconds
from haltline.verdict import Reason
from tests.support.exchange import Exchange


def test_the_first_lease_is_already_expired() -> None:
    """A process starts with no permission and no knowledge."""
    exchange = Exchange()
    assert exchange.lease is NEVER
    assert not exchange.live


def test_a_lease_is_dated_from_before_the_request() -> None:
    """What the exchange took is taken off the lease: t0 + 499/500 of (span + ttl)."""
    exchange = Exchange()
    t0 = exchange.clock.read().boot
    until = exchange.renew(took=0.4).until
    assert until == seconds(t0 + (1_000 + 1_000_000_000) * 499 // 500)


def test_a_reply_read_too_late_has_already_expired() -> None:
    """What it says of kills is taken all the same."""
    exchange = Exchange()
    exchange.service.kill("run:r-1")
    lease = exchange.renew(took=1.1)
    assert not exchange.live
    assert "run:r-1" in lease.replica.holds


def test_a_read_that_waited_dates_the_lease_from_the_read() -> None:
    """The time between request and read is added, up to 15 s, since the truth was read that much later."""
    exchange = Exchange()
    t0 = exchange.clock.read().boot
    frame = {"received_at": 1, "read_at": 15_000_001}
    until = exchange.renew(took=15.2, change=lambda members: members.update(frame)).until
    assert until == seconds(t0 + (15_000_000_000 + 1_000_000_000) * 499 // 500)
    assert exchange.live


def test_no_lease_is_longer_than_five_seconds() -> None:
    """Whatever ttl a service states."""
    exchange = Exchange(ttl_ms=3_600_000)
    t0 = exchange.clock.read().boot
    assert exchange.renew().until <= (t0 + 5_000_001_000) / 1e9 * 1.0
    exchange.clock.advance(5)
    assert not exchange.live
    assert exchange.renewal.deadline_s == 5


def test_an_older_exchange_never_shortens_a_newer_lease() -> None:
    """A service that lowers its ttl does not revoke what it granted."""
    exchange = Exchange(ttl_ms=1000)
    until = exchange.renew().until
    assert exchange.renew(change=lambda frame: frame.update(ttl_ms=200)).until == until


@pytest.mark.parametrize("ttl_ms", [1, 200, 1000, 5000])
def test_renewal_is_due_after_a_third_of_the_ttl(ttl_ms: int) -> None:
    """Counted from t0, and never sooner than 20 ms, whatever ttl a service states."""
    exchange = Exchange(ttl_ms=ttl_ms)
    t0 = exchange.clock.read().boot
    exchange.renew(took=0.001)
    assert exchange.renewal.due == t0 + max(ttl_ms * 1_000_000 // 3, 20_000_000)


def waits(exchange: Exchange, failures: int) -> list[float]:
    """Return the pauses after so many failed exchanges, seconds."""
    pauses = []
    for _ in range(failures):
        now = exchange.clock.read()
        exchange.ask()
        exchange.renewal.unanswered("down", now)
        pauses.append((exchange.renewal.due - now.boot) / 1e9)
    return pauses


@pytest.mark.parametrize("random", [0.0, 0.3, 0.999999])
def test_retries_are_spread_between_50_ms_and_1_s(random: float) -> None:
    """However long the outage, and wherever the draw falls."""
    assert all(0.05 <= pause <= 1.0 for pause in waits(Exchange(random=random), 50))


def test_retries_slow_down_and_begin_anew_after_a_success() -> None:
    """A long outage is asked about less often; after it the pauses are short again."""
    exchange = Exchange(random=0.999999)
    first, *_, last = waits(exchange, 10)
    assert first == pytest.approx(0.15, abs=1e-3)
    assert last == 1.0
    exchange.renew()
    assert waits(exchange, 1) == [first]


def test_nobody_may_ask_in_the_pause_after_a_failure() -> None:
    """After a failure the next request may not come before it is due, however urgent; after a success it may."""
    exchange = Exchange()
    waits(exchange, 3)
    assert exchange.renewal.not_before == exchange.renewal.due
    exchange.renew()
    assert exchange.renewal.not_before == 0
    assert exchange.renewal.due > exchange.clock.read().boot


@pytest.mark.parametrize("random", [0.0, 0.5, 0.999999])
def test_a_request_that_hung_has_waited_already(random: float) -> None:
    """The pause counts from the request, so that a service that is back is asked within its ttl and 150 ms."""
    exchange = Exchange(random=random)
    waits(exchange, 10)
    ask = exchange.ask()
    exchange.clock.advance(exchange.renewal.deadline_s)
    now = exchange.clock.read()
    exchange.renewal.unanswered("no whole reply in time", now)
    assert exchange.renewal.due - now.boot == pytest.approx(50_000_000 + random * 100_000_000, abs=100)
    assert exchange.renewal.due - ask.t0.boot <= 1_150_000_000


def test_the_draw_spreads_the_retries() -> None:
    """Two clients that draw differently do not come back in step."""
    assert waits(Exchange(random=0.1), 5) != waits(Exchange(random=0.9), 5)


def test_a_wall_clock_that_ran_ahead_drops_the_lease() -> None:
    """Over 100 ms: the lease clock may have stood still. It is asked for anew within 20 ms, and then granted."""
    exchange = Exchange()
    exchange.renew()
    ask = exchange.ask()
    reply = exchange.reply(ask)
    exchange.clock.shift(real=0.1001)
    lease = exchange.renewal.answered(ask, reply, exchange.clock.read())
    assert (exchange.live, lease.stop.reason) == (False, Reason.CLOCK)
    assert exchange.renewal.due == exchange.clock.read().boot + 20_000_000
    exchange.renew()
    assert exchange.live


def test_what_a_frame_says_is_taken_even_where_the_clocks_are_not_trusted() -> None:
    """A kill is heard although no lease is granted."""
    exchange = Exchange()
    exchange.service.kill("run:r-1")
    ask = exchange.ask()
    reply = exchange.reply(ask)
    exchange.clock.shift(real=5)
    assert "run:r-1" in exchange.renewal.answered(ask, reply, exchange.clock.read()).replica.holds


def test_a_wall_clock_within_100_ms_is_trusted() -> None:
    """The tolerance itself is no anomaly."""
    exchange = Exchange()
    ask = exchange.ask()
    reply = exchange.reply(ask)
    exchange.clock.shift(real=0.1)
    exchange.renewal.answered(ask, reply, exchange.clock.read())
    assert exchange.live


def test_a_wall_clock_set_back_keeps_the_lease_and_asks_again() -> None:
    """It harms no lease."""
    exchange = Exchange()
    ask = exchange.ask()
    reply = exchange.reply(ask)
    exchange.clock.shift(real=-60)
    exchange.renewal.answered(ask, reply, exchange.clock.read())
    assert exchange.live
    assert exchange.renewal.due == exchange.clock.read().boot + 20_000_000


def test_a_lease_clock_that_went_back_drops_the_lease() -> None:
    """It proves nothing any more."""
    exchange = Exchange()
    ask = exchange.ask()
    reply = exchange.reply(ask)
    exchange.clock.shift(boot=-0.0005)
    exchange.renewal.answered(ask, reply, exchange.clock.read())
    assert not exchange.live


def test_a_read_later_than_now_drops_the_lease() -> None:
    """The service's clock says that more time passed than this machine's lease clock counted."""
    exchange = Exchange()
    exchange.renew()
    change = {"received_at": 1, "read_at": 1_500_000}
    lease = exchange.renew(took=0.5, change=lambda frame: frame.update(change))
    assert (exchange.live, lease.stop.reason) == (False, Reason.CLOCK)


def test_a_hard_slew_drops_the_lease_once_then_grants_nine_tenths() -> None:
    """And asks again at its usual pace: asking more often would not end the slew."""
    exchange = Exchange()
    exchange.renew()
    exchange.clock.shift(boot=0.3, real=0.3, mono=0.3, raw=0.32)
    lease = exchange.renew()
    assert (exchange.live, lease.stop.reason) == (False, Reason.CLOCK)
    t0 = exchange.clock.read().boot
    assert exchange.renew().until == seconds(lease_until(t0, span_us=1, ttl_ms=1000, drift=Drift.SLEWING))
    assert exchange.renewal.due == t0 + 333_333_333


def test_a_slew_of_half_a_percent_is_found_across_exchanges() -> None:
    """Each exchange is too short to show it; a few seconds of them are not. It does not stop the client twice."""
    exchange = Exchange()
    granted = []
    for _ in range(60):
        granted.append(exchange.renew().until > 0)
        exchange.clock.shift(boot=0.33, real=0.33, mono=0.33, raw=0.33 * 1.005)
    assert granted.count(False) == 1
    t0 = exchange.clock.read().boot
    assert exchange.renew().until == seconds(lease_until(t0, span_us=1, ttl_ms=1000, drift=Drift.SLEWING))


def test_clocks_that_agree_again_are_trusted_again() -> None:
    """Once no slew shows in the last eight seconds, the lease is whole again."""
    exchange = Exchange()
    exchange.renew()
    exchange.clock.shift(raw=0.02)
    for _ in range(60):
        exchange.renew()
        exchange.clock.advance(0.33)
    t0 = exchange.clock.read().boot
    assert exchange.renew().until == seconds(lease_until(t0, span_us=1, ttl_ms=1000))


def test_an_ordinary_adjustment_of_the_clock_is_no_slew() -> None:
    """Time synchronisation steers by up to 500 ppm, for hours."""
    exchange = Exchange()
    for _ in range(100):
        assert exchange.renew().until > 0
        exchange.clock.shift(boot=0.33, real=0.33, mono=0.33, raw=0.33 * 1.0005)
