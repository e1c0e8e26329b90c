"""Retry-After: whoever asks for a pause gets it, and no lease is longer or shorter for it."""

from __future__ import annotations

import pytest

from haltline.renewal import Reply
from tests.support.exchange import Exchange

_PROBLEM = b'{"code": "busy", "detail": "later"}'


def told(later: str, *, status: int = 503, random: float = 0.0) -> Exchange:
    """Return a client with a lease that was told so, and would ask the same node again."""
    exchange = Exchange(random=random)
    exchange.renew()
    reply = Reply(status, "application/problem+json", encoded=False, body=_PROBLEM, later=later)
    exchange.hear(reply)
    exchange.renewal.spare(exchange.renewal.later_s, exchange.clock.read())
    return exchange


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("random", [0.0, 0.999999])
def test_it_is_honoured(status: int, random: float) -> None:
    """The next request waits for so long, and for up to a quarter more, so that not all come back in step."""
    exchange = told("1", status=status, random=random)
    wait_s = (exchange.renewal.due - exchange.clock.read().boot) / 1e9
    assert wait_s == pytest.approx(1 + random / 4, abs=1e-3)
    assert exchange.renewal.spared_until == exchange.renewal.due


def test_no_lease_is_longer_for_it() -> None:
    """It ends when it was granted to, before the next request is sent."""
    exchange = Exchange()
    until = exchange.renew().until
    reply = Reply(503, "application/problem+json", encoded=False, body=_PROBLEM, later="2")
    assert exchange.hear(reply).until == until
    exchange.renewal.spare(exchange.renewal.later_s, exchange.clock.read())
    exchange.clock.advance(1.001)
    assert not exchange.live


@pytest.mark.parametrize("later", ["2", "86400"])
def test_nobody_is_kept_away_for_longer_than_two_seconds(later: str) -> None:
    """Whatever a service, or a proxy before it, asks for: the fleet would stand still. Nor do all come at 2 s."""
    waits_s = []
    for random in (0.0, 0.5, 0.999999):
        exchange = told(later, random=random)
        waits_s.append((exchange.renewal.due - exchange.clock.read().boot) / 1e9)
    assert waits_s == pytest.approx([1.6, 1.8, 2.0], abs=1e-3)
    assert max(waits_s) <= 2


def test_no_wait_that_a_transport_tells_of_is_longer_either() -> None:
    """The bound is that of what is done, not only of what is read."""
    exchange = Exchange(random=0.999999)
    exchange.renewal.spare(60, exchange.clock.read())
    assert (exchange.renewal.spared_until - exchange.clock.read().boot) / 1e9 <= 2


@pytest.mark.parametrize("later", ["", "-1", "1.5", "soon", "Fri, 31 Dec 1999 23:59:59 GMT", "٣", "1" * 5_000])
def test_what_is_no_number_of_seconds_is_none(later: str) -> None:
    """The pause is that of any failure."""
    exchange = told(later)
    assert exchange.renewal.later_s == 0
    assert (exchange.renewal.due - exchange.clock.read().boot) / 1e9 <= 0.15


def test_one_that_answers_again_is_asked_again() -> None:
    """What it asked for once is forgotten by the next exchange."""
    exchange = told("1")
    exchange.clock.advance(1.3)
    exchange.renew()
    assert exchange.renewal.later_s == 0
    assert exchange.live
