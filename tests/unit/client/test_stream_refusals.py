"""A later frame that breaks a rule: nothing is taken from it, and what it proves decides what becomes of the stream."""

from __future__ import annotations

from typing import Any, Final

import pytest

from haltline.flips import Position, seal
from haltline.renewal import Then
from haltline.verdict import Reason
from tests.support.exchange import Exchange, Stream, Tamper

KEPT: Final = False
DROPPED: Final = True


def put(**members: Any) -> Tamper:
    """Return what sets members of a frame."""
    return lambda frame: frame.update(members)


def without(name: str) -> Tamper:
    """Return what takes a member out of a frame."""
    return lambda frame: frame.pop(name)


def entry(**members: Any) -> Tamper:
    """Return what changes the frame's one entry and seals it anew, so that only the change is wrong."""

    def change(frame: dict[str, Any]) -> None:
        (old,) = frame["entries"]
        new = seal({**old, **members}, after=Position(old["seq"] - 1, old["prev_hash"]))
        frame.update(entries=[new], hash=new["hash"])

    return change


def unlinked(frame: dict[str, Any]) -> None:
    """Link the entry to another past."""
    (old,) = frame["entries"]
    new = seal(old, after=Position(old["seq"] - 1, "a" * 64))
    frame.update(entries=[new], hash=new["hash"])


def resync(frame: dict[str, Any]) -> None:
    """Put a snapshot in the place of the entries."""
    frame["snapshot"] = {"seq": frame["seq"], "hash": frame["hash"], "floor_seq": 0, "holds": [], "marks": {}}
    frame.update({"from": frame["seq"], "entries": []})


RULES: Final[dict[str, tuple[Tamper, Reason, bool, Then]]] = {
    # what does not continue what is known: nothing is taken, no lease is left, the service is asked anew at once
    "starting beyond what is known": (put(**{"from": 3}), Reason.MALFORMED, DROPPED, Then.ASK),
    "seq without its entries": (put(entries=[]), Reason.REGRESS, DROPPED, Then.ASK),
    "entries short of seq": (lambda frame: frame.update(seq=frame["seq"] + 1), Reason.REGRESS, DROPPED, Then.ASK),
    "another hash at seq": (put(hash="b" * 64), Reason.REGRESS, DROPPED, Then.ASK),
    "entry of another past": (unlinked, Reason.REGRESS, DROPPED, Then.ASK),
    # what only a first frame has
    "a nonce": (put(nonce="nonce-000000000001"), Reason.MALFORMED, DROPPED, Then.LEAVE),
    "a received_at": (put(received_at=1), Reason.MALFORMED, DROPPED, Then.LEAVE),
    "an ack_within_ms": (put(ack_within_ms=50), Reason.MALFORMED, DROPPED, Then.LEAVE),
    "a snapshot": (resync, Reason.MALFORMED, DROPPED, Then.LEAVE),
    # another log
    "newer frame version": (put(v=2), Reason.MALFORMED, DROPPED, Then.LEAVE),
    "another namespace": (put(namespace="other"), Reason.FOREIGN, DROPPED, Then.LEAVE),
    "another epoch": (put(epoch="f" * 16), Reason.FOREIGN, DROPPED, Then.LEAVE),
    "other tenants": (put(tenants=["acme"]), Reason.FOREIGN, DROPPED, Then.LEAVE),
    "older than the frame before it": (put(seq=1, entries=[], **{"from": 1}), Reason.REGRESS, DROPPED, Then.LEAVE),
    # what this client does not understand may be a kill
    "entry of an unknown kind": (entry(kind="pardon"), Reason.MALFORMED, DROPPED, Then.LEAVE),
    "entry of a newer version": (entry(v=2), Reason.MALFORMED, DROPPED, Then.LEAVE),
    "entries missing": (without("entries"), Reason.MALFORMED, DROPPED, Then.LEAVE),
    # no proof
    "read as the request came": (lambda frame: frame.update(read_at=RECEIVED[0]), Reason.MALFORMED, KEPT, Then.LEAVE),
    "read more than 15 s later": (
        lambda frame: frame.update(read_at=RECEIVED[0] + 15_000_001),
        Reason.MALFORMED,
        KEPT,
        Then.LEAVE,
    ),
    "no read_at": (without("read_at"), Reason.MALFORMED, KEPT, Then.LEAVE),
    "ttl of nothing": (put(ttl_ms=0), Reason.MALFORMED, KEPT, Then.LEAVE),
    "malformed hash": (put(hash="0" * 63), Reason.MALFORMED, KEPT, Then.LEAVE),
}
RECEIVED: Final[list[int]] = []


