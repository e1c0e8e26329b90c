"""What is not a frame extends nothing; only what speaks of this very token or log ends a running lease."""

from __future__ import annotations

from typing import Final

import pytest

from haltline.renewal import Reply, Then
from haltline.verdict import Reason, Stop
from tests.support.exchange import Exchange

PROBLEM: Final = "application/problem+json"


def problem(status: int, code: str = "x", detail: str = "because") -> Reply:
    """Return a problem reply."""
    return Reply(status, PROBLEM, encoded=False, body=f'{{"code":"{code}","detail":"{detail}"}}'.encode())


def page(status: int = 200, kind: str = "text/html", body: bytes = b"<html>", *, encoded: bool = False) -> Reply:
    """Return a reply that is no problem."""
    return Reply(status, kind, encoded, body)


ENDING: Final = {
    "401": (problem(401), Reason.REFUSED),
    "403": (problem(403), Reason.REFUSED),
    "409 regress": (problem(409, "regress"), Reason.REGRESS),
    "409 foreign": (problem(409, "foreign"), Reason.FOREIGN),
}
KEEPING: Final = {
    "500": (problem(500), Reason.UNREACHABLE),
    "502 in HTML": (page(502), Reason.UNREACHABLE),
    "503": (problem(503, "stale"), Reason.UNREACHABLE),
    "429": (problem(429), Reason.UNREACHABLE),
    "404": (problem(404), Reason.REFUSED),
    "422": (problem(422), Reason.REFUSED),
    "201": (page(201, "application/json", b"{}"), Reason.REFUSED),
    "301": (page(301), Reason.MALFORMED),
    "304": (page(304), Reason.MALFORMED),
    "307": (page(307), Reason.MALFORMED),
    "HTML 200": (page(), Reason.MALFORMED),
    "no content type": (page(kind=""), Reason.MALFORMED),
    "empty": (page(kind="application/json", body=b""), Reason.MALFORMED),
    "cut short": (page(kind="application/json", body=b'{"v":1,'), Reason.MALFORMED),
    "not an object": (page(kind="application/json", body=b"[]"), Reason.MALFORMED),
    "not UTF-8": (page(kind="application/json", body=b'"\xff"'), Reason.MALFORMED),
    "a bomb of brackets": (page(kind="application/json", body=b"[" * 200_000), Reason.MALFORMED),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", ENDING)
def test_a_refusal_of_this_client_ends_the_lease(case: str, *, stream: bool) -> None:
    """A token that was revoked, or a log that is another, ends the running lease at once."""
    reply, reason = ENDING[case]
    exchange = Exchange()
    exchange.renew()
    assert exchange.live
    lease = exchange.hear(reply, stream=stream)
    assert (exchange.live, lease.stop.reason) == (False, reason)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", KEEPING)
def test_what_is_not_a_frame_leaves_the_lease_as_it_is(case: str, *, stream: bool) -> None:
    """An outage, a redirect or a captive portal neither extends the lease nor ends it before its time."""
    reply, reason = KEEPING[case]
    exchange = Exchange()
    until = exchange.renew().until
    exchange.clock.advance(0.5)
    lease = exchange.hear(reply, stream=stream)
    assert (lease.until, lease.stop.reason) == (until, reason)
    assert exchange.renewal.then is Then.LEAVE
    exchange.clock.advance(0.5)
    assert not exchange.live


@pytest.mark.parametrize(
    ("kind", "encoded"),
    [
        ("application/json; charset=utf-8", False),
        ("application/json", True),
        ("application/jsonl", False),
        ("text/json", False),
    ],
)
def test_a_good_frame_in_the_wrong_wrapping_is_refused(kind: str, *, encoded: bool) -> None:
    """Another content type, or any content encoding, is somebody else's reply."""
    exchange = Exchange()
    ask = exchange.ask()
    good = exchange.reply(ask)
    lease = exchange.renewal.answered(ask, Reply(200, kind, encoded, good.body), exchange.clock.read())
    assert (exchange.live, lease.stop.reason) == (False, Reason.MALFORMED)
    assert exchange.renewal.answered(ask, good, exchange.clock.read()).until > 0


def test_an_old_reply_played_again_extends_nothing() -> None:
    """The reply to an earlier request does not answer this one."""
    exchange = Exchange()
    ask = exchange.ask()
    old = exchange.reply(ask)
    until = exchange.renewal.answered(ask, old, exchange.clock.read()).until
    exchange.clock.advance(0.5)
    assert exchange.hear(old).until == until


def test_a_problem_is_told_bounded_and_printable() -> None:
    """What a service says reaches messages in at most 200 printable ASCII characters."""
    exchange = Exchange()
    lease = exchange.hear(problem(503, detail="\\u001b[31m" + "é" * 500))
    assert len(lease.stop.detail) < 300
    assert lease.stop.detail.isascii()
    assert lease.stop.detail.isprintable()


def test_no_reply_leaves_the_lease_as_it_is() -> None:
    """A lost reply neither extends the lease nor ends it."""
    exchange = Exchange()
    until = exchange.renew().until
    exchange.clock.advance(0.5)
    lease = exchange.renewal.unanswered("lost", exchange.clock.read())
    assert (lease.until, lease.stop.reason) == (until, Reason.UNREACHABLE)


def test_dropping_keeps_what_is_known_of_kills() -> None:
    """A dropped lease permits nothing and forgets nothing."""
    exchange = Exchange()
    exchange.service.kill("global")
    replica = exchange.renew().replica
    lease = exchange.renewal.drop(Stop(Reason.CLOSED))
    assert (lease.replica, exchange.live, lease.stop.reason) == (replica, False, Reason.CLOSED)


def test_a_request_carries_the_position_and_the_process() -> None:
    """Its position is the worker's ack: none before the first frame, the last applied entry after."""
    exchange = Exchange()
    first = exchange.ask().body
    assert b'"epoch":null,"hash":null,' in first
    assert b'"seq":0,"stream":false,"worker":"worker-1"' in first
    exchange.renew()
    position = exchange.service.position
    later = exchange.ask().body.decode()
    assert f'"epoch":"{exchange.service.epoch}","hash":"{position.hash}","instance":"instance-1"' in later
    assert f'"namespace":"default","nonce":"nonce-000000000003","seq":{position.seq}' in later
