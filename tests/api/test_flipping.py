"""Kills and revives over HTTP: what is answered, and when nothing happens."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from tests.api.desk import Desk, members, problem


def test_a_kill(desk: Desk) -> None:
    """A kill is answered 201 with its place in the log, every hold, and when it is effective."""
    response = desk.kill("run:r-42", flip_id="f-7")
    assert response.status_code == 201
    told = members(response)
    assert {
        "seq",
        "flip_id",
        "target",
        "committed_at",
        "effective_at",
        "effective_in_ms",
        "holds",
        "etag",
        "namespace",
        "epoch",
        "hash",
    } == set(told)
    assert (told["flip_id"], told["target"], told["namespace"]) == ("f-7", "run:r-42", "default")
    assert [hold["seq"] for hold in told["holds"]] == [told["seq"]]
    assert response.headers["ETag"] == told["etag"] == f'"{told["epoch"]}.{told["seq"]}"'
    assert response.headers["Location"] == f"/v1/log/{told['seq']}"
    passed = datetime.fromisoformat(told["effective_at"]) - datetime.fromisoformat(told["committed_at"])
    assert abs(passed.total_seconds() - 1.0) < 1e-5
    assert 0 < told["effective_in_ms"] <= 1_000


def test_matched_live_is_never_made_up(desk: Desk) -> None:
    """Until runs are reported there is no matched_live in a reply."""
    assert "matched_live" not in members(desk.kill())


def test_a_replayed_kill(desk: Desk) -> None:
    """The same kill again is answered 200 with the same seq, and writes nothing."""
    first, again = desk.kill(flip_id="f-7"), desk.kill(flip_id="f-7")
    assert (first.status_code, again.status_code) == (201, 200)
    assert members(first)["seq"] == members(again)["seq"]
    assert members(first)["hash"] == members(again)["hash"]
    assert 0 < members(again)["effective_in_ms"] <= 1_000
    assert len(desk.flag("run:r-42")["holds"]) == 1


def test_a_flip_id_of_another_flip(desk: Desk) -> None:
    """The same flip_id with other content is answered 409 with the seq of its flip."""
    first = members(desk.kill(flip_id="f-7"))
    assert problem(desk.kill(flip_id="f-7", reason="another"), "flip_id_taken")["seq"] == first["seq"]
    assert problem(desk.kill("run:other", flip_id="f-7"), "flip_id_taken")


def test_a_bound_operator_learns_no_position_of_others(desk: Desk) -> None:
    """Whose flip_id it hit upon, and where that stands, is not a bound token's business."""
    desk.kill("tenant:other", flip_id="f-9")
    told = problem(desk.kill("tenant:acme", who="bound_operator", flip_id="f-9"), "flip_id_taken")
    assert "seq" not in told


def test_two_kills_are_two_holds(desk: Desk) -> None:
    """Each kill is a hold of its own, and every reply lists them all."""
    first, second = members(desk.kill()), members(desk.kill())
    assert [hold["seq"] for hold in second["holds"]] == [first["seq"], second["seq"]]


@pytest.mark.parametrize("drill", [True, False])
def test_drills_are_refused_until_they_are_honoured(shared: Desk, drill: bool) -> None:  # noqa: FBT001 - a member
    """An option that nothing would honour is refused by name, and nothing is killed."""
    told = problem(shared.kill("run:untouched", drill=drill), "invalid_fields")
    assert "not honoured yet" in told["errors"]["drill"][0]
    assert not shared.flag("run:untouched")["killed"]


def policy(hold: dict[str, Any]) -> tuple[str, str]:
    """Return what a hold, or an entry, says of running calls and planned work."""
    return hold["in_flight"], hold["queued"]


@pytest.mark.parametrize("in_flight", ["abort", "finish"])
@pytest.mark.parametrize("queued", ["discard", "drain"])
def test_the_options_of_a_kill(desk: Desk, in_flight: str, queued: str) -> None:
    """Each option stands in the reply, the flag, the log and the frame as it was asked; drain moves no barrier."""
    told = members(desk.kill(in_flight=in_flight, queued=queued))
    assert policy(told["holds"][0]) == (in_flight, queued)
    flag = desk.flag("run:r-42")
    assert policy(flag["holds"][0]) == (in_flight, queued)
    assert flag["barrier"] == (told["seq"] if queued == "discard" else 0)
    assert policy(members(desk.call("GET", f"/v1/log/{told['seq']}"))) == (in_flight, queued)
    assert policy(members(desk.lease())["snapshot"]["holds"][0]) == (in_flight, queued)


def test_options_that_are_left_out(desk: Desk) -> None:
    """A kill aborts and discards unless it says otherwise, one option at a time."""
    assert policy(members(desk.kill("run:a"))["holds"][0]) == ("abort", "discard")
    assert policy(members(desk.kill("run:b", in_flight="finish"))["holds"][0]) == ("finish", "discard")
    assert policy(members(desk.kill("run:c", queued="drain"))["holds"][0]) == ("abort", "drain")


