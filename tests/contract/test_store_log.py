"""Contract of every store: the log's beginning, its pages, its filters, and how it notices that it is another log."""

from __future__ import annotations

import json
from typing import Final

import pytest

from app.service.store import LogDiverged, LogQuery, LogRow, Store, StoreUnavailable
from haltline.canonical import MAX_INTEGER
from haltline.flips import GENESIS_HASH, Note, Position, follow, parse_entry
from tests.support.orders import committed, kill_order, revive_order
from tests.support.places import EPOCH, NAMESPACE, OPENED_AT, Place


def _kills(store: Store, count: int) -> list[LogRow]:
    return [committed(store.kill(kill_order(f"run:r-{number}"))).row for number in range(count)]


def _seqs(store: Store, query: LogQuery) -> list[int]:
    return [row.position.seq for row in store.log(query)[1]]


def test_a_new_log_begins_with_a_note(store: Store) -> None:
    """Entry 1 is the note log_opened with the ttl, and follows nothing."""
    row = store.entry(1)
    assert row is not None
    members = json.loads(row.body)
    entry = parse_entry(members, namespace=NAMESPACE, epoch=EPOCH)
    assert entry == Note(row.position, GENESIS_HASH, OPENED_AT, "haltline", "log_opened")
    assert members["ttl_ms"] == 1000
    assert store.head().position == row.position


def test_an_existing_log_is_opened_as_it_is(store: Store) -> None:
    """Opening again changes neither epoch, ttl nor position, whatever is asked for a new log."""
    _kills(store, 2)
    head = store.head()
    opened = store.open_log(namespace=NAMESPACE, ttl_ms=5000, at="2027-01-01T00:00:00.000000Z", epoch="f" * 16)
    assert opened == head == store.head()


def test_another_namespace_is_refused(store: Store) -> None:
    """A database that holds one namespace's log never serves another's."""
    head = store.head()
    with pytest.raises(LogDiverged, match="default"):
        store.open_log(namespace="staging", ttl_ms=1000, at=OPENED_AT, epoch=EPOCH)
    assert store.head() == head


def test_without_a_log_nothing_is_answered(place: Place) -> None:
    """Before open_log there is no head, no page and no kill: unavailable, not empty."""
    store = place.open()
    try:
        for call in (
            store.head,
            lambda: store.refresh(Position(), limit=10),
            lambda: store.kill(kill_order()),
            lambda: store.load(remember_since=OPENED_AT),
        ):
            with pytest.raises(StoreUnavailable, match="no log"):
                call()
    finally:
        store.close()


def test_a_closed_store_is_unavailable(place: Place) -> None:
    """After close every call says that nothing was done."""
    store = place.opened()
    store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.kill(kill_order())
    with pytest.raises(StoreUnavailable, match="closed"):
        store.head()
    store.close()


def test_the_whole_log_is_one_chain(store: Store) -> None:
    """Kills, revives and notes follow one another from 64 zeros to the head."""
    for number in range(10):
        flag = committed(store.kill(kill_order(f"run:r-{number % 3}"))).flag
        if number % 2:
            committed(store.revive(revive_order(flag)))
    rows = store.export(after=0, up_to=MAX_INTEGER, limit=1000)
    entries = list(follow((json.loads(row.body) for row in rows), after=Position()))
    assert entries[-1].position == store.head().position
    assert [row.position for row in rows] == [entry.position for entry in entries]


def test_refresh_pages_to_the_head(store: Store) -> None:
    """Pages continue one another without a gap, and only the one that reaches the head is the last."""
    _kills(store, 7)
    position, seen, lasts = Position(), [], []
    while True:
        page = store.refresh(position, limit=3)
        seen += [row.position.seq for row in page.rows]
        lasts.append(page.last)
        position = page.rows[-1].position
        if page.last:
            break
    assert seen == list(range(1, 9))
    assert lasts == [False, False, True]
    assert position == page.head.position