def stream_in_mid_lease() -> tuple[Exchange, Stream]:
    """Return a client at position 2 with 0.7 s of its lease left, and a kill at 3 that is in the next frame."""
    exchange = Exchange()
    exchange.service.note("token_created")
    RECEIVED.clear()
    stream = exchange.open(change=lambda frame: RECEIVED.append(frame["received_at"]))
    exchange.clock.advance(0.3)
    exchange.service.kill("run:r-1")
    return exchange, stream


@pytest.mark.parametrize("rule", RULES)
def test_a_later_frame_that_breaks_a_rule_grants_nothing(rule: str) -> None:
    """Nothing is taken from it; the lease ends as it was granted, or at once; the stream is over."""
    change, reason, dropped, then = RULES[rule]
    exchange, stream = stream_in_mid_lease()
    before = exchange.lease
    after = stream.hear(took=0.001, change=change)
    assert after.replica is before.replica
    assert after.stop.reason is reason
    assert after.until == (float("-inf") if dropped else before.until)
    assert stream.then is then


def test_the_same_frame_untouched_is_taken() -> None:
    """What the rules are broken on is a good frame."""
    exchange, stream = stream_in_mid_lease()
    before = exchange.lease
    after = stream.hear(took=0.001, change=put())
    assert after.replica.position == exchange.service.position
    assert after.until == pytest.approx(before.until + 0.3, abs=1e-3)
    assert stream.then is Then.READ


@pytest.mark.parametrize("timebase", ["another", None, 7])
def test_another_timebase_ends_the_stream_and_extends_nothing(timebase: object) -> None:
    """Times of two clocks prove nothing together: the lease is as it was, and the next request follows at once."""
    exchange, stream = stream_in_mid_lease()
    before = exchange.lease
    assert stream.hear(change=put(timebase=timebase)) is before
    assert stream.then is Then.ASK
    assert exchange.renewal.due == exchange.clock.read().boot


def test_after_a_gap_the_client_asks_at_once_and_gets_what_is_missing() -> None:
    """From the position that it has really reached."""
    exchange, stream = stream_in_mid_lease()
    stream.line()  # lost on its way
    exchange.service.kill("run:r-2")
    stream.hear()
    assert (stream.then, exchange.live, exchange.seq) == (Then.ASK, False, 2)
    assert exchange.renewal.due == exchange.clock.read().boot
    exchange.open()
    assert exchange.live
    assert {"run:r-1", "run:r-2"} <= set(exchange.lease.replica.holds)


def test_a_lost_frame_without_entries_is_no_gap() -> None:
    """The next one starts where the client is."""
    exchange = Exchange()
    stream = exchange.open()
    stream.line()
    exchange.clock.advance(0.3)
    stream.hear()
    assert (stream.then, exchange.live) == (Then.READ, True)


def test_below_the_position_that_the_request_carried_is_a_regress() -> None:
    """Also where no frame of this stream was newer: the service answers for a log that ends before what is known."""
    exchange = Exchange()
    exchange.renew()
    exchange.service.kill("run:r-1")
    exchange.renew()
    first = exchange.service.entries[0]
    stream = exchange.open(change=put(seq=1, hash=first["hash"], entries=[], **{"from": 1}))
    assert (stream.then, exchange.live, exchange.lease.stop.reason) == (Then.LEAVE, False, Reason.REGRESS)
    assert "the service's log ends at 1, this client has seen 2" in exchange.lease.stop.detail


def test_below_an_earlier_frame_is_a_regress_even_where_the_replica_is_newer() -> None:
    """A hand-over explains frames behind another stream's, never behind the stream's own."""
    exchange = Exchange()
    old = exchange.open()
    exchange.service.kill("run:r-1")
    old.hear()
    new = exchange.open()
    exchange.service.kill("run:r-2")
    new.hear()
    lease = old.hear(change=put(seq=1, hash=exchange.service.entries[0]["hash"], entries=[], **{"from": 1}))
    assert (exchange.live, lease.stop.reason, old.then) == (False, Reason.REGRESS, Then.LEAVE)


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b'"\xff"', b'{"v":1} {"v":1}'])
def test_what_is_no_frame_ends_the_stream_and_extends_nothing(line: bytes) -> None:
    """The lease goes on for as long as it was granted."""
    exchange, stream = stream_in_mid_lease()
    until = exchange.lease.until
    lease = stream.hear(line)
    assert (lease.until, lease.stop.reason, stream.then) == (until, Reason.MALFORMED, Then.LEAVE)


def test_a_frame_of_another_stream_is_refused() -> None:
    """A first frame that is played again in the middle of a stream does not begin it anew."""
    exchange = Exchange()
    Stream(exchange)
    other = Stream(exchange).line()
    stream = exchange.open()
    lease = stream.hear(other)
    assert (exchange.live, lease.stop.reason) == (False, Reason.MALFORMED)
