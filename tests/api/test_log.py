"""The log over HTTP: listed, filtered, one entry at a time, exported."""

from __future__ import annotations

import json

import pytest

from app.service.exports import PAGE
from app.service.places import AT_ONCE
from app.service.store import StoreUnavailable
from haltline.flips import Position, entry_hash, follow
from tests.api.desk import Desk, members, open_desk, problem
from tests.unit.service.fakes import MemoryStore


def listed(desk: Desk, query: str, who: str = "admin") -> list[int]:
    """Return the positions that a query lists."""
    page = members(desk.call("GET", f"/v1/log?{query}", who=who))
    return [entry["seq"] for entry in page["entries"]]


@pytest.fixture(scope="module")
def told(shared: Desk) -> Desk:
    """Return a service whose log tells a story, entries 10 to 14 after the notes of the set-up."""
    shared.kill("run:r-1", who="operator")
    shared.kill("tenant:other", who="admin")
    shared.kill("tenant:acme", who="operator")
    shared.revive("run:r-1", [10])
    shared.kill("global", who="operator")
    return shared


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("cursor=9", [10, 11, 12, 13, 14]),
        ("cursor=9&limit=2", [10, 11]),
        ("order=desc&limit=2", [14, 13]),
        ("order=desc&cursor=12&limit=2", [11, 10]),
        ("kind=revive", [13]),
        ("scope=run", [10, 13]),
        ("target=run:r-1&kind=kill", [10]),
        ("actor=the-operator", [10, 12, 14]),
        ("since=2020-01-01T00:00:00Z&until=2021-01-01T00:00:00Z", []),
        ("since=2020-01-01T00:00:00Z&cursor=13", [14]),
        ("cursor=9007199254740991", []),
    ],
)
def test_filters(told: Desk, query: str, expected: list[int]) -> None:
    """Cursor, order, limit and every filter list exactly what they name."""
    assert listed(told, query) == expected


def test_next_cursor_ends(told: Desk) -> None:
    """Following next_cursor visits every entry once."""
    seen, cursor = [], ""
    while True:
        page = members(told.call("GET", f"/v1/log?limit=3{cursor}"))
        seen += [entry["seq"] for entry in page["entries"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == list(range(1, 15))


def test_one_entry(told: Desk) -> None:
    """An entry comes byte for byte as it was hashed; its ETag is its hash."""
    response = told.call("GET", "/v1/log/10")
    entry = members(response)
    assert response.headers["ETag"] == f'"{entry["hash"]}"'
    assert entry_hash(entry) == entry["hash"]
    problem(told.call("GET", "/v1/log/99"), "not_found")


def test_bound_tokens_see_stubs(told: Desk) -> None:
    """Another tenant's entries, and notes, are stubs for a bound token: in the list, alone and exported."""
    page = members(told.call("GET", "/v1/log?cursor=9", who="bound_operator"))
    shapes = [set(entry) == {"seq", "hash"} for entry in page["entries"]]
    assert shapes == [False, True, False, False, False]
    assert set(members(told.call("GET", "/v1/log/11", who="bound_operator"))) == {"seq", "hash"}
    assert set(members(told.call("GET", "/v1/log/2", who="bound_operator"))) == {"seq", "hash"}
    exported = told.call("GET", "/v1/log/export", who="bound_operator").get_data(as_text=True)
    assert "other" not in exported
    assert "the-admin" not in exported.split('"seq":10', maxsplit=1)[0]


def test_filters_tell_nothing_of_hidden_entries(told: Desk) -> None:
    """With a filter, a bound token is not even shown that a hidden entry matched."""
    assert listed(told, "scope=tenant", who="bound_operator") == [12]
    assert listed(told, "target=tenant:other", who="bound_operator") == []
    assert listed(told, "actor=the-admin&kind=kill", who="bound_operator") == []


def test_export_is_the_whole_chain(told: Desk) -> None:
    """An export verifies line by line and ends at the head that its header names."""
    response = told.call("GET", "/v1/log/export?format=jsonl")
    assert response.content_type == "application/jsonl"
    entries = [json.loads(line) for line in response.get_data().splitlines()]
    followed = list(follow(entries, after=Position()))
    end = followed[-1].position
    assert response.headers["Haltline-Head"] == f"{end.seq}:{end.hash}"
    assert end.seq == 14


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("from=10", range(10, 15)),
        ("to=3", range(1, 4)),
        ("from=4&to=4", [4]),
        ("from=13&to=99", [13, 14]),
        ("from=15", []),
    ],
)
def test_export_of_a_range(told: Desk, query: str, expected: list[int]) -> None:
    """From and to name the first and the last entry, and the header the last one."""
    response = told.call("GET", f"/v1/log/export?{query}")
    seqs = [json.loads(line)["seq"] for line in response.get_data().splitlines()]
    assert seqs == list(expected)
    if seqs:
        assert response.headers["Haltline-Head"].startswith(f"{seqs[-1]}:")


@pytest.mark.parametrize("query", ["format=csv", "from=0", "from=5&to=4", "to=x", "from=1&from=2", "page=2"])
def test_exports_that_make_no_sense(told: Desk, query: str) -> None:
    """What cannot be exported is refused before anything is sent."""
    problem(told.call("GET", f"/v1/log/export?{query}"), "invalid_fields")


def test_at_most_64_exports_at_once(desk: Desk) -> None:
    """The 65th export is answered 503; as soon as one ends, another may begin."""
    running = [desk.call("GET", "/v1/log/export") for _ in range(AT_ONCE)]
    problem(desk.call("GET", "/v1/log/export"), "too_many_exports")
    running.pop().close()
    assert desk.call("GET", "/v1/log/export").status_code == 200
    for each in running:
        each.close()


def test_a_refused_export_takes_no_place(desk: Desk) -> None:
    """An export that fails before it begins gives its place back."""
    for _ in range(AT_ONCE + 5):
        problem(desk.call("GET", "/v1/log/export?from=2&to=1"), "invalid_fields")
    assert desk.call("GET", "/v1/log/export").status_code == 200


@pytest.mark.parametrize("fault", ["unreadable", "entry missing"])
def test_a_broken_export_does_not_end_cleanly(tmp_path_factory: pytest.TempPathFactory, fault: str) -> None:
    """A failure after the headers raises out of the application, so that the server breaks the connection off."""
    store = MemoryStore()
    desk = open_desk(tmp_path_factory.mktemp("broken"), store=store)
    for _ in range(PAGE):
        store.append("note", topic="padding")
    response = desk.call("GET", "/v1/log/export")
    assert response.status_code == 200
    if fault == "unreadable":
        store.failure = StoreUnavailable("gone")
    else:
        del store.rows[PAGE + 3]
    with pytest.raises(Exception, match=r"gone|should come next|has no entry"):
        response.get_data()
    store.failure = None
    desk.close()


def test_an_export_that_cannot_begin_is_a_problem(tmp_path_factory: pytest.TempPathFactory) -> None:
    """If the first page cannot be read, the answer is a 503, not a broken 200, and no place is lost."""
    store = MemoryStore()
    desk = open_desk(tmp_path_factory.mktemp("unbegun"), store=store)
    rows, store.rows = store.rows, [store.rows[0], *store.rows[2:]]
    for _ in range(AT_ONCE + 1):
        problem(desk.call("GET", "/v1/log/export"), "diverged")
    store.rows = rows
    assert desk.call("GET", "/v1/log/export").status_code == 200
    desk.close()
