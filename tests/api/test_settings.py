"""GET and PUT /v1/settings: the lease ttl of the whole store, changed by admins, seen by every node at once."""

from __future__ import annotations

import time
from typing import Any, Final

import pytest

from app.domain.moments import moment
from app.service.store import StoreUnavailable, Ttl
from tests.api.desk import Desk, members, open_desk, problem
from tests.unit.service.fakes import MemoryStore

PATH: Final = "/v1/settings"


def put(desk: Desk, body: Any, **options: Any) -> Any:
    """Change the settings."""
    return desk.call("PUT", PATH, body, **options)


def test_a_new_log_has_the_configured_ttl(desk: Desk) -> None:
    """Before any change there is the ttl, and nothing to say of one before."""
    assert members(desk.call("GET", PATH, who="observer")) == {"ttl_ms": 1000, "changed_at": None, "before_ms": None}


def test_a_change_is_told_logged_and_served(desk: Desk) -> None:
    """The reply names the note; the log has it; the next lease has the new ttl; kills allow for the old one."""
    told = members(put(desk, {"ttl_ms": 400}))
    assert (told["ttl_ms"], told["before_ms"]) == (400, 1000)
    entry = members(desk.call("GET", f"/v1/log/{told['seq']}"))
    assert {key: entry[key] for key in ("kind", "topic", "ttl_ms", "before_ms", "actor")} == {
        "kind": "note",
        "topic": "settings_changed",
        "ttl_ms": 400,
        "before_ms": 1000,
        "actor": "the-admin",
    }
    assert members(desk.lease())["ttl_ms"] == 400
    shown = members(desk.call("GET", PATH))
    assert shown == {key: told[key] for key in ("ttl_ms", "changed_at", "before_ms")}
    killed = members(desk.kill())
    assert killed["effective_in_ms"] > 400


def test_the_node_that_was_told_reads_at_once(desk: Desk) -> None:
    """A change rings the doorbell, as a flip does."""
    published = desk.node.refresher.published
    desk.lease()
    told = members(put(desk, {"ttl_ms": 5000}))
    reached = desk.node.refresher.wait_beyond(told["seq"] - 1, 2.0)
    assert reached is not None
    assert (reached.ttl.ttl_ms, reached is published) == (5000, False)


def test_the_same_value_changes_nothing(desk: Desk) -> None:
    """What is set already is answered as it is, without a note."""
    assert members(put(desk, {"ttl_ms": 1000})) == {
        "ttl_ms": 1000,
        "changed_at": None,
        "before_ms": None,
        "seq": None,
    }
    first = members(put(desk, {"ttl_ms": 900}))
    again = members(put(desk, {"ttl_ms": 900}))
    assert again == {**first, "seq": None}
    assert members(desk.call("GET", "/v1/log?order=desc&limit=1"))["seq"] == first["seq"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"ttl_ms": 199},
        {"ttl_ms": 5001},
        {"ttl_ms": "1000"},
        {"ttl_ms": None},
        {"ttl_ms": True},
        {"ttl_ms": 1000, "why": "x"},
        {"ttl_ms": 2**53 - 1},
    ],
    ids=str,
)
def test_other_bodies_are_refused(shared: Desk, body: dict[str, Any]) -> None:
    """A whole number from 200 to 5000 and nothing beside it."""
    assert problem(put(shared, body), "invalid_fields")["errors"]
    assert members(shared.call("GET", PATH))["ttl_ms"] == 1000


def test_only_admins_change_it(shared: Desk) -> None:
    """Whoever may read the log may read the settings, and only an admin may change them."""
    for who in ("observer", "operator", "bound_operator", "releaser"):
        assert shared.call("GET", PATH, who=who).status_code == 200
        problem(put(shared, {"ttl_ms": 500}, who=who), "forbidden")


def test_a_moment_that_is_not_known_is_null(tmp_path: Any) -> None:
    """While nobody knows when a change was in force, changed_at is null and before_ms still counts."""
    store = MemoryStore()
    desk = open_desk(tmp_path, store=store)
    try:
        store.ttl = Ttl(300, float("inf"), 5000)
        told = members(desk.call("GET", PATH))
        assert told == {"ttl_ms": 300, "changed_at": None, "before_ms": 5000}
        assert members(desk.kill())["effective_in_ms"] > 4_000
        store.ttl = Ttl(300, 1_800_000_000.0, 5000)
        assert members(desk.call("GET", PATH))["changed_at"] == moment(1_800_000_000.0)
    finally:
        desk.close()


def test_a_store_that_cannot_write_changes_nothing(tmp_path: Any) -> None:
    """An unavailable database is a 503 that says that nothing was done."""
    store = MemoryStore()
    desk = open_desk(tmp_path, store=store)
    try:
        put(desk, {"ttl_ms": 500})  # so that the token is remembered
        store.failure = StoreUnavailable("down")
        assert problem(put(desk, {"ttl_ms": 600}), "store_unavailable")["outcome"] == "not_committed"
        store.failure = None
        assert members(desk.call("GET", PATH))["ttl_ms"] == 500
    finally:
        desk.close()


def test_a_node_with_a_wrong_clock_says_so(tmp_path: Any) -> None:
    """From its start on the metric shows how far it is off; lowering the ttl is a 409 that says what to do."""
    store = MemoryStore()
    store.clock = lambda: time.time() - 3.0
    desk = open_desk(tmp_path, store=store)
    try:
        shown = desk.call("GET", "/metrics", who=None).get_data(as_text=True)
        (line,) = [each for each in shown.splitlines() if each.startswith("haltline_clock_ahead_seconds ")]
        assert 2.0 < float(line.split()[1]) < 4.0
        told = problem(put(desk, {"ttl_ms": 500}), "clocks_apart")
        assert "3.0 s ahead" in told["detail"]
        assert "time service" in told["detail"]
        assert members(desk.call("GET", PATH))["ttl_ms"] == 1000
        assert members(put(desk, {"ttl_ms": 2000}))["ttl_ms"] == 2000
    finally:
        desk.close()


def test_an_embedded_node_has_one_clock(shared: Desk) -> None:
    """On SQLite there is nothing to compare with, and no metric that would say that all is well."""
    assert "haltline_clock_ahead_seconds" not in shared.call("GET", "/metrics", who=None).get_data(as_text=True)
