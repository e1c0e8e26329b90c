"""A stream that goes as it should: each frame extends the lease by what it proves, whatever its way took."""

from __future__ import annotations

from typing import Any

import pytest

from haltline.lease import lease_until, seconds
from haltline.renewal import Then
from haltline.verdict import Reason
from tests.support.exchange import Exchange, Stream, changed


def test_every_frame_is_dated_from_the_first() -> None:
    """From the request's t0 and the first frame's received_at: t0 + 499/500 of (read_at - received_at + ttl)."""
    exchange = Exchange()
    t0 = exchange.clock.read().boot
    seen: list[dict[str, Any]] = []
    stream = exchange.open(took=0.1, change=lambda frame: seen.append(dict(frame)))
    for _ in range(3):
        exchange.clock.advance(0.25)
        lease = stream.hear(change=lambda frame: seen.append(dict(frame)))
        span = seen[-1]["read_at"] - seen[0]["received_at"]
        assert span == pytest.approx(100_000 + 250_000 * (len(seen) - 1), abs=5)
        assert lease.until == seconds(lease_until(t0, span_us=span, ttl_ms=1000))
        assert stream.then is Then.READ


def test_a_frame_is_dated_from_its_read_and_not_from_its_arrival() -> None:
    """One that lay in a buffer for longer than its lease has expired when it comes; what it says of kills counts."""
    exchange = Exchange()
    stream = exchange.open()
    exchange.clock.advance(0.1)
    exchange.service.kill("run:r-1")
    lease = stream.hear(took=1.1)
    assert not exchange.live
    assert "run:r-1" in lease.replica.holds
    exchange.clock.advance(0.1)
    stream.hear()
    assert exchange.live


def test_the_ttl_is_that_of_each_frame() -> None:
    """Not that of the first: a ttl that was lowered counts from the next frame on, one that was raised too."""
    exchange = Exchange()
    t0 = exchange.clock.read().boot
    stream = exchange.open()
    exchange.clock.advance(1)
    assert stream.hear(change=lambda frame: frame.update(ttl_ms=200)).until == pytest.approx(t0 / 1e9 + 1.2, abs=0.01)
    assert stream.hear(change=lambda frame: frame.update(ttl_ms=5000)).until == pytest.approx(t0 / 1e9 + 6, abs=0.02)


def test_a_frame_never_moves_the_lease_back() -> None:
    """A ttl that was lowered does not revoke what was granted, and neither does an older read."""
    exchange = Exchange()
    stream = exchange.open()
    exchange.clock.advance(0.2)
    until = stream.hear().until
    assert stream.hear(change=lambda frame: frame.update(ttl_ms=200)).until == until
    assert stream.hear(change=lambda frame: frame.update(read_at=frame["read_at"] - 100_000)).until == until


def test_no_lease_of_a_stream_is_longer_than_five_seconds() -> None:
    """Whatever ttl a frame states."""
    exchange = Exchange()
    stream = exchange.open()
    stream.hear(change=lambda frame: frame.update(ttl_ms=3_600_000))
    exchange.clock.advance(5)
    assert not exchange.live


def test_a_frame_without_news_keeps_the_replica() -> None:
    """The same object, so that a run's memory of its verdict stays valid."""
    exchange = Exchange()
    stream = exchange.open()
    replica = exchange.lease.replica
    assert stream.hear().replica is replica


def test_flips_arrive_frame_by_frame() -> None:
    """Kill, revive and note: each moves the position; a blip between two frames is seen too."""
    exchange = Exchange()
    stream = exchange.open()
    exchange.service.kill("run:r-1")
    assert "run:r-1" in stream.hear().replica.holds
    exchange.service.revive("run:r-1")
    exchange.service.kill("run:r-2")
    exchange.service.revive("run:r-2")
    lease = stream.hear()
    assert (lease.replica.position, dict(lease.replica.holds)) == (exchange.service.position, {})
    assert lease.replica.marks["run:r-2"].last_kill == 4
    exchange.service.note("token_created")
    assert stream.hear().replica.position.seq == exchange.service.position.seq == 6


def test_a_stream_may_begin_where_the_client_is() -> None:
    """The first frame continues the position that the request stated."""
    exchange = Exchange()
    exchange.renew()
    exchange.service.kill("run:r-1")
    stream = exchange.open()
    assert (stream.then, exchange.seq, stream.ask.position.seq) == (Then.READ, 2, 1)


