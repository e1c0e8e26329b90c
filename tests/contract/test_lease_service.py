"""POST /v1/lease means the same at the client's fake and at the real service."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from app.domain.tokens import Token
from haltline.canonical import canonical
from haltline.flips import Kill, Position, Revive, parse_entry, parse_stub
from haltline.replica import from_snapshot
from tests.support.lease_asking import ACKED, ASK, acking, at, code, frame, problem
from tests.support.lease_services import Fake, LeaseService, Real


@pytest.fixture(scope="module", params=["fake", "real"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LeaseService]:
    """Return each of the two; the tests share it, so each kills targets of its own."""
    made: LeaseService = Fake() if request.param == "fake" else Real(tmp_path_factory.mktemp("lease"))
    yield made
    made.close()


@pytest.fixture
def name() -> str:
    """Return an id that no other test uses."""
    return f"x-{uuid.uuid4().hex}"


def test_a_frame_answers_this_very_request(service: LeaseService) -> None:
    """Its nonce is the request's, and the truth was read strictly after the request came, each time anew."""
    for number in range(20):
        told = frame(service, nonce=f"{number:032x}")
        assert told["nonce"] == f"{number:032x}"
        assert told["read_at"] > told["received_at"]
        assert (told["v"], told["namespace"]) == (1, "default")
        assert 200 <= told["ttl_ms"] <= 5_000


def test_a_first_frame_brings_a_snapshot(service: LeaseService, name: str) -> None:
    """Holds and marks as they stood where the frame starts, and what happened since."""
    hold = service.kill(f"tenant:{name}")
    told = frame(service)
    assert told["from"] == told["snapshot"]["seq"] <= told["seq"]
    replica = from_snapshot(told["snapshot"], namespace="default", epoch=told["epoch"])
    replica = replica.extend(parse_entry(each, namespace="default", epoch=told["epoch"]) for each in told["entries"])
    assert replica.position == Position(told["seq"], told["hash"])
    assert [each.seq for each in replica.holds[f"tenant:{name}"]] == [hold]
    assert replica.marks[f"tenant:{name}"].last_kill == hold


def test_a_later_frame_brings_what_happened_since(service: LeaseService, name: str) -> None:
    """From the position that the request states, without a snapshot, each entry following the one before."""
    known = frame(service)
    first = service.kill(f"run:{name}")
    service.revive(f"run:{name}", first)
    told = frame(service, **at(known))
    assert "snapshot" not in told
    assert told["from"] == known["seq"]
    entries = [parse_entry(each, namespace="default", epoch=told["epoch"]) for each in told["entries"]]
    assert [type(each) for each in entries] == [Kill, Revive]
    assert entries[0].prev_hash == known["hash"]
    assert entries[1].prev_hash == entries[0].position.hash
    assert entries[1].position == Position(told["seq"], told["hash"])


def test_a_kill_is_in_the_next_frame(service: LeaseService, name: str) -> None:
    """As soon as it was acknowledged, however soon the client asks."""
    known = frame(service)
    for number in range(20):
        hold = service.kill(f"run:{name}-{number}")
        known = frame(service, **at(known))
        assert [each["seq"] for each in known["entries"]] == [hold]


def test_a_client_that_knows_everything_gets_nothing_new(service: LeaseService) -> None:
    """A frame without entries, which still grants a lease."""
    known = frame(service)
    told = frame(service, **at(known))
    assert (told["from"], told["seq"], told["hash"], told["entries"]) == (known["seq"], known["seq"], known["hash"], [])
    assert told["read_at"] > told["received_at"]


def test_notes_travel_as_stubs(service: LeaseService) -> None:
    """Their place in the chain, and nothing of what they say."""
    known = frame(service)
    service.note()
    told = frame(service, **at(known))
    (stub,) = told["entries"]
    assert parse_stub(stub).position == Position(told["seq"], told["hash"])


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"seq": 1_000_000}, "regress"),
        ({"hash": "a" * 64}, "regress"),
        ({"epoch": "f" * 16}, "foreign"),
        ({"namespace": "other"}, "foreign"),
    ],
)
def test_a_position_of_another_log_is_a_conflict(service: LeaseService, members: dict[str, Any], expected: str) -> None:
    """A client that has seen more, another history, another epoch or another namespace gets 409 and no frame."""
    known = at(frame(service))
    assert code(service.ask(canonical({**ASK, **known, **members}))) == (409, expected)
    assert problem(service.stream(canonical({**ASK, **known, **members, "stream": True}))) == (409, expected)
    acked = {name: {**ASK, **known, **members}[name] for name in ACKED}
    assert code(service.ack(canonical(acked))) == (409, expected)


@pytest.mark.parametrize(
    "token", ["", "nonsense", "hlt_default_short", Token("default", "unknown00000", "x" * 43).text], ids=str
)
def test_a_token_that_is_not_known_opens_nothing(service: LeaseService, token: str) -> None:
    """Malformed or unknown: 401, and which of them is not told."""
    assert code(service.ask(canonical(ASK), token=token)) == (401, "unauthenticated")
    assert problem(service.stream(canonical({**ASK, "stream": True}), token=token)) == (401, "unauthenticated")
    assert code(service.ack(acking(service), token=token)) == (401, "unauthenticated")


def test_a_token_of_another_namespace_is_forbidden(service: LeaseService) -> None:
    """Well formed, but not from here: 403."""
    token = Token("other", "unknown00000", "x" * 43).text
    assert code(service.ask(canonical(ASK), token=token)) == (403, "wrong_namespace")
    assert problem(service.stream(canonical({**ASK, "stream": True}), token=token)) == (403, "wrong_namespace")
    assert code(service.ack(acking(service), token=token)) == (403, "wrong_namespace")


@pytest.mark.parametrize("missing", ["stream", "nonce", "worker", "instance", "epoch", "seq", "hash"])
def test_every_member_is_needed(service: LeaseService, missing: str) -> None:
    """Only the namespace may be left out."""
    body = {name: value for name, value in ASK.items() if name != missing}
    assert code(service.ask(canonical(body))) == (422, "invalid_fields")
    without = {name: value for name, value in ASK.items() if name != "namespace"}
    assert service.ask(canonical(without)).status == 200


@pytest.mark.parametrize(
    "members",
    [
        {"stream": 0},
        {"stream": None},
        {"stream": "true"},
        {"seq": -1},
        {"seq": "0"},
        {"seq": True},
        {"seq": 1},
        {"epoch": "F" * 16},
        {"hash": "short"},
        {"nonce": ""},
        {"nonce": 7},
        {"worker": "no spaces"},
        {"instance": ""},
        {"surprise": 1},
    ],
    ids=str,
)
def test_a_malformed_member_is_refused(service: LeaseService, members: dict[str, Any]) -> None:
    """Never accepted and ignored."""
    assert code(service.ask(canonical({**ASK, **members}))) == (422, "invalid_fields")


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"seq":1,"seq":2}', b'{"seq":NaN}'], ids=str)
def test_what_is_not_json_is_refused(service: LeaseService, body: bytes) -> None:
    """Before anything is looked at."""
    assert code(service.ask(body)) == (400, "malformed_body")
