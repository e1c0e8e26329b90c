"""Stamp keys as a client takes them: whole or not at all, never shown, replaced by each first frame that has some."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import pytest

from haltline.clocks import Clocks
from haltline.errors import InvalidDocument
from haltline.frames import Refused, check_later, keys_of
from haltline.keys import KEYS_MAX, StampKey, parse_keys
from haltline.refresher import Refresher
from haltline.renewal import Reply, Then
from haltline.testing import FakeService
from haltline.testing.line import FakeLine
from haltline.verdict import Reason
from tests.support.exchange import Exchange, Tamper

TEXT: Final = base64.urlsafe_b64encode(bytes(range(224, 256))).rstrip(b"=").decode()
GOOD: Final[dict[str, Any]] = {"id": "9b1c27e4a0d5", "key": TEXT, "until": 1_803_000_000}


def test_keys_are_read_in_their_order() -> None:
    """The newest first, as the service lists them; a member that is not known is passed over."""
    older = {**GOOD, "id": "older", "more": 1}
    keys = parse_keys([GOOD, older])
    assert keys[0] == StampKey("9b1c27e4a0d5", bytes(range(224, 256)), 1_803_000_000.0)
    assert [key.id for key in keys] == ["9b1c27e4a0d5", "older"]
    assert "-" in TEXT
    assert "_" in TEXT
    assert parse_keys([]) == ()


BAD_IDS: Final[tuple[Any, ...]] = ("", "x" * 65, 7, None, "a\nb", "k\u00e9y")
BAD_ENDS: Final[tuple[Any, ...]] = (-1, "1803000000", None, True, [])
MALFORMED: Final[dict[str, Any]] = {
    "no list": {},
    "null": None,
    "text": TEXT,
    "of text": [TEXT],
    "of null": [None],
    "twice the same id": [GOOD, GOOD],
    "too many": [{**GOOD, "id": f"k{number}"} for number in range(KEYS_MAX + 1)],
    **{f"without {name}": [{each: GOOD[each] for each in GOOD if each != name}] for name in GOOD},
    **{f"id {value!r:.20}": [{**GOOD, "id": value}] for value in BAD_IDS},
    **{f"until {value!r}": [{**GOOD, "until": value}] for value in BAD_ENDS},
    **{
        f"key {name}": [{**GOOD, "key": value}]
        for name, value in {
            "empty": "",
            "short": TEXT[:-1],
            "long": TEXT + "A",
            "padded": TEXT + "=",
            "of another alphabet": "+/" + TEXT[2:],
            "with a line": TEXT[:-1] + "\n",
            "not ASCII": TEXT[:-1] + "\u00e9",
            "no text": 7,
            "null": None,
        }.items()
    },
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_keys_are_refused_whole(case: str) -> None:
    """And what is said of them repeats nothing of a key."""
    with pytest.raises(InvalidDocument) as refused:
        parse_keys(MALFORMED[case])
    with pytest.raises(Refused) as frame:
        keys_of({"stamp_keys": MALFORMED[case]})
    assert (frame.value.reason, frame.value.drop) == (Reason.MALFORMED, False)
    assert TEXT[:20] not in f"{refused.value!r} {frame.value!r}"
    assert frame.value.__cause__ is None


def bringing(keys: object) -> Tamper:
    """Return what has a first frame bring these keys; ... for none at all."""

    def change(frame: dict[str, Any]) -> None:
        del frame["stamp_keys"]
        if keys is not ...:
            frame["stamp_keys"] = keys

    return change


def ids(exchange: Exchange) -> list[str]:
    """Return the ids of the keys that a client has."""
    return [key.id for key in exchange.renewal.stamp_keys]


def test_a_frame_with_malformed_keys_grants_nothing() -> None:
    """The running lease goes on until it ends, and the keys of before stay."""
    exchange = Exchange()
    until = exchange.renew(change=bringing([GOOD])).until
    exchange.clock.advance(0.3)
    lease = exchange.renew(change=bringing([{**GOOD, "id": "new", "key": "short"}]))
    assert (lease.until, lease.stop.reason) == (until, Reason.MALFORMED)
    assert exchange.renewal.then is Then.LEAVE
    assert ids(exchange) == [GOOD["id"]]


def test_a_stream_that_begins_with_malformed_keys_grants_nothing() -> None:
    """As a single frame does."""
    exchange = Exchange()
    stream = exchange.open(change=bringing([{**GOOD, "until": -1}]))
    assert (exchange.live, exchange.lease.stop.reason, stream.then) == (False, Reason.MALFORMED, Then.LEAVE)
    assert ids(exchange) == []


@pytest.mark.parametrize("stream", [False, True])
def test_each_first_frame_replaces_the_keys_whole(*, stream: bool) -> None:
    """One with others has only those from then on; one without any member leaves what is known."""
    exchange = Exchange()

    def hear(keys: object) -> list[str]:
        change = bringing(keys)
        exchange.open(change=change) if stream else exchange.renew(change=change)
        assert exchange.live
        return ids(exchange)

    assert ids(exchange) == []
    assert hear([GOOD]) == [GOOD["id"]]
    assert hear(...) == [GOOD["id"]]
    assert hear([{**GOOD, "id": "new"}, {**GOOD, "id": "old"}]) == ["new", "old"]
    assert hear([]) == []


def test_a_replay_brings_no_keys() -> None:
    """What does not answer this very request is not taken, keys neither."""
    exchange = Exchange()

    def replay(frame: dict[str, Any]) -> None:
        frame.update(nonce="somebody-elses-0", stamp_keys=[GOOD])

    exchange.renew(change=replay)
    assert ids(exchange) == []


def test_a_later_frame_with_keys_ends_the_lease() -> None:
    """Only the first frame of a stream may have them."""
    exchange = Exchange()
    stream = exchange.open()
    stream.hear(change=lambda frame: frame.update(stamp_keys=[GOOD]))
    assert (exchange.live, stream.then) == (False, Then.LEAVE)
    assert GOOD["id"] not in ids(exchange)


def test_keys_in_the_middle_of_a_stream_are_refused() -> None:
    """Only a first frame may have them."""
    with pytest.raises(Refused, match="first frame") as refused:
        check_later({"timebase": "t", "stamp_keys": [GOOD]}, "t")
    assert refused.value.drop


@contextmanager
def connected(service: FakeService, *, background: bool) -> Iterator[Refresher]:
    """Yield what keeps the lease of a process that is connected to a fake service."""
    clocks = Clocks() if background else service.clock.clocks
    refresher = Refresher(
        lambda: FakeLine(service, clocks),
        worker=lambda: "w",
        namespace="default",
        clocks=clocks,
        background=background,
    )
    try:
        yield refresher
    finally:
        refresher.close()


@pytest.mark.parametrize("background", [False, True])
def test_a_process_has_the_keys_of_its_service(*, background: bool) -> None:
    """From its first lease on, and each new one with the next first frame."""
    service = FakeService()
    with connected(service, background=background) as refresher:
        assert refresher.stamp_keys == ()
        assert refresher.ensure(10).until > 0
        assert refresher.stamp_keys == service.stamp_keys != ()
        for keep in (True, False):
            service.rotate_stamp_key(keep=keep)
            assert len(service.stamp_keys) == (2 if keep else 1)
            service.end_streams()
            assert refresher.wait(lambda: refresher.stamp_keys == service.stamp_keys, 10, urgent=True)


def test_a_forked_child_keeps_the_keys() -> None:
    """What it was given it may go on using, as soon as it has a lease of its own."""
    service = FakeService()
    with connected(service, background=False) as refresher:
        refresher.ensure(10)
        refresher.begin_anew()
        assert not refresher.live()
        assert refresher.stamp_keys == service.stamp_keys


def test_keys_are_nowhere_to_be_seen() -> None:
    """Neither in the repr of a key, nor of what holds it."""
    service = FakeService()
    with connected(service, background=False) as refresher:
        refresher.ensure(10)
        key = refresher.stamp_keys[0]
        shown = f"{key!r} {key} {refresher!r} {vars(refresher)!r} {refresher.stamp_keys!r} {replace(key)!r}"
    assert key.id in shown
    assert repr(key.key) not in shown
    assert key.key.hex() not in shown
    assert base64.urlsafe_b64encode(key.key).decode()[:20] not in shown


def test_a_frame_of_the_fake_service_is_what_a_client_takes() -> None:
    """Its keys come over the wire as they are."""
    service = FakeService()
    body = json.dumps({
        "stream": False, "nonce": "0123456789abcdef", "worker": "w", "instance": "i", "epoch": None, "seq": 0,
        "hash": None,
    }).encode()  # fmt: skip
    reply: Reply = service.answer(body, token=service.token)
    assert parse_keys(json.loads(reply.body)["stamp_keys"]) == service.stamp_keys
