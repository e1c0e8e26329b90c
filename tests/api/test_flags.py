"""Flags over HTTP: one, all, and none that a token should not see."""

from __future__ import annotations

from tests.api.desk import Desk, members, problem


def test_a_target_that_was_never_flipped(shared: Desk) -> None:
    """An unknown target is not killed and has version 0, so that its first kill can be guarded too."""
    response = shared.call("GET", "/v1/flags/run/never")
    told = members(response)
    assert (told["killed"], told["holds"], told["last_kill"], told["barrier"]) == (False, [], 0, 0)
    assert response.headers["ETag"] == told["etag"] == f'"{told["epoch"]}.0"'


def test_a_view_that_is_still_current(desk: Desk) -> None:
    """If-None-Match spares the body, but nobody may cache it."""
    desk.kill()
    etag = desk.flag("run:r-42")["etag"]
    response = desk.call("GET", "/v1/flags/run/r-42", headers={"If-None-Match": etag})
    assert (response.status_code, response.get_data()) == (304, b"")
    assert response.headers["Cache-Control"] == "no-store"
    desk.kill()
    assert desk.call("GET", "/v1/flags/run/r-42", headers={"If-None-Match": etag}).status_code == 200


def test_listing_pages_through_everything(desk: Desk) -> None:
    """Cursor and limit visit each killed target once, in order, and the counts are of all of them."""
    targets = ["capability:a", "feature:f", "global", "run:r-1", "run:r-2", "tenant:acme"]
    for target in reversed(targets):
        desk.kill(target)
    seen, cursor = [], ""
    while True:
        page = members(desk.call("GET", f"/v1/flags?limit=2{cursor}"))
        assert page["counts"] == {"capability": 1, "feature": 1, "global": 1, "run": 2, "tenant": 1}
        seen += [flag["target"] for flag in page["flags"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == targets


def test_revived_targets_leave_the_list(desk: Desk) -> None:
    """A target without holds is not listed."""
    seq = members(desk.kill())["seq"]
    desk.revive("run:r-42", [seq])
    assert members(desk.call("GET", "/v1/flags"))["flags"] == []


def test_other_tenants_are_not_there(desk: Desk) -> None:
    """A bound operator sees its tenant and what is everybody's; another tenant is 404 and uncounted."""
    for target in ("tenant:acme", "tenant:other", "tenant:zeta", "run:r-1", "global"):
        desk.kill(target)
    page = members(desk.call("GET", "/v1/flags?limit=2", who="bound_operator"))
    assert [flag["target"] for flag in page["flags"]] == ["global", "run:r-1"]
    rest = members(desk.call("GET", f"/v1/flags?cursor={page['next_cursor']}", who="bound_operator"))
    assert [flag["target"] for flag in rest["flags"]] == ["tenant:acme"]
    assert rest["next_cursor"] is None
    assert page["counts"]["tenant"] == 1
    problem(desk.call("GET", "/v1/flags/tenant/other", who="bound_operator"), "not_found")
    problem(desk.call("GET", "/v1/flags/tenant/nobody", who="bound_operator"), "not_found")
    assert desk.call("GET", "/v1/flags/tenant/acme", who="bound_operator").status_code == 200


def test_a_hidden_tenant_and_a_missing_one_are_answered_alike(desk: Desk) -> None:
    """Nothing in a 404 tells a hidden tenant from one that does not exist, killing included."""
    desk.kill("tenant:other")
    for method, path, body in (
        ("GET", "/v1/flags/tenant/{}", None),
        ("POST", "/v1/kills", {"target": "tenant:{}", "reason": "why"}),
    ):
        answers = []
        for name in ("other", "ghost"):
            sent = None if body is None else {key: value.format(name) for key, value in body.items()}
            response = desk.call(method, path.format(name), sent, who="bound_operator")
            assert response.status_code == 404
            answers.append(response.get_data().replace(name.encode(), b"?"))
        assert answers[0] == answers[1]