def test_refresh_at_the_head_is_an_empty_last_page(store: Store) -> None:
    """Nothing new is an empty page that reaches the head."""
    _kills(store, 2)
    page = store.refresh(store.head().position, limit=3)
    assert (list(page.rows), page.last, page.head) == ([], True, store.head())


def test_refresh_of_a_full_page_that_reaches_the_head_is_last(store: Store) -> None:
    """A page of exactly the limit is the last if nothing is behind it."""
    _kills(store, 2)
    page = store.refresh(Position(), limit=3)
    assert (len(page.rows), page.last) == (3, True)


def test_refresh_refuses_a_log_that_is_shorter(store: Store) -> None:
    """A position beyond the head was read from another log."""
    head = store.head().position
    with pytest.raises(LogDiverged, match="ends at 1"):
        store.refresh(Position(head.seq + 1, "a" * 64), limit=10)


@pytest.mark.parametrize("seq", [1, 3], ids=["within", "at the head"])
def test_refresh_refuses_another_hash(store: Store, seq: int) -> None:
    """A position whose hash is another is another log."""
    _kills(store, 2)
    with pytest.raises(LogDiverged, match=f"entry {seq} "):
        store.refresh(Position(seq, "a" * 64), limit=10)


@pytest.mark.parametrize(
    ("edit", "read_up_to"),
    [
        ("DELETE FROM log WHERE seq = 4", 4),
        ("DELETE FROM log WHERE seq = 4", 2),
        ("DELETE FROM log WHERE seq = 3", 2),
        ("DELETE FROM log WHERE seq = 3", 0),
        ("UPDATE log SET hash = '{other}' WHERE seq = 4", 4),
        ("UPDATE log SET hash = '{other}' WHERE seq = 4", 2),
        ("UPDATE log_head SET seq = 3", 4),
        ("UPDATE log_head SET seq = 3", 2),
        ("UPDATE log_head SET hash = '{other}'", 4),
        ("DELETE FROM log", 4),
        ("DELETE FROM log", 0),
    ],
)
def test_an_edited_database_is_noticed(place: Place, edit: str, read_up_to: int) -> None:
    """A node that had read the log up to somewhere notices what was taken away or altered behind the service's back."""
    store = place.opened()
    try:
        known = {0: Position(), **{row.position.seq: row.position for row in _kills(store, 3)}}
        place.disarm()
        # The holds refer to the entries: whoever edits takes them along.
        place.execute("DELETE FROM holds", "DELETE FROM targets", edit.format(other="b" * 64))
        with pytest.raises(LogDiverged):
            store.refresh(known[read_up_to], limit=10)
    finally:
        store.close()


def test_a_log_without_its_head_is_not_begun_anew(place: Place) -> None:
    """If the head row is gone but entries are there, the log is not opened as a new one."""
    store = place.opened()
    try:
        place.execute("DELETE FROM log_head")
        with pytest.raises(LogDiverged, match="no head"):
            store.open_log(namespace=NAMESPACE, ttl_ms=1000, at=OPENED_AT, epoch=EPOCH)
    finally:
        store.close()


def test_a_head_behind_its_log_takes_no_kill(place: Place) -> None:
    """A head that was set back can neither overwrite an entry nor fork the chain."""
    store = place.opened()
    try:
        rows = _kills(store, 2)
        place.execute("UPDATE log_head SET seq = 2, hash = (SELECT hash FROM log WHERE seq = 2)")
        with pytest.raises(StoreUnavailable, match="nothing was changed"):
            store.kill(kill_order())
        assert store.entry(3) == rows[1]
    finally:
        store.close()


def test_one_entry_by_its_position(store: Store) -> None:
    """An entry is found by its seq; a seq that nobody has is None, however large."""
    rows = _kills(store, 2)
    assert store.entry(2) == rows[0]
    assert [store.entry(seq) for seq in (0, -1, 4, 2**63, 2**200)] == [None] * 5


