"""POST /v1/lease means the same at the client's fake and at the real service."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from app.domain.tokens import Token
from haltline.canonical import canonical, parse
from haltline.flips import Kill, Position, Revive, parse_entry, parse_stub
from haltline.keys import parse_keys
from haltline.replica import from_snapshot
from tests.support.lease_asking import ACKED, ASK, Frames, acking, at, code, frame, problem
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


def test_every_first_frame_brings_stamp_keys(service: LeaseService) -> None:
    """As one frame and as a stream, with a snapshot and without: the same keys, whole; later frames have none."""
    known = frame(service)
    keys = parse_keys(known["stamp_keys"])
    assert keys
    assert len({key.key for key in keys}) == len({key.id for key in keys}) == len(keys)
    assert all(key.until > 30 * 86_400 for key in keys)
    assert [{"id", "key", "until"} == set(each) for each in known["stamp_keys"]] == [True] * len(keys)
    assert parse_keys(frame(service, **at(known))["stamp_keys"]) == keys
    for members in ({}, at(known)):
        with Frames(service, **members) as frames:
            assert parse_keys(frames.next()["stamp_keys"]) == keys
            assert "stamp_keys" not in frames.next()


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


def outcomes(*runs: str, flip: int = 1) -> bytes:
    """Return what tells of how runs ended."""
    told = {
        "flip": flip,
        "worker": "worker-1",
        "instance": "instance-1",
        "at": "2026-11-20T20:25:11.123456Z",
        "ended": "cleanup",
        "cleanups": [{"name": "close", "outcome": "done", "ms": 7}],
    }
    return canonical({"outcomes": [{"run": run, **told} for run in runs]})


def test_outcomes_are_kept_once(service: LeaseService, name: str) -> None:
    """Of each run and flip the first word; the reply says how many were new."""
    flip = service.kill(f"run:{name}")

    def told(*runs: str) -> dict[str, Any]:
        reply = service.tell(outcomes(*runs, flip=flip))
        assert (reply.status, reply.content_type) == (200, "application/json")
        members: dict[str, Any] = parse(reply.body)
        return members

    assert told(name, f"{name}-2", name) == {"kept": 2, "repeated": 1}
    assert told(name) == {"kept": 0, "repeated": 1}
    assert told(f"{name}-3", name) == {"kept": 1, "repeated": 1}


def test_outcomes_that_cannot_be_are_refused(service: LeaseService, name: str) -> None:
    """Of a flip that the log does not have, without any, as no JSON, and with a token that is not known."""
    assert code(service.tell(outcomes(name, flip=1_000_000))) == (409, "regress")
    for body in (b"{}", outcomes(), b'{"outcomes":[7]}', b'{"outcomes":[{"run":"r"}]}'):
        assert code(service.tell(body)) == (422, "invalid_fields")
    assert code(service.tell(b"{")) == (400, "malformed_body")
    assert code(service.tell(outcomes(name), token="nonsense")) == (401, "unauthenticated")
