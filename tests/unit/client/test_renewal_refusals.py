"""A frame that breaks a rule grants nothing, and one that proves something wrong ends the running lease."""

from __future__ import annotations

from typing import Any, Final

import pytest

from haltline.flips import Position, seal
from haltline.renewal import Then
from haltline.testing import FakeService
from haltline.verdict import Reason
from tests.support.exchange import Exchange, Tamper

KEPT: Final = False
DROPPED: Final = True


def put(**members: Any) -> Tamper:
    """Return what sets members of a frame."""
    return lambda frame: frame.update(members)


def without(*names: str) -> Tamper:
    """Return what takes members out of a frame."""

    def change(frame: dict[str, Any]) -> None:
        for name in names:
            del frame[name]

    return change


def entry(**members: Any) -> Tamper:
    """Return what changes the frame's one entry and seals it anew, so that only the change is wrong."""

    def change(frame: dict[str, Any]) -> None:
        (old,) = frame["entries"]
        new = seal({**old, **members}, after=Position(old["seq"] - 1, old["prev_hash"]))
        frame.update(entries=[new], hash=new["hash"])

    return change


def altered(frame: dict[str, Any]) -> None:
    """Change an entry without sealing it."""
    frame["entries"][0]["target"] = "run:other"


def unlinked(frame: dict[str, Any]) -> None:
    """Link the entry to another past."""
    (old,) = frame["entries"]
    new = seal(old, after=Position(old["seq"] - 1, "a" * 64))
    frame.update(entries=[new], hash=new["hash"])


def spread(difference: int) -> Tamper:
    """Return what sets the time between the request and the read, microseconds."""
    return lambda frame: frame.update(received_at=20_000_000, read_at=20_000_000 + difference)


RULES: Final[dict[str, tuple[Tamper, Reason, bool]]] = {
    "another nonce": (put(nonce="nonce-000000000001"), Reason.MALFORMED, KEPT),
    "no nonce": (without("nonce"), Reason.MALFORMED, KEPT),
    "newer frame version": (put(v=2), Reason.MALFORMED, DROPPED),
    "no frame version": (without("v"), Reason.MALFORMED, DROPPED),
    "version not a number": (put(v=True), Reason.MALFORMED, DROPPED),
    "another namespace": (put(namespace="other"), Reason.FOREIGN, DROPPED),
    "another epoch": (put(epoch="f" * 16), Reason.FOREIGN, DROPPED),
    "malformed epoch": (put(epoch="F" * 16), Reason.FOREIGN, DROPPED),
    "no tenants": (without("tenants"), Reason.MALFORMED, KEPT),
    "tenants not a list": (put(tenants="acme"), Reason.MALFORMED, KEPT),
    "a tenant not text": (put(tenants=[1]), Reason.MALFORMED, KEPT),
    "other tenants than before": (put(tenants=["acme"]), Reason.FOREIGN, DROPPED),
    "no timebase": (without("timebase"), Reason.MALFORMED, KEPT),
    "timebase not text": (put(timebase=7), Reason.MALFORMED, KEPT),
    "no received_at": (without("received_at"), Reason.MALFORMED, KEPT),
    "no read_at": (without("read_at"), Reason.MALFORMED, KEPT),
    "read_at not a number": (put(read_at=True), Reason.MALFORMED, KEPT),
    "ttl of nothing": (put(ttl_ms=0), Reason.MALFORMED, KEPT),
    "ttl as text": (put(ttl_ms="1000"), Reason.MALFORMED, KEPT),
    "read as the request came": (spread(0), Reason.MALFORMED, KEPT),
    "read before the request came": (spread(-1), Reason.MALFORMED, KEPT),
    "read more than 15 s later": (spread(15_000_001), Reason.MALFORMED, KEPT),
    "no seq": (without("seq"), Reason.MALFORMED, KEPT),
    "malformed hash": (put(hash="0" * 63), Reason.MALFORMED, KEPT),
    "from beyond seq": (lambda frame: frame.update({"from": frame["seq"] + 1}), Reason.MALFORMED, KEPT),
    "starting beyond what is known": (lambda frame: frame.update({"from": 3}), Reason.MALFORMED, DROPPED),
    "seq older than what is known": (put(seq=1, **{"from": 1}), Reason.REGRESS, DROPPED),
    "seq without its entries": (put(entries=[]), Reason.REGRESS, DROPPED),
    "entries short of seq": (lambda frame: frame.update(seq=frame["seq"] + 1), Reason.REGRESS, DROPPED),
    "another hash at seq": (put(hash="b" * 64), Reason.REGRESS, DROPPED),
    "entries missing": (without("entries"), Reason.MALFORMED, DROPPED),
    "entry altered": (altered, Reason.MALFORMED, DROPPED),
    "entry of another past": (unlinked, Reason.REGRESS, DROPPED),
    "entry of an unknown kind": (entry(kind="pardon"), Reason.MALFORMED, DROPPED),
    "entry of a newer version": (entry(v=2), Reason.MALFORMED, DROPPED),
    "entry of another namespace": (entry(namespace="other"), Reason.MALFORMED, DROPPED),
    "entry of another epoch": (entry(epoch="f" * 16), Reason.MALFORMED, DROPPED),
    "stub with more in it": (
        lambda frame: frame["entries"].insert(0, {"seq": 2, "hash": "x"}),
        Reason.MALFORMED,
        DROPPED,
    ),
}


