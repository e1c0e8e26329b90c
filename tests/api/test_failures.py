"""Failures: outcomes told as they are, nothing internal told, and no secret anywhere."""

from __future__ import annotations

import io
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from app.api.application import HEADERS
from app.domain.tokens import parse_token
from app.service.journal import configure
from app.service.store import OutcomeUnknown, StoreUnavailable
from tests.api.desk import Desk, open_desk, problem
from tests.unit.service.fakes import MemoryStore


def test_a_store_that_is_gone(tmp_path: Path) -> None:
    """An unavailable store is 503, not committed, with a hint when to try again; the kill was not made."""
    store = MemoryStore()
    desk = open_desk(tmp_path, store=store)
    desk.kill()
    before = len(store.rows)
    store.failure = StoreUnavailable("password=hunter2")
    response = desk.kill()
    told = problem(response, "store_unavailable")
    assert told["outcome"] == "not_committed"
    assert response.headers["Retry-After"] == "1"
    assert b"hunter2" not in response.get_data()
    assert len(store.rows) == before
    store.failure = None
    desk.close()


def test_a_worker_is_not_told_to_wait(tmp_path: Path) -> None:
    """A database that is away for a moment costs no worker a second: a lease request is refused without Retry-After."""
    store = MemoryStore()
    desk = open_desk(tmp_path, store=store)
    assert desk.lease().status_code == 200
    desk.node.tokens.use_ttl(1)  # what was verified is not remembered, so that it is looked up
    store.failure = StoreUnavailable("gone")
    refused = desk.lease()
    problem(refused, "store_unavailable")
    assert "Retry-After" not in refused.headers
    store.failure = None
    desk.close()


def test_an_outcome_that_nobody_knows(tmp_path: Path) -> None:
    """A commit whose outcome is unknown is 503 unknown and says to repeat it with the same flip_id."""
    store = MemoryStore()
    desk = open_desk(tmp_path, store=store)
    desk.kill()
    store.failure = OutcomeUnknown("lost")
    told = problem(desk.kill(flip_id="f-1"), "outcome_unknown")
    assert told["outcome"] == "unknown"
    assert "same flip_id" in told["detail"]
    store.failure = None
    assert desk.kill(flip_id="f-1").status_code == 201
    assert desk.kill(flip_id="f-1").status_code == 200
    desk.close()


def test_a_fault_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of the service is a bare 500; the journal has it, without the path, the body or a secret."""
    store = MemoryStore()
    desk = open_desk(tmp_path, store=store)
    token = parse_token(desk.tokens["admin"])
    assert token is not None
    journal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", journal)
    configure("debug")
    store.failure = RuntimeError(f"a driver's message with {token.text} in it")
    response = desk.call("GET", "/v1/flags/run/canary-id", who="admin")
    told = problem(response, "internal")
    assert set(told) == {"type", "title", "status", "detail", "code"}
    assert b"driver" not in response.get_data()
    line = journal.getvalue()
    assert "request_failed" in line
    assert "RuntimeError" in line
    assert token.id in line
    assert token.secret not in line
    assert "canary-id" not in line
    store.failure = None
    desk.close()


def test_every_reply_is_guarded(shared: Desk) -> None:
    """Success, problem, docs, static file and 304 alike carry the security headers and are not cached."""
    for method, path in (
        ("GET", "/v1/flags"),
        ("GET", "/v1/nothing"),
        ("PUT", "/v1/kills"),
        ("POST", "/v1/kills"),
        ("GET", "/docs"),
        ("GET", "/static/docs.css"),
        ("GET", "/metrics"),
        ("OPTIONS", "/v1/kills"),
        ("HEAD", "/livez"),
    ):
        with shared.call(method, path) as response:
            assert {name: response.headers.get(name) for name in HEADERS} == HEADERS, (method, path)


def test_metrics_count_by_route(desk: Desk) -> None:
    """Requests are counted by route, never by path; the node's age, position and holds are there."""
    desk.kill("run:canary")
    desk.call("GET", "/v1/flags/run/canary")
    desk.call("GET", "/v1/nothing/canary")
    desk.lease()
    shown = desk.call("GET", "/metrics", who=None).get_data(as_text=True)
    assert 'haltline_requests_total{method="POST",route="/v1/kills",status="201"} 1.0' in shown
    assert 'route="/v1/flags/<scope>/<id>"' in shown
    assert 'route="none",status="404"' in shown
    assert "haltline_active_holds 1.0" in shown
    assert "haltline_log_diverged 0.0" in shown
    assert "canary" not in shown


def test_no_secret_outlives_its_reply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a life with every kind of token, no secret stands in the journal, the database, a reply or a repr."""
    journal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", journal)
    configure("debug")
    desk = open_desk(tmp_path)
    shown = []
    for who in desk.tokens:
        for method, path in (("GET", "/v1/flags"), ("GET", "/v1/log"), ("GET", "/v1/tokens"), ("POST", "/v1/kills")):
            shown.append(
                desk.call(method, path, {"target": "run:r-1", "reason": "why"}, who=who).get_data(as_text=True)
            )
        shown.append(desk.call("GET", f"/v1/{desk.tokens[who]}", who=who).get_data(as_text=True))
        shown.append(desk.call("GET", f"/v1/flags?x={desk.tokens[who]}", who=who).get_data(as_text=True))
        shown.append(desk.lease(who=who).get_data(as_text=True))
        shown.append(desk.kill(desk.tokens[who]).get_data(as_text=True))
        shown.append(desk.call("GET", f"/v1/log?{desk.tokens[who]}=1", who="admin").get_data(as_text=True))
    shown.append(repr([desk, desk.node, desk.node.tokens, desk.app]))
    shown.append(desk.call("GET", "/metrics", who=None).get_data(as_text=True))
    tokens = [parse_token(text) for text in desk.tokens.values()]
    desk.close()
    with closing(sqlite3.connect(tmp_path / "haltline.db")) as database:
        shown.append("\n".join(database.iterdump()))
    everything = "\n".join(shown) + journal.getvalue()
    assert "token_created" in journal.getvalue()
    for token in tokens:
        assert token is not None
        assert token.id in everything
        # Not even a part of it, as an error message that repeats half of what was sent would show.
        assert all(token.secret[at : at + 12] not in everything for at in range(31))
