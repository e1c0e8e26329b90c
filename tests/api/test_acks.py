"""POST /v1/acks: noted if it is a position of this log, refused if it is not, never in anybody's way."""

from __future__ import annotations

import json
from typing import Any, Final

import marshmallow as ma
import pytest
from werkzeug.test import TestResponse

from app.api.granting import Applied, applied_of
from app.api.schemas import AckBody
from app.api.shortcut import applied_by
from app.service.acks import Ack
from haltline.canonical import parse
from haltline.errors import InvalidDocument
from tests.api.desk import Desk, members, problem

WHOLE: Final[dict[str, Any]] = {
    "worker": "mailer",
    "instance": "i-1",
    "namespace": "default",
    "epoch": "0123456789abcdef",
    "seq": 5,
    "hash": "a" * 64,
}
ODD: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, 1, -1, 2**53 - 1, 2**53, 1.0, [], {}, ["a"]),
    *("", " ", "a", "A", "0", "a b", "é", "\ud800", "\x00"),
    *("a" * length for length in (15, 16, 17, 32, 33, 63, 64, 65, 128, 129)),
)


def ack(desk: Desk, *, who: str = "worker", **members_: Any) -> TestResponse:
    """Acknowledge the head of the log, or what is given instead."""
    frame = members(desk.lease(who="worker"))
    body = {
        "worker": "mailer",
        "instance": "i-1",
        **{name: frame[name] for name in ("epoch", "seq", "hash")},
        **members_,
    }
    return desk.call("POST", "/v1/acks", body, who=who)


def test_an_ack_is_noted(desk: Desk) -> None:
    """A position of this log is noted, and the reply is empty."""
    response = ack(desk)
    assert (response.status_code, response.get_data()) == (204, b"")
    assert response.headers["Cache-Control"] == "no-store"
    assert desk.node.acks.of("mailer", "i-1") is not None


def test_a_lease_request_is_an_ack(desk: Desk) -> None:
    """The position in a lease request is an ack; one that knows nothing acknowledges nothing."""
    frame = members(desk.lease(instance="i-7"))
    assert desk.node.acks.of("mailer", "i-7") is None
    desk.lease(instance="i-7", **{name: frame[name] for name in ("epoch", "seq", "hash")})
    assert desk.node.acks.of("mailer", "i-7") == Ack("mailer", "i-7", frame["seq"])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"epoch": "f" * 16}, "foreign"),
        ({"namespace": "staging"}, "foreign"),
        ({"hash": "a" * 64}, "regress"),
        ({"seq": 10_000}, "regress"),
    ],
)
def test_a_position_of_another_log(desk: Desk, change: dict[str, Any], code: str) -> None:
    """Who claims what this log does not hold has seen another history: refused, and not noted."""
    desk.lease()
    problem(ack(desk, instance="i-9", **change), code)
    assert desk.node.acks.of("mailer", "i-9") is None


def accepted(data: bytes) -> Applied | None:
    """Return what the documented schema makes of a body."""
    try:
        return applied_of(AckBody().load(parse(data)))
    except (ma.ValidationError, InvalidDocument):
        return None


def test_the_shortcut_takes_exactly_what_the_schema_takes() -> None:
    """The check in the shortcut and the documented schema accept the same bodies, and understand them alike."""
    bodies = [WHOLE, {**WHOLE, "more": 1}]
    for name in WHOLE:
        bodies.append({key: value for key, value in WHOLE.items() if key != name})
        bodies += [{**WHOLE, name: value} for value in ODD]
    raw = [json.dumps(body).encode() for body in bodies] + [b"", b"[]", b"{", json.dumps(WHOLE).encode("utf-16")]
    outcomes = [(applied_by(data), accepted(data), data) for data in raw]
    assert [each for each in outcomes if each[0] != each[1]] == []
    assert 10 < sum(taken is not None for taken, _, _ in outcomes) < len(outcomes) - 50


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8"])
def test_the_shortcut_and_the_route_answer_alike(desk: Desk, content_type: str) -> None:
    """Whichever of the two a request takes, success and refusal look the same."""
    frame = members(desk.lease())
    body = {"worker": "w", "instance": "i", **{name: frame[name] for name in ("epoch", "seq", "hash")}}
    headers = {"Content-Type": content_type}
    assert desk.call("POST", "/v1/acks", body, who="worker", headers=headers).status_code == 204
    problem(desk.call("POST", "/v1/acks", {**body, "hash": "b" * 64}, who="worker", headers=headers), "regress")
    problem(desk.call("POST", "/v1/acks", body, who="observer", headers=headers), "forbidden")
    problem(desk.call("POST", "/v1/acks", {**body, "seq": 0}, who="worker", headers=headers), "invalid_fields")
