"""What disagreeing clocks do to a stream, at each of its frames, against the clocks as its request was begun."""

from __future__ import annotations

import pytest

from haltline.lease import Drift, lease_until, seconds
from haltline.renewal import Then
from haltline.verdict import Reason
from tests.support.exchange import Exchange, Stream

AGAIN: int = 20_000_000


def under_way(*, ttl_ms: int = 1000) -> tuple[Exchange, Stream]:
    """Return a client that has read one frame of a stream, a quarter of a second in."""
    exchange = Exchange(ttl_ms=ttl_ms)
    stream = exchange.open()
    exchange.clock.advance(0.25)
    stream.hear()
    return exchange, stream


def test_a_wall_clock_that_ran_ahead_drops_the_lease() -> None:
    """Over 100 ms since the request: the lease clock may have stood still. It is asked anew within 20 ms."""
    exchange, stream = under_way()
    exchange.clock.shift(real=0.1001)
    lease = stream.hear()
    assert (exchange.live, lease.stop.reason, stream.then) == (False, Reason.CLOCK, Then.ASK)
    assert exchange.renewal.due == exchange.clock.read().boot + AGAIN
    exchange.open()
    assert exchange.live


def test_small_steps_of_the_wall_clock_add_up() -> None:
    """What counts is the whole time since the request, not that since the last frame."""
    exchange, stream = under_way()
    for _ in range(4):
        exchange.clock.shift(real=0.02)
        stream.hear()
        assert exchange.live
    exchange.clock.shift(real=0.03)
    stream.hear()
    assert not exchange.live


def test_what_a_frame_says_is_taken_even_where_the_clocks_are_not_trusted() -> None:
    """A kill is heard although no lease is granted."""
    exchange, stream = under_way()
    exchange.service.kill("run:r-1")
    exchange.clock.shift(real=5)
    assert "run:r-1" in stream.hear().replica.holds


def test_a_read_later_than_now_drops_the_lease() -> None:
    """The node's clock says that more time passed than this machine's lease clock counted: it stood still."""
    exchange, stream = under_way()
    lease = stream.hear(change=lambda frame: frame.update(read_at=frame["read_at"] + 2_000))
    assert (exchange.live, lease.stop.reason, stream.then) == (False, Reason.CLOCK, Then.ASK)
    assert exchange.renewal.due == exchange.clock.read().boot + AGAIN


def test_a_read_that_is_later_by_ordinary_drift_is_trusted() -> None:
    """A millisecond, and a five-hundredth of the stream's age."""
    exchange, stream = under_way()
    stream.hear(change=lambda frame: frame.update(read_at=frame["read_at"] + 1_400))
    assert (exchange.live, stream.then) == (True, Then.READ)


def test_a_lease_clock_that_went_back_drops_the_lease() -> None:
    """It proves nothing any more."""
    exchange, stream = under_way()
    exchange.clock.shift(boot=-0.3)
    stream.hear()
    assert not exchange.live


def test_a_wall_clock_set_back_keeps_the_lease_and_asks_again() -> None:
    """It harms no lease: the frame still extends it."""
    exchange, stream = under_way()
    until = exchange.lease.until
    exchange.clock.advance(0.25)
    exchange.clock.shift(real=-60)
    stream.hear()
    assert exchange.lease.until > until
    assert stream.then is Then.ASK
    assert exchange.renewal.due == exchange.clock.read().boot + AGAIN
    assert exchange.open().then is Then.READ


def test_a_hard_slew_drops_the_lease_once_then_grants_nine_tenths() -> None:
    """The first frame that shows it ends stream and lease; from then on a tenth is given up, and nobody is stopped."""
    exchange, stream = under_way()
    exchange.clock.shift(boot=0.25, real=0.25, mono=0.25, raw=0.27)
    lease = stream.hear()
    assert (exchange.live, lease.stop.reason, stream.then) == (False, Reason.CLOCK, Then.ASK)
    t0 = exchange.clock.read().boot
    stream = exchange.open()
    assert exchange.lease.until == seconds(lease_until(t0, span_us=1, ttl_ms=1000, drift=Drift.SLEWING))
    for _ in range(4):
        exchange.clock.shift(boot=0.25, real=0.25, mono=0.25, raw=0.27)
        stream.hear()
        assert (exchange.live, stream.then) == (True, Then.READ)


def test_while_the_clocks_disagree_streams_are_short() -> None:
    """A tenth of a stream's age is given up, so it is asked anew before that costs the lease: after two ttl."""
    exchange, stream = under_way()
    exchange.clock.shift(boot=0.25, real=0.25, mono=0.25, raw=0.27)
    stream.hear()
    stream = exchange.open()
    frames = 0
    while stream.then is Then.READ:
        exchange.clock.shift(boot=0.25, real=0.25, mono=0.25, raw=0.27)
        stream.hear()
        assert exchange.live
        frames += 1
    assert (frames, stream.then) == (8, Then.ASK)
    assert exchange.renewal.due == exchange.clock.read().boot


@pytest.mark.parametrize("ttl_ms", [200, 1000, 5000])
def test_a_slew_of_half_a_percent_stops_a_client_once(ttl_ms: int) -> None:
    """Stream after stream, for a long time: one drop, at the first frame that can show it, and never again."""
    exchange = Exchange(ttl_ms=ttl_ms)
    stream = exchange.open()
    drops = 0
    for _ in range(160):
        beat = ttl_ms / 4000
        exchange.clock.shift(boot=beat, real=beat, mono=beat, raw=beat * 1.005)
        stream.hear()
        drops += not exchange.live
        if stream.then is not Then.READ:
            stream = exchange.open()
    assert drops == 1


def test_a_slew_that_takes_a_whole_stream_to_show_is_found() -> None:
    """What counts is the difference since the request: a little more than a thousandth needs over eight seconds."""
    exchange = Exchange()
    stream = exchange.open()
    frames = 0
    while stream.then is Then.READ:
        exchange.clock.shift(boot=0.25, real=0.25, mono=0.25, raw=0.25 * 1.00112)
        stream.hear()
        frames += 1
    assert 32 < frames < 40
    assert (exchange.live, exchange.lease.stop.reason) == (False, Reason.CLOCK)


def test_clocks_that_agree_again_are_trusted_again() -> None:
    """Once no slew shows in the last eight seconds, leases are whole and streams long again."""
    exchange, stream = under_way()
    exchange.clock.shift(raw=0.02)
    stream.hear()
    stream = exchange.open()
    for _ in range(40):
        exchange.clock.advance(0.25)
        stream.hear()
        if stream.then is not Then.READ:
            stream = exchange.open()
    t0 = exchange.clock.read().boot
    exchange.open()
    assert exchange.lease.until == seconds(lease_until(t0, span_us=1, ttl_ms=1000))
    assert exchange.renewal.age_max_ns == 10_000_000_000


@pytest.mark.parametrize("ppm", [-500, 500])
def test_an_ordinary_adjustment_of_the_clock_is_no_slew(ppm: int) -> None:
    """Time synchronisation steers by up to 500 ppm, for hours; streams last as long as ever."""
    exchange = Exchange()
    stream = exchange.open()
    streams = 1
    for _ in range(400):
        exchange.clock.shift(boot=0.25, real=0.25, mono=0.25, raw=0.25 * (1 + ppm / 1e6))
        stream.hear()
        assert exchange.live
        if stream.then is not Then.READ:
            stream, streams = exchange.open(), streams + 1
    assert streams <= 11