def test_export_pages(store: Store) -> None:
    """An export's page has the entries after one position up to another, ascending."""
    _kills(store, 6)
    assert [row.position.seq for row in store.export(after=2, up_to=6, limit=3)] == [3, 4, 5]
    assert [row.position.seq for row in store.export(after=5, up_to=6, limit=3)] == [6]
    assert store.export(after=6, up_to=6, limit=3) == []


def test_the_log_in_both_directions(store: Store) -> None:
    """The cursor is exclusive in both orders, and 0 means the beginning or the head."""
    _kills(store, 4)
    assert _seqs(store, LogQuery(limit=2)) == [1, 2]
    assert _seqs(store, LogQuery(after=2, limit=2)) == [3, 4]
    assert _seqs(store, LogQuery(order="desc", limit=2)) == [5, 4]
    assert _seqs(store, LogQuery(order="desc", after=4, limit=2)) == [3, 2]
    assert _seqs(store, LogQuery(after=2**70)) == []
    assert store.log(LogQuery())[0] == store.head()


FILTERS: Final[tuple[tuple[LogQuery, list[int]], ...]] = (
    (LogQuery(scope="run"), [2, 3, 6]),
    (LogQuery(scope="global"), [5]),
    (LogQuery(target="run:a"), [2, 6]),
    (LogQuery(target="run:A"), [3]),
    (LogQuery(target="run:%"), []),
    (LogQuery(actor="eve"), [3]),
    (LogQuery(kind="note"), [1]),
    (LogQuery(kind="revive"), [6]),
    (LogQuery(target="run:a", actor="bob", kind="revive", scope="run"), [6]),
    (LogQuery(target="run:a", actor="eve"), []),
    (LogQuery(since="2026-11-20T20:25:13.000000Z"), [3, 4, 5, 6]),
    (LogQuery(since="2026-11-20T20:25:13.000001Z"), [5, 6]),
    (LogQuery(until="2026-11-20T20:25:13.000000Z"), [1, 2]),
    (LogQuery(until="2026-11-20T20:25:13.000001Z", order="desc"), [4, 3, 2, 1]),
    (LogQuery(since="2026-11-20T20:25:13.000000Z", until="2026-11-20T20:25:14.000000Z"), [3, 4]),
    (LogQuery(since="2027-01-01T00:00:00.000000Z"), []),
    (LogQuery(until="2020-01-01T00:00:00.000000Z"), []),
    (LogQuery(until="2027-01-01T00:00:00.000000Z", scope="run", after=2), [3, 6]),
)


def test_filters_are_exact_and_all_must_hold(store: Store) -> None:
    """Filters compare whole values, byte by byte, without patterns; since is inclusive, until exclusive."""
    first = committed(store.kill(kill_order("run:a", at="2026-11-20T20:25:12.000000Z")))
    store.kill(kill_order("run:A", actor="eve", at="2026-11-20T20:25:13.000000Z"))
    store.kill(kill_order("tenant:a", at="2026-11-20T20:25:13.000000Z"))
    store.kill(kill_order("global", at="2026-11-20T20:25:14.000000Z"))
    committed(store.revive(revive_order(first.flag, at="2026-11-20T20:25:14.000000Z")))
    assert [(query, _seqs(store, query)) for query, _ in FILTERS] == list(FILTERS)


def test_flags_are_the_killed_targets_in_order(store: Store) -> None:
    """Killed targets come in the order of their bytes, page by page, revived ones not at all."""
    names = ["run:a", "run:B", "global", "tenant:x", "capability:send_email", "feature:z"]
    for name in names:
        committed(store.kill(kill_order(name)))
    twice = committed(store.kill(kill_order("run:a"))).flag
    gone = committed(store.kill(kill_order("run:gone"))).flag
    committed(store.revive(revive_order(gone)))
    head, first = store.flags(after=None, limit=4)
    assert head == store.head()
    second = store.flags(after=str(first[-1].target), limit=4)[1]
    assert [str(flag.target) for flag in (*first, *second)] == sorted(names)
    assert next(flag for flag in second if str(flag.target) == "run:a") == twice
    assert store.flags(after="tenant:x", limit=4)[1] == ()