def test_entries_are_news_until_a_request_or_an_ack_has_told_of_them() -> None:
    """A snapshot is none: the request after it says the same."""
    exchange = Exchange()
    stream = exchange.open()
    news = [exchange.renewal.news]
    exchange.service.kill("run:r-1")
    stream.hear()
    news.append(exchange.renewal.news)
    told = exchange.renewal.ack()
    position = exchange.service.position
    assert told.decode() == (
        f'{{"epoch":"{exchange.service.epoch}","hash":"{position.hash}","instance":"instance-1",'
        f'"namespace":"default","seq":{position.seq},"worker":"worker-1"}}'
    )
    news.append(exchange.renewal.news)
    stream.hear()
    news.append(exchange.renewal.news)
    exchange.service.revive("run:r-1")
    stream.hear()
    news.append(exchange.renewal.news)
    exchange.ask(stream=True)
    news.append(exchange.renewal.news)
    assert news == [False, True, False, False, True, False]


def test_the_truth_is_dated_no_later_than_its_read() -> None:
    """So that whoever waits for a read after a moment never takes an older one for it."""
    exchange = Exchange()
    stream = exchange.open(took=0.2)
    exchange.clock.advance(5)
    read = exchange.clock.read().boot
    stream.hear(took=0.4)
    assert read - 0.003 * 5.2e9 < exchange.renewal.truth <= read
    before = exchange.renewal.truth
    stream.hear(change=lambda frame: frame.update(read_at=frame["read_at"] - 1_000_000))
    assert exchange.renewal.truth == before


@pytest.mark.parametrize(
    ("told", "within"), [(50, 0.05), (0, 0.0), (2_500, 2.5), (10**9, 30.0), (-1, 0.05), ("100", 0.05), (None, 0.05)]
)
def test_the_node_says_how_far_to_spread_acks(told: object, within: float) -> None:
    """In a stream's first frame, thirty seconds at most; what is no such figure changes nothing."""
    exchange = Exchange()
    stream = exchange.open(change=lambda frame: frame.update(ack_within_ms=told))
    assert (exchange.renewal.ack_within_s, stream.then, exchange.live) == (within, Then.READ, True)


# -- which frames of overlapping streams count -----------------------------------------------------------------------


def test_an_older_frame_of_another_stream_extends_nothing() -> None:
    """Normal at a hand-over: it is behind what this client knows, and no regress. It counts again once it is not."""
    exchange = Exchange()
    old, new = exchange.open(), exchange.open()
    behind = old.line()
    exchange.clock.advance(0.3)
    exchange.service.kill("run:r-1")
    before = new.hear()
    exchange.clock.advance(0.1)
    read_at = exchange.clock.read().raw // 1_000
    assert old.hear(changed(behind, lambda frame: frame.update(read_at=read_at))) is before
    assert (old.then,) == (Then.READ,)
    after = old.hear()
    assert after.until > before.until
    assert "run:r-1" in after.replica.holds


def test_an_older_first_frame_of_another_stream_extends_nothing() -> None:
    """Also with a snapshot, which never replaces what is newer; its stream goes on from there."""
    exchange = Exchange()
    slow = Stream(exchange)
    snapshot = slow.line()
    exchange.service.kill("run:r-1")
    exchange.open()
    before = exchange.lease
    exchange.clock.advance(0.2)
    assert slow.hear(snapshot) is before
    assert slow.then is Then.READ
    assert slow.hear().until > before.until


# -- when to ask again ------------------------------------------------------------------------------------------------


def test_after_an_orderly_end_the_client_asks_at_once() -> None:
    """The lease goes on meanwhile."""
    exchange = Exchange()
    stream = exchange.open()
    exchange.clock.advance(0.8)
    until = stream.hear().until
    assert stream.following.ended(exchange.clock.read()) is Then.ASK
    assert exchange.renewal.due == exchange.clock.read().boot
    assert exchange.lease.until == until


def test_a_node_that_ends_streams_at_once_is_not_hammered() -> None:
    """The next request comes a quarter of the ttl after the last one at the soonest."""
    exchange = Exchange(ttl_ms=2000)
    t0 = exchange.clock.read().boot
    stream = exchange.open(took=0.1)
    stream.following.ended(exchange.clock.read())
    assert exchange.renewal.due == t0 + 500_000_000


def test_a_stream_without_a_first_frame_has_failed() -> None:
    """It is not an end that asks for more at once."""
    exchange = Exchange()
    stream = exchange.open(change=lambda frame: frame.update(nonce="another-nonce-000"))
    assert stream.then is Then.LEAVE
    assert stream.following.ended(exchange.clock.read()) is Then.LEAVE
    assert exchange.lease.stop.reason is Reason.MALFORMED


