"""Contract of every store: the tables hold exactly what the log folds to."""

from __future__ import annotations

import json
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.service.store import Committed, LogDiverged, NoSuchHold, StaleView, Store
from haltline.canonical import MAX_INTEGER
from haltline.flips import parse_entry
from haltline.replica import Replica
from haltline.scopes import parse_target
from tests.support.orders import committed, kill_order, revive_order
from tests.support.places import Place

BEFORE_EVERYTHING: Final = "0001-01-01T00:00:00.000000Z"
TARGETS: Final = ("global", "tenant:acme", "feature:outreach", "run:r-1", "run:R-1", "capability:send_email")

flips = st.lists(
    st.tuples(st.sampled_from(["kill", "kill", "revive", "stale"]), st.sampled_from(TARGETS), st.integers(0, 3)),
    max_size=12,
)
# The store is opened once for all examples: the law holds for every log, so also for one that grows.
once = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _flip(store: Store, what: str, name: str, which: int, at: str) -> None:
    if what == "kill":
        committed(store.kill(kill_order(name, at=at)))
        return
    flag = store.flag(parse_target(name))[1]
    seqs = [hold.seq for hold in flag.holds][: which + 1] or [1]
    seen = frozenset({flag.version - (what == "stale")})
    result = store.revive(revive_order(flag, *seqs, at=at, seen=seen))
    expected = StaleView if what == "stale" else Committed if flag.holds else NoSuchHold
    assert isinstance(result, expected)


def _folded(store: Store) -> Replica:
    head = store.head()
    entries = [parse_entry(json.loads(row.body)) for row in store.export(after=0, up_to=MAX_INTEGER, limit=100_000)]
    return Replica(head.namespace, head.epoch).extend(entries)


def _shown(replica: Replica) -> tuple[object, ...]:
    places = (replica.namespace, replica.epoch, replica.position, replica.floor_seq)
    return (*places, dict(replica.holds), dict(replica.marks))


@once
@given(flips=flips)
def test_the_tables_are_the_fold_of_the_log(store: Store, flips: list[tuple[str, str, int]]) -> None:
    """Whatever was killed and revived, load() is the replica that folding the exported log gives."""
    for what, name, which in flips:
        _flip(store, what, name, which, "2026-11-20T20:25:12.000000Z")
    found = store.load(remember_since=BEFORE_EVERYTHING)
    head, loaded = found.head, found.replica
    assert _shown(loaded) == _shown(_folded(store))
    assert head == store.head()


@once
@given(flips=flips, since=st.integers(0, 59))
def test_what_is_forgotten_lies_below_the_floor(store: Store, flips: list[tuple[str, str, int]], since: int) -> None:
    """Marks older than remember_since are left out unless the target is killed; the newest of them is the floor."""
    for minute, (what, name, which) in enumerate(flips):
        _flip(store, what, name, which, f"2026-11-20T20:{minute:02}:00.000000Z")
    moment = f"2026-11-20T20:{since:02}:00.000000Z"
    whole = _folded(store)
    at = {
        row.position.seq: json.loads(row.body)["at"] for row in store.export(after=0, up_to=MAX_INTEGER, limit=100_000)
    }
    kept = {name: mark for name, mark in whole.marks.items() if name in whole.holds or at[mark.last_kill] >= moment}
    left_out = [mark.last_kill for name, mark in whole.marks.items() if name not in kept]
    loaded = store.load(remember_since=moment).replica
    assert dict(loaded.marks) == kept
    assert loaded.floor_seq == max(left_out, default=0)
    assert dict(loaded.holds) == dict(whole.holds)


def test_a_loaded_replica_goes_on_with_the_log(store: Store) -> None:
    """The entries after the loaded position extend it."""
    committed(store.kill(kill_order("run:r-1")))
    loaded = store.load(remember_since=BEFORE_EVERYTHING).replica
    flag = committed(store.kill(kill_order("run:r-2"))).flag
    committed(store.revive(revive_order(flag)))
    page = store.refresh(loaded.position, limit=10)
    extended = loaded.extend(parse_entry(json.loads(row.body)) for row in page.rows)
    assert _shown(extended) == _shown(store.load(remember_since=BEFORE_EVERYTHING).replica)


@pytest.mark.parametrize("edit", ["DELETE FROM holds", "UPDATE log_head SET active_holds = 0"])
def test_a_hold_that_vanished_is_not_read_as_free(place: Place, edit: str) -> None:
    """If the tables hold fewer holds than the head counts, nothing is loaded."""
    store = place.opened()
    try:
        committed(store.kill(kill_order()))
        place.execute(edit)
        with pytest.raises(LogDiverged, match="active holds"):
            store.load(remember_since=BEFORE_EVERYTHING)
    finally:
        store.close()


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        ("DELETE FROM holds WHERE seq = 2;UPDATE log_head SET active_holds = active_holds - 1", "hold 2 on run:r-1 "),
        ("UPDATE holds SET target = 'run:r-2' WHERE seq = 2", "hold 2 on run:r-"),
        ("UPDATE holds SET seq = 3 WHERE seq = 2", "hold 2 on run:r-1 "),
        ("UPDATE holds SET reason = 'x' WHERE seq = 2", "hold 2 in the table holds"),
        ("UPDATE holds SET queued = 'drain' WHERE seq = 2", "hold 2 in the table holds"),
        ("UPDATE targets SET last_kill = 1, barrier = 1 WHERE target = 'run:r-2'", "run:r-2 has last_kill"),
        ("UPDATE targets SET barrier = 0 WHERE target = 'run:r-2'", "run:r-2 has last_kill"),
        ("UPDATE targets SET version = 9 WHERE target = 'run:r-2'", "run:r-2 has last_kill"),
        ("DELETE FROM targets WHERE target = 'run:r-2'", "run:r-2 is in the log"),
    ],
)
@pytest.mark.parametrize("since", [BEFORE_EVERYTHING, "9999-01-01T00:00:00.000000Z"])
def test_tables_that_the_log_does_not_fold_to_are_not_loaded(place: Place, edit: str, why: str, since: str) -> None:
    """Tables edited under the log are found at the load, and named: no killed run goes because of them."""
    store = place.opened()
    try:
        committed(store.kill(kill_order("run:r-1")))
        committed(store.revive(revive_order(committed(store.kill(kill_order("run:r-2"))).flag)))
        committed(store.kill(kill_order("run:r-3")))
        store.load(remember_since=since)
        place.execute(*edit.split(";"))
        with pytest.raises(LogDiverged, match=why):
            store.load(remember_since=since)
    finally:
        store.close()


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE log SET body = replace(body, 'too much', 'too little') WHERE seq = 2",
        "UPDATE log SET body = '[]' WHERE seq = 2",
        "UPDATE log SET body = '' WHERE seq = 2",
        "UPDATE log SET body = replace(body, 'kill', 'permit') WHERE seq = 2",
        "UPDATE log SET hash = replace(hash, substr(hash, 1, 1), 'x') WHERE seq = 2",
    ],
)
def test_a_kill_that_was_edited_is_not_loaded(place: Place, edit: str) -> None:
    """An active kill counts only as it was hashed."""
    store = place.opened()
    try:
        committed(store.kill(kill_order("run:r-1")))
        place.disarm()
        place.execute(edit)
        with pytest.raises(LogDiverged, match=r"entry 2 (of the log|is no flip)"):
            store.load(remember_since=BEFORE_EVERYTHING)
    finally:
        store.close()
