"""Tokens over HTTP: made once, shown once, revoked for good."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.tokens import parse_token
from tests.api.desk import Desk, members, problem


def make(desk: Desk, **body: Any) -> dict[str, Any]:
    """Make a token."""
    response = desk.call("POST", "/v1/tokens", {"subject": "mailer", "role": "worker", **body})
    assert response.status_code == 201, response.get_data()
    return members(response)


def test_a_token_is_shown_once(desk: Desk) -> None:
    """The reply to its making is the only place where a token's text ever stands."""
    made = make(desk, tenants=["b", "a"], expires_in_days=1)
    token = parse_token(made["token"])
    assert token is not None
    assert made["token_id"] == token.id
    assert made["tenants"] == ["a", "b"]
    listed = desk.call("GET", "/v1/tokens?limit=1000").get_data(as_text=True)
    assert token.id in listed
    log = desk.call("GET", "/v1/log?limit=1000").get_data(as_text=True)
    assert token.id in log
    for shown in (listed, log):
        assert token.secret not in shown
        assert token.secret_sha256 not in shown


def test_a_new_token_works_at_once(desk: Desk) -> None:
    """A token can be used as soon as it was answered."""
    desk.tokens["new"] = make(desk)["token"]
    assert desk.lease(who="new").status_code == 200


def test_a_revoked_token_is_refused_at_once(desk: Desk) -> None:
    """After DELETE a token opens nothing, though it was used a moment before."""
    made = make(desk)
    desk.tokens["new"] = made["token"]
    assert desk.lease(who="new").status_code == 200
    response = desk.call("DELETE", f"/v1/tokens/{made['token_id']}")
    assert (response.status_code, response.get_data()) == (204, b"")
    problem(desk.lease(who="new"), "unauthenticated")
    problem(desk.call("DELETE", f"/v1/tokens/{made['token_id']}"), "not_found")


def test_listing_pages(desk: Desk) -> None:
    """Cursor and limit visit each token once."""
    for _ in range(3):
        make(desk)
    seen, cursor = [], ""
    while True:
        page = members(desk.call("GET", f"/v1/tokens?limit=2{cursor}"))
        seen += [token["token_id"] for token in page["tokens"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert len(seen) == len(set(seen)) == len(desk.tokens) + 3


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"role": "root"}, "role"),
        ({"role": "admin", "tenants": ["acme"]}, "tenants"),
        ({"tenants": []}, "tenants"),
        ({"tenants": ["a", "a"]}, "tenants"),
        ({"tenants": ["a b"]}, "tenants.0"),
        ({"expires_in_days": 0}, "expires_in_days"),
        ({"expires_in_days": 367}, "expires_in_days"),
        ({"expires_in_days": "90"}, "expires_in_days"),
        ({"expires_in_days": True}, "expires_in_days"),
        ({"subject": "ada@example.org"}, "subject"),
        ({"subject": None}, "subject"),
        ({"secret": "x"}, "secret"),
    ],
)
def test_bad_tokens(shared: Desk, body: dict[str, Any], field: str) -> None:
    """Every field of a token has its bounds."""
    response = shared.call("POST", "/v1/tokens", {"subject": "mailer", "role": "worker", **body})
    assert field in problem(response, "invalid_fields")["errors"]


@pytest.mark.parametrize("token_id", ["short", "A" * 12, "a" * 13, "%00" * 12])
def test_bad_token_ids(shared: Desk, token_id: str) -> None:
    """A path that holds no token id is refused, not looked up."""
    problem(shared.call("DELETE", f"/v1/tokens/{token_id}"), "invalid_fields")