def exchange_in_mid_lease() -> Exchange:
    """Return a client at position 2 with 0.7 s of its lease left, and a kill at 3 that it has not heard of."""
    exchange = Exchange()
    exchange.service.note("token_created")
    exchange.renew()
    exchange.clock.advance(0.3)
    exchange.service.kill("run:r-1")
    return exchange


@pytest.mark.parametrize("stream", [False, True], ids=["single", "first of a stream"])
@pytest.mark.parametrize("rule", RULES)
def test_a_frame_that_breaks_a_rule_grants_nothing(rule: str, *, stream: bool) -> None:
    """Nothing is taken from it; the lease ends as it was granted, or at once; the service is left for another."""
    change, reason, dropped = RULES[rule]
    exchange = exchange_in_mid_lease()
    before = exchange.lease
    if stream:
        exchange.open(took=0.001, change=change)
    else:
        exchange.renew(took=0.001, change=change)
    after = exchange.lease
    assert after.replica is before.replica
    assert after.stop.reason is reason
    assert after.until == (float("-inf") if dropped else before.until)
    assert exchange.renewal.then is Then.LEAVE


def test_the_same_frame_untouched_is_taken() -> None:
    """What the rules are broken on is a good frame: it moves position and deadline."""
    exchange = exchange_in_mid_lease()
    before = exchange.lease
    after = exchange.renew(took=0.001, change=put())
    assert after.replica.position == exchange.service.position
    assert after.until == pytest.approx(before.until + 0.3, abs=1e-5)


def test_a_log_that_went_back_is_said_loudly() -> None:
    """The message names both positions, and what it may mean."""
    exchange = exchange_in_mid_lease()
    lease = exchange.renew(change=put(seq=1, **{"from": 1}))
    assert "ends at 1, this client has seen 2: a restored backup" in lease.stop.detail


def test_a_gap_is_not_jumped() -> None:
    """Of two new entries the first is missing: nothing is taken, the lease ends."""
    exchange = exchange_in_mid_lease()
    exchange.service.kill("run:r-2")
    before = exchange.lease
    after = exchange.renew(change=lambda frame: frame["entries"].pop(0))
    assert (after.replica, after.stop.reason, exchange.live) == (before.replica, Reason.REGRESS, False)


def test_entries_already_known_are_passed_over() -> None:
    """A frame that starts before the client's position is taken from there on."""
    exchange = exchange_in_mid_lease()

    def from_the_start(frame: dict[str, Any]) -> None:
        frame["entries"] = [dict(each) for each in exchange.service.entries]
        frame["from"] = 0

    assert exchange.renew(change=from_the_start).replica.position.seq == 3


def test_the_first_frame_needs_a_snapshot() -> None:
    """A client that knows nothing takes no bare entries: what came before them might hold a kill."""
    exchange = Exchange()
    lease = exchange.renew(change=without("snapshot"))
    assert (lease.stop.reason, exchange.live, exchange.seq) == (Reason.MALFORMED, False, 0)


