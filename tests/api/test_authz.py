"""Who may what, on every route that the OpenAPI document lists: generated, so that no route can be forgotten."""

from __future__ import annotations

from typing import Any, Final

import pytest

from app.api.problems import CONTENT_TYPE
from app.config import Config
from app.domain.access import Permission, Role
from app.domain.tokens import Token
from app.factory import create_app, node_of
from tests.api.desk import BOUND, WHO, Desk, members, problem
from tests.unit.service.fakes import MemoryStore

READ, LEASE, KILL, REVIVE, TOKENS, SETTINGS = "read", "lease", "kill", "revive", "tokens", "settings"

MAY: Final[dict[str, set[str]]] = {
    "observer": {READ},
    "worker": {LEASE},
    "bound_worker": {LEASE},
    "operator": {READ, KILL},
    "bound_operator": {READ, KILL},
    "releaser": {READ, REVIVE},
    "gateway": set(),
    "admin": {READ, LEASE, KILL, REVIVE, TOKENS, SETTINGS},
}
"""Written out by hand, so that a slip in the code's own table is found. The admin is that of an embedded install."""

NEEDS: Final[dict[tuple[str, str], str | None]] = {
    ("post", "/v1/kills"): KILL,
    ("post", "/v1/revives"): REVIVE,
    ("get", "/v1/flags"): READ,
    ("get", "/v1/flags/global"): READ,
    ("get", "/v1/flags/{scope}/{id}"): READ,
    ("get", "/v1/log"): READ,
    ("get", "/v1/log/{seq}"): READ,
    ("get", "/v1/log/export"): READ,
    ("get", "/v1/events"): READ,
    ("post", "/v1/tokens"): TOKENS,
    ("get", "/v1/tokens"): TOKENS,
    ("delete", "/v1/tokens/{token_id}"): TOKENS,
    ("get", "/v1/settings"): READ,
    ("put", "/v1/settings"): SETTINGS,
    ("post", "/v1/lease"): LEASE,
    ("post", "/v1/acks"): LEASE,
    ("post", "/v1/outcomes"): LEASE,
    ("get", "/v1/outcomes"): READ,
    ("get", "/livez"): None,
    ("get", "/readyz"): None,
    ("get", "/metrics"): None,
}
OPEN: Final = {"/openapi.json", "/docs", "/static/<path:filename>"}
"""Routes outside the document; they need no token and tell nothing of the log."""

GUARDED: Final = [key for key, needed in NEEDS.items() if needed is not None]
SHOWN: Final = {"seq": "1", "scope": "run", "id": "r-1", "token_id": "a" * 12}


def operations(desk: Desk) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the operations of the OpenAPI document."""
    document = members(desk.call("GET", "/openapi.json", who=None))
    return {
        (method, path): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    }


def ask(desk: Desk, method: str, path: str, *, who: str | None, headers: dict[str, str] | None = None) -> Any:
    """Call a route with the example of its own documentation as body."""
    operation = operations(desk)[method, path]
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    sent = {"If-Match": '"x"', **(headers or {})}
    return desk.call(method.upper(), path.format(**SHOWN), content.get("example"), who=who, headers=sent)


def test_the_document_lists_every_route(shared: Desk) -> None:
    """Every route of the application is in the document, with the permission expected here, or known to be open."""
    found = operations(shared)
    assert set(found) == set(NEEDS)
    for key, operation in found.items():
        assert operation.get("x-haltline-permission") == NEEDS[key], key
        assert operation["security"] == ([] if NEEDS[key] is None else [{"bearer": []}]), key
    rules = {
        (method.lower(), rule.rule.replace("<", "{").replace(">", "}"))
        for rule in shared.app.url_map.iter_rules()
        if rule.rule not in OPEN
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert rules == set(NEEDS)


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_the_matrix(shared: Desk, who: str, method: str, path: str) -> None:
    """Each kind of token is let through exactly where it may; elsewhere it is 403 before anything is read."""
    response = ask(shared, method, path, who=who)
    allowed = NEEDS[method, path] in MAY[who]
    told = members(response) if response.content_type == CONTENT_TYPE else {}
    if allowed:
        assert response.status_code not in {401, 405, 500}, response.get_data()
        assert "may not" not in told.get("detail", "") or who in BOUND
    else:
        problem(response, "forbidden")
        assert response.status_code == 403


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_no_token_no_entry(shared: Desk, method: str, path: str) -> None:
    """Without a token, or with anything that is not a live one, a guarded route is 401 and says how to ask."""
    live = shared.tokens["admin"]
    secretless = live[:-49] + Token("default", live.split("_")[2], "A" * 43).text[-49:]
    unknown = Token("default", "a" * 12, "A" * 43).text
    for header in (
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        f"Basic {live}",
        live,
        f"Bearer {live}x",
        f"Bearer {live[:-1]}",
        f"Bearer {secretless}",
        f"Bearer {unknown}",
        f"Bearer {live} {live}",
    ):
        headers = {} if header is None else {"Authorization": header}
        response = ask(shared, method, path, who=None, headers=headers)
        problem(response, "unauthenticated")
        assert response.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_tokens_of_another_namespace(shared: Desk, method: str, path: str) -> None:
    """A whole token of another namespace is 403 on every guarded route."""
    foreign = Token("staging", "a" * 12, "A" * 43).text
    response = ask(shared, method, path, who=None, headers={"Authorization": f"Bearer {foreign}"})
    problem(response, "wrong_namespace")
    assert response.status_code == 403


def test_a_token_in_the_url_is_no_token(shared: Desk) -> None:
    """A token in the query opens nothing."""
    for name in ("token", "access_token", "api_key"):
        problem(shared.call("GET", f"/v1/flags?{name}={shared.tokens['admin']}", who=None), "unauthenticated")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/openapi.json", "/docs", "/static/docs.css"])
def test_open_routes_tell_no_ids(desk: Desk, path: str) -> None:
    """What needs no token says nothing about any target, subject or token."""
    desk.kill("tenant:canary-tenant", reason="canary reason")
    with desk.call("GET", path, who=None) as response:
        assert response.status_code == 200
        shown = response.get_data(as_text=True)
    for canary in ("canary", "the-admin", *(token.split("_")[2] for token in desk.tokens.values())):
        assert canary not in shown


KILLS: Final = {
    "tenant:acme": 201,
    "tenant:other": 404,
    "run:r-1": 404,
    "capability:send_email": 403,
    "feature:x": 403,
    "global": 403,
}


@pytest.mark.parametrize("target", KILLS)
def test_what_a_bound_operator_may_kill(shared: Desk, target: str) -> None:
    """A bound operator kills its own tenant; other tenants and runs do not exist for it, the rest is not its own."""
    assert shared.kill(target, who="bound_operator").status_code == KILLS[target]
    assert shared.kill(target, who="operator").status_code == 201


def test_in_production_an_admin_does_not_flip() -> None:
    """On PostgreSQL an admin token reads and makes tokens; for flips there are operators and releasers."""
    app = create_app(Config(database_url="postgresql://unused", log_level="error"), store=MemoryStore())
    node = node_of(app)
    text = node.tokens.issue(subject="root", role=Role.ADMIN, actor="root").text
    desk = Desk(app, {"admin": text})
    problem(desk.kill(), "forbidden")
    problem(desk.lease(who="admin"), "forbidden")
    assert desk.call("GET", "/v1/tokens").status_code == 200
    principal = node.tokens.verify(text)
    assert getattr(principal, "permissions", None) == {Permission.READ, Permission.TOKENS, Permission.SETTINGS}
    node.close()