@pytest.mark.parametrize("random", [0.0, 0.3, 0.999999])
def test_after_a_failure_the_pause_is_drawn(random: float) -> None:
    """From 50 to 150 ms the first time; the lease goes on meanwhile."""
    exchange = Exchange(random=random)
    stream = exchange.open()
    until = exchange.lease.until
    assert stream.following.failed("reset", exchange.clock.read()) is Then.LEAVE
    assert exchange.renewal.due - exchange.clock.read().boot == pytest.approx(5e7 + random * 1e8, abs=100)
    assert (exchange.lease.until, exchange.lease.stop.reason) == (until, Reason.UNREACHABLE)


def test_who_gives_a_stream_up_asks_at_once() -> None:
    """It is no failure, and nothing is lost."""
    exchange = Exchange()
    stream = exchange.open()
    lease = exchange.lease
    exchange.clock.advance(1)
    assert stream.following.left(exchange.clock.read()) is Then.ASK
    assert exchange.renewal.due == exchange.renewal.not_before == exchange.clock.read().boot
    assert exchange.lease is lease


# -- how long to wait, and for how long to stay -----------------------------------------------------------------------


def test_the_first_frame_has_the_deadline_of_the_whole_exchange() -> None:
    """The ttl, counted from before the request; a quarter of a second at least."""
    exchange = Exchange()
    exchange.open(change=lambda frame: frame.update(ttl_ms=200))
    stream = Stream(exchange)
    assert stream.following.left_s(exchange.clock.read()) == 0.25
    exchange.clock.advance(0.1)
    assert stream.following.left_s(exchange.clock.read()) == pytest.approx(0.15)


@pytest.mark.parametrize(("ttl_ms", "silence"), [(200, 0.2), (1000, 0.6), (5000, 3.0)])
def test_a_silent_stream_is_given_up_while_the_lease_still_runs(ttl_ms: int, silence: float) -> None:
    """After two missed beats, counted anew at every frame."""
    exchange = Exchange(ttl_ms=ttl_ms)
    stream = exchange.open()
    for _ in range(3):
        assert stream.following.left_s(exchange.clock.read()) == pytest.approx(silence)
        exchange.clock.advance(ttl_ms / 4000)
        assert stream.following.left_s(exchange.clock.read()) == pytest.approx(silence - ttl_ms / 4000)
        stream.hear()
    exchange.clock.advance(60)
    assert 0 < stream.following.left_s(exchange.clock.read()) < 0.01


def test_frames_that_have_expired_when_they_come_do_not_keep_a_stream() -> None:
    """A stream that is always late is worth no more than a silent one; after a pause its backlog is read."""
    exchange = Exchange()
    stream = exchange.open()
    late = []
    for _ in range(8):
        exchange.clock.advance(0.25)
        late.append(stream.line())
    exchange.clock.advance(2)
    stream.hear(late[0])
    live = [exchange.live]
    assert stream.following.left_s(exchange.clock.read()) == pytest.approx(0.6)
    exchange.clock.advance(0.25)
    stream.hear(late[1])
    live.append(exchange.live)
    assert stream.following.left_s(exchange.clock.read()) == pytest.approx(0.35)
    stream.hear()
    live.append(exchange.live)
    assert stream.following.left_s(exchange.clock.read()) == pytest.approx(0.6)
    assert live == [False, False, True]


def test_a_stream_older_than_ten_seconds_is_dropped() -> None:
    """On the client's clock, whatever its node thinks: the next one is asked for at once, and nothing is taken."""
    exchange = Exchange()
    stream = exchange.open()
    for _ in range(39):
        exchange.clock.advance(0.25)
        stream.hear()
    lease = exchange.lease
    assert (stream.then,) == (Then.READ,)
    assert stream.following.left_s(exchange.clock.read()) == pytest.approx(0.25)
    exchange.clock.advance(0.25)
    assert stream.hear() is lease
    assert stream.then is Then.ASK
    assert exchange.renewal.due == exchange.clock.read().boot


def test_a_stream_that_falls_silent_at_its_end_is_no_failure() -> None:
    """Ten seconds after it began the client has no use for it anyway."""
    exchange = Exchange()
    stream = exchange.open()
    exchange.clock.advance(10)
    assert stream.following.failed("no frame in time", exchange.clock.read()) is Then.ASK
    assert exchange.renewal.due == exchange.clock.read().boot
