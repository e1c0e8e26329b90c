"""Contract of every store: the lease ttl of the whole store, changed as a note, read with everything it goes with."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable

import pytest

from app.domain.promises import CLOCKS_APART_S
from app.service.store import LogQuery, LogRow, Store, StoreUnavailable, Ttl
from haltline.flips import Note, Position, parse_entry
from tests.support.orders import AT, committed, kill_order
from tests.support.places import Place

NOW = 1_800_000_000.0


def _set(store: Store, ttl_ms: int, *, wall: Callable[[], float] = lambda: NOW) -> tuple[LogRow | None, Ttl]:
    return store.set_ttl(ttl_ms, actor="ann", at=AT, wall=wall)


def test_a_change_is_a_note(store: Store) -> None:
    """A changed ttl is the next entry of the chain: who set it, to what, and what it was."""
    before = store.head().position
    row, ttl = _set(store, 500)
    assert row is not None
    entry = parse_entry(json.loads(row.body))
    assert isinstance(entry, Note)
    assert (entry.position.seq, entry.prev_hash, entry.actor) == (before.seq + 1, before.hash, "ann")
    assert entry.topic == "settings_changed"
    assert {key: json.loads(row.body)[key] for key in ("ttl_ms", "before_ms")} == {"ttl_ms": 500, "before_ms": 1000}
    assert ttl == Ttl(500, NOW + CLOCKS_APART_S, 1000)
    assert store.settings() == ttl


def test_the_ttl_is_read_with_the_entries(store: Store) -> None:
    """One read has the note and the new ttl, or neither; and a flip after it carries the new ttl."""
    before = store.refresh(Position(), limit=10)
    row, ttl = _set(store, 500)
    after = store.refresh(before.head.position, limit=10)
    assert (before.head.ttl.ttl_ms, after.head.ttl) == (1000, ttl)
    assert list(after.rows) == [row]
    assert committed(store.kill(kill_order())).ttl == ttl
    assert store.load(remember_since=AT).head.ttl == ttl


def test_the_same_value_is_no_change(store: Store) -> None:
    """Setting what is set already writes nothing, the first time and after a change."""
    head = store.head()
    assert _set(store, 1000) == (None, head.ttl)
    assert store.head() == head
    row, ttl = _set(store, 700)
    assert _set(store, 700, wall=lambda: NOW + 99) == (None, ttl)
    assert row is not None
    assert store.head().position == row.position


def test_lowered_twice_quickly(store: Store) -> None:
    """What is left of the longest earlier ttl is remembered through any number of changes."""
    _set(store, 5000)
    _, first = _set(store, 1000, wall=lambda: NOW + 100)
    _, second = _set(store, 200, wall=lambda: NOW + 100.5)
    assert first.before_ms == 5000
    assert second.changed_at + second.before_ms / 1000 >= first.changed_at + first.before_ms / 1000
    assert second.before_ms <= 5000
    _, third = _set(store, 300, wall=lambda: NOW + 200)
    assert third.before_ms == 200


def test_a_change_whose_moment_is_not_known(store: Store) -> None:
    """If nothing more can be written after the change, it is durable, says so, and the next call makes up for it."""
    readings = iter([NOW])

    def wall() -> float:
        try:
            return next(readings)
        except StopIteration:
            raise StoreUnavailable("the connection is lost between the two transactions") from None

    row, ttl = _set(store, 300, wall=wall)
    assert row is not None
    assert (ttl.ttl_ms, ttl.changed_at, ttl.before_ms) == (300, math.inf, 1000)
    assert store.settings() == ttl
    assert committed(store.kill(kill_order())).ttl == ttl
    assert _set(store, 300, wall=lambda: NOW + 7) == (None, Ttl(300, NOW + 7 + CLOCKS_APART_S, 1000))
    assert store.settings().changed_at == NOW + 7 + CLOCKS_APART_S


def test_the_moment_is_read_after_the_change_is_visible(store: Store) -> None:
    """The clock that dates the change is read when every reader already sees the new ttl."""
    seen: list[int] = []

    def look() -> None:
        seen.append(store.settings().ttl_ms)

    def wall() -> float:
        # Not from this thread: on SQLite it is the one that does the reading.
        thread = threading.Thread(target=look)
        thread.start()
        thread.join(0.2)
        waiting.append(thread)
        return time.time()

    waiting: list[threading.Thread] = []
    _set(store, 300, wall=wall)
    for thread in waiting:
        thread.join()
    assert len(waiting) == 2
    assert seen[-1] == 300


def test_changes_race_with_kills(store: Store) -> None:
    """Changes and kills from several threads make one gapless chain, and each change says what it replaced."""
    done: list[int] = []

    def change(number: int) -> None:
        for ttl_ms in (200 + number, 300 + number, 400 + number):
            row, _ = _set(store, ttl_ms, wall=time.time)
            assert row is not None
            done.append(row.position.seq)

    threads = [threading.Thread(target=change, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    killed = [committed(store.kill(kill_order(f"run:r-{number}"))).row.position.seq for number in range(6)]
    for thread in threads:
        thread.join()
    rows = store.log(LogQuery())[1]
    assert sorted(done + killed) == [row.position.seq for row in rows][1:]
    ttl_ms = 1000
    for members in (json.loads(row.body) for row in rows):
        if members.get("topic") == "settings_changed":
            assert members["before_ms"] == ttl_ms
            ttl_ms = members["ttl_ms"]
    assert store.settings().ttl_ms == ttl_ms


@pytest.mark.parametrize("ttl_ms", [199, 5001, 0, -1])
def test_the_database_itself_refuses_other_ttls(store: Store, ttl_ms: int) -> None:
    """A ttl out of range is written by nobody, and leaves no note."""
    head = store.head()
    with pytest.raises(StoreUnavailable, match="nothing was changed"):
        _set(store, ttl_ms)
    assert store.head() == head


def test_the_database_tells_the_time(store: Store, place: Place) -> None:
    """PostgreSQL has a clock of its own, read anew each time; an SQLite file has none."""
    before, told, after = time.time(), store.wall(), time.time()
    if place.url.startswith("sqlite"):
        assert told is None
        return
    assert told is not None
    assert before - 0.01 <= told <= after + 0.01  # the same machine's, here
    again = store.wall()
    assert again is not None
    assert again > told
