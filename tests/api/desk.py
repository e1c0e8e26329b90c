"""A service over SQLite that is asked without a network: one token a role, and a call in one line."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.config import Config
from app.domain.access import Role
from app.factory import create_app, node_of
from app.service.clocks import Clocks
from app.service.node import Node
from app.service.store import Store

TENANTS: Final = ("acme",)
BOUND: Final = {"bound_worker": Role.WORKER, "bound_operator": Role.OPERATOR}
WHO: Final = (*(role.value for role in Role), *BOUND)
"""Every kind of token: one of each role, and those that may be bound to a tenant once more, bound to acme."""


@dataclass
class Desk:
    """A running service and a token of every kind."""

    app: Flask
    tokens: dict[str, str] = field(repr=False)

    @property
    def node(self) -> Node:
        """Return the node behind the application."""
        return node_of(self.app)

    @property
    def client(self) -> FlaskClient:
        """Return a client that follows no redirects."""
        return self.app.test_client()

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        who: str | None = "admin",
        raw: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> TestResponse:
        """Ask, as one kind of token; ``raw`` is sent as it is."""
        sent = {} if who is None else {"Authorization": f"Bearer {self.tokens[who]}"}
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        if data is not None:
            sent["Content-Type"] = "application/json"
        return self.client.open(path, method=method, data=data, headers={**sent, **(headers or {})})

    def kill(self, target: str = "run:r-42", *, who: str = "admin", **members: Any) -> TestResponse:
        """Kill."""
        return self.call("POST", "/v1/kills", {"target": target, "reason": "why", **members}, who=who)

    def flag(self, target: str) -> dict[str, Any]:
        """Return a flag."""
        return members(self.call("GET", "/v1/flags/" + target.replace(":", "/", 1)))

    def revive(self, target: str, holds: list[int], *, etag: str | None = None, **more: Any) -> TestResponse:
        """Revive, naming the view as it is now unless another is given."""
        seen = self.flag(target)["etag"] if etag is None else etag
        return self.call(
            "POST",
            "/v1/revives",
            {"target": target, "holds": holds, "reason": "mended", **more},
            headers={"If-Match": seen},
        )

    def lease(self, *, who: str = "worker", **members: Any) -> TestResponse:
        """Ask for a frame, by default knowing nothing."""
        body = {
            "stream": False,
            "nonce": "0123456789abcdef",
            "worker": "mailer",
            "instance": "i-1",
            "epoch": None,
            "seq": 0,
            "hash": None,
            **members,
        }
        return self.call("POST", "/v1/lease", body, who=who)

    def close(self) -> None:
        """End the service."""
        self.node.close()


def members(response: TestResponse) -> dict[str, Any]:
    """Return the members of a JSON reply."""
    loaded = json.loads(response.get_data())
    assert isinstance(loaded, dict)
    return loaded


def problem(response: TestResponse, code: str) -> dict[str, Any]:
    """Return a problem, after checking that it is one and which."""
    assert response.content_type == "application/problem+json", response.get_data()
    told = members(response)
    assert told["code"] == code, told
    assert told["type"] == f"urn:haltline:problem:{code}"
    assert told["status"] == response.status_code
    assert told["title"]
    assert told["detail"]
    return told


def open_desk(
    folder: Path,
    *,
    store: Store | None = None,
    url: str | None = None,
    clocks: Clocks | None = None,
    config: Config | None = None,
) -> Desk:
    """Start a service, on SQLite in ``folder`` unless there is a ``store`` or another database at ``url``."""
    base = config if config is not None else Config()
    config = replace(base, database_url=url or f"sqlite:///{folder}/haltline.db", log_level="error")
    app = create_app(config, store=store, clocks=clocks)
    node = node_of(app)
    tokens = {
        role.value: node.tokens.issue(subject=f"the-{role.value}", role=role, actor="setup").text for role in Role
    }
    for name, role in BOUND.items():
        tokens[name] = node.tokens.issue(subject=f"the-{name}", role=role, actor="setup", tenants=TENANTS).text
    return Desk(app, tokens)