@pytest.mark.parametrize("option", ["in_flight", "queued"])
@pytest.mark.parametrize("value", ["", "Abort", "drain ", "none", None, True, 0, ["abort"]])
def test_an_option_of_another_word(shared: Desk, option: str, value: Any) -> None:
    """Anything but its two words is refused by name, and nothing is killed."""
    told = problem(shared.kill("run:untouched", **{option: value}), "invalid_fields")
    assert list(told["errors"]) == [option]
    assert not shared.flag("run:untouched")["killed"]


def test_the_same_flip_id_with_other_options(desk: Desk) -> None:
    """Options are part of what a flip_id stands for: with others it is another flip's."""
    first = members(desk.kill(flip_id="f-7", in_flight="finish", queued="drain"))
    assert desk.kill(flip_id="f-7", in_flight="finish", queued="drain").status_code == 200
    assert problem(desk.kill(flip_id="f-7", in_flight="finish"), "flip_id_taken")["seq"] == first["seq"]
    assert problem(desk.kill(flip_id="f-7", queued="drain"), "flip_id_taken")["seq"] == first["seq"]


def test_a_revive(desk: Desk) -> None:
    """A revive that names the view and the hold is answered 201 and releases it."""
    killed = members(desk.kill())
    response = desk.revive("run:r-42", [killed["seq"]], flip_id="f-8")
    assert response.status_code == 201
    told = members(response)
    assert told["released"] == [killed["seq"]]
    assert told["holds"] == []
    assert response.headers["ETag"] == told["etag"] == f'"{told["epoch"]}.{told["seq"]}"'
    assert not desk.flag("run:r-42")["killed"]


def test_a_replayed_revive_needs_no_fresh_view(desk: Desk) -> None:
    """A revive repeated after a lost reply is answered 200 although its view is stale by its own doing."""
    seq = members(desk.kill())["seq"]
    etag = desk.flag("run:r-42")["etag"]
    first = desk.revive("run:r-42", [seq], etag=etag, flip_id="f-8")
    again = desk.revive("run:r-42", [seq], etag=etag, flip_id="f-8")
    assert (first.status_code, again.status_code) == (201, 200)
    assert members(first)["seq"] == members(again)["seq"]


def test_a_stale_view(desk: Desk) -> None:
    """A revive after somebody else's kill is answered 412 with the view of now, and releases nothing."""
    seq = members(desk.kill())["seq"]
    etag = desk.flag("run:r-42")["etag"]
    desk.kill()
    response = desk.revive("run:r-42", [seq], etag=etag)
    told = problem(response, "stale_view")
    assert response.status_code == 412
    assert len(told["holds"]) == 2
    assert response.headers["ETag"] == desk.flag("run:r-42")["etag"]
    assert len(desk.flag("run:r-42")["holds"]) == 2


def test_a_weak_view_is_stale(desk: Desk) -> None:
    """A weak ETag names no exact view."""
    seq = members(desk.kill())["seq"]
    problem(desk.revive("run:r-42", [seq], etag="W/" + desk.flag("run:r-42")["etag"]), "stale_view")


@pytest.mark.parametrize("headers", [{}, {"If-Match": "*"}, {"If-Match": " * "}])
def test_a_missing_view(desk: Desk, headers: dict[str, str]) -> None:
    """Without If-Match, or with one that names no view, a revive is answered 428."""
    seq = members(desk.kill())["seq"]
    body = {"target": "run:r-42", "holds": [seq], "reason": "mended"}
    response = desk.call("POST", "/v1/revives", body, headers=headers)
    problem(response, "if_match_missing")
    assert response.status_code == 428


def test_a_malformed_view(desk: Desk) -> None:
    """An If-Match that is not a list of quoted ETags is answered 400."""
    seq = members(desk.kill())["seq"]
    problem(desk.revive("run:r-42", [seq], etag="abc"), "malformed_header")


def test_a_hold_that_is_not_there(desk: Desk) -> None:
    """A hold that is not active is answered 409 with those that are, and nothing is released."""
    seq = members(desk.kill())["seq"]
    told = problem(desk.revive("run:r-42", [seq, 999]), "no_such_hold")
    assert (told["missing"], told["active"]) == ([999], [seq])
    assert desk.flag("run:r-42")["killed"]


def test_one_hold_never_frees_another(desk: Desk) -> None:
    """Releasing one of two holds leaves the target killed."""
    first, second = members(desk.kill())["seq"], members(desk.kill())["seq"]
    desk.revive("run:r-42", [first])
    flag = desk.flag("run:r-42")
    assert flag["killed"]
    assert [hold["seq"] for hold in flag["holds"]] == [second]
    assert (flag["last_kill"], flag["barrier"]) == (second, second)


@pytest.mark.parametrize("target", ["global", "capability:a:b.c", "tenant:T", "feature:x", "run:" + "a" * 128])
def test_every_scope_round_trips(shared: Desk, target: str) -> None:
    """A target of each scope is killed, shown and revived, byte for byte as it was named."""
    killed = members(shared.kill(target))
    flag = shared.flag(target)
    assert killed["target"] == flag["target"] == target
    assert shared.revive(target, [killed["seq"]]).status_code == 201
    assert not shared.flag(target)["killed"]