def test_a_first_frame_of_entries_alone_is_refused() -> None:
    """Also if they are all there: only a snapshot says which log this is."""
    exchange = Exchange()

    def bare(frame: dict[str, Any]) -> None:
        del frame["snapshot"]
        frame.update({"from": 0, "entries": [dict(each) for each in exchange.service.entries]})

    assert exchange.renew(change=bare).stop.reason is Reason.MALFORMED


def test_an_older_snapshot_is_refused_even_with_entries_behind_it() -> None:
    """Going back is never needed, and could lose what this client has seen."""
    exchange = exchange_in_mid_lease()

    def older(frame: dict[str, Any]) -> None:
        first, *later = (dict(each) for each in exchange.service.entries)
        frame["snapshot"] = {"seq": 1, "hash": first["hash"], "floor_seq": 0, "holds": [], "marks": {}}
        frame.update({"from": 1, "entries": later})

    assert exchange.renew(change=older).stop.reason is Reason.REGRESS


SNAPSHOTS: Final[dict[str, tuple[Tamper, Reason]]] = {
    "older than what is known": (
        lambda frame: frame.update({"from": 1, "snapshot": {**frame["snapshot"], "seq": 1, "holds": [], "marks": {}}}),
        Reason.REGRESS,
    ),
    "elsewhere than from": (lambda frame: frame.update({"from": 2}), Reason.REGRESS),
    "without marks": (lambda frame: frame["snapshot"].pop("marks"), Reason.MALFORMED),
    "with a hold that no mark knows": (lambda frame: frame["snapshot"]["marks"].clear(), Reason.MALFORMED),
    "of an unknown scope": (lambda frame: frame["snapshot"]["marks"].update({"planet:x": [3, 3]}), Reason.MALFORMED),
    "not an object": (put(snapshot=[]), Reason.MALFORMED),
}


@pytest.mark.parametrize("fault", SNAPSHOTS)
def test_a_snapshot_with_a_fault_ends_the_lease(fault: str) -> None:
    """A snapshot that is not whole, or not newer, is refused: absence of knowledge is not absence of kills."""
    change, reason = SNAPSHOTS[fault]
    exchange = exchange_in_mid_lease()
    before = exchange.lease

    def tamper(frame: dict[str, Any]) -> None:
        resync(exchange.service, frame)
        change(frame)

    after = exchange.renew(change=tamper)
    assert (after.replica, after.stop.reason, exchange.live) == (before.replica, reason, False)


def resync(service: FakeService, frame: dict[str, Any]) -> None:
    """Turn a frame of entries into one with a snapshot, as a node sends it that has forgotten the client's place."""
    hold = service.holds("run:r-1")[0]
    members = {name: getattr(hold, name) for name in ("seq", "actor", "at", "reason", "in_flight", "queued", "flip_id")}
    frame["snapshot"] = {
        "seq": frame["seq"],
        "hash": frame["hash"],
        "floor_seq": 0,
        "holds": [{**members, "target": "run:r-1"}],
        "marks": {"run:r-1": [3, 3]},
    }
    frame.update({"from": frame["seq"], "entries": []})


def test_a_newer_snapshot_is_taken_in_place_of_entries() -> None:
    """A node may send a snapshot to a client that it cannot continue, and its kill counts; no ack tells of it."""
    exchange = exchange_in_mid_lease()
    lease = exchange.renew(change=lambda frame: resync(exchange.service, frame))
    assert lease.replica.position == exchange.service.position
    assert "run:r-1" in lease.replica.holds
    assert not exchange.renewal.news


def test_a_snapshot_of_another_history_is_refused() -> None:
    """The same position with another hash is another log."""
    exchange = exchange_in_mid_lease()
    exchange.renew()

    def tamper(frame: dict[str, Any]) -> None:
        resync(exchange.service, frame)
        frame["snapshot"]["hash"] = frame["hash"] = "c" * 64

    lease = exchange.renew(change=tamper)
    assert (lease.stop.reason, exchange.live) == (Reason.REGRESS, False)
