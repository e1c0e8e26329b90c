"""Contract of every store: several threads at once, which on PostgreSQL are several transactions at once."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from app.service.store import Committed, FirstToken, KillOrder, StaleView, Store, StoredToken, StoreUnavailable
from haltline.flips import Position, follow
from haltline.scopes import parse_target
from tests.support.orders import AT, committed, kill_order, revive_order
from tests.support.places import Place

T = TypeVar("T")


def at_once(*calls: Callable[[], T]) -> Sequence[T]:
    """Return what the calls return, each made on its own thread, all released at one moment."""
    gate = threading.Barrier(len(calls))

    def run(call: Callable[[], T]) -> T:
        gate.wait(timeout=10)
        return call()

    with ThreadPoolExecutor(len(calls)) as threads:
        return [future.result(timeout=30) for future in [threads.submit(run, call) for call in calls]]


def _chain(store: Store) -> list[int]:
    """Return every seq of the log, proving that it is one chain up to the head."""
    rows = store.export(after=0, up_to=2**53, limit=10_000)
    entries = list(follow((json.loads(row.body) for row in rows), after=Position()))
    assert entries[-1].position == store.head().position
    return [entry.position.seq for entry in entries]


def test_of_two_operators_with_one_view_one_revives(store: Store) -> None:
    """Two who saw the same view and release the same hold: one commits, the other is told that its view is stale."""
    for number in range(10):
        flag = committed(store.kill(kill_order(f"run:r-{number}"))).flag
        orders = [revive_order(flag, actor=actor) for actor in ("ann", "bob")]
        results = at_once(*[partial(store.revive, order) for order in orders])
        assert sorted(type(result).__name__ for result in results) == ["Committed", "StaleView"]


def test_a_kill_that_races_a_revive_is_never_lost(store: Store) -> None:
    """Whichever is first: the new hold is active afterwards."""
    for number in range(10):
        flag = committed(store.kill(kill_order(f"run:r-{number}"))).flag
        release, again = revive_order(flag), kill_order(f"run:r-{number}", actor="eve")
        revived, killed = at_once(partial(store.revive, release), partial(store.kill, again))
        assert isinstance(revived, Committed | StaleView)
        held = {hold.seq for hold in store.flag(flag.target)[1].holds}
        assert committed(killed).row.position.seq in held
        assert (flag.version in held) == isinstance(revived, StaleView)


def test_one_flip_id_from_many_threads_is_one_entry(store: Store) -> None:
    """A kill that is sent eight times at once is written once, and everybody learns of the same entry."""
    order = kill_order()
    results = [committed(result) for result in at_once(*[lambda: store.kill(order)] * 8)]
    assert len({result.row for result in results}) == 1
    assert [result.replayed for result in results].count(False) == 1
    assert _chain(store) == [1, 2]


def insisted(store: Store, order: KillOrder) -> int:
    """Return the seq of a kill that is repeated while the store is busy, as an operator's command line would."""
    for _ in range(20):
        try:
            return committed(store.kill(order)).row.position.seq
        except StoreUnavailable:  # more threads than connections, on a slow machine: nothing was changed
            continue
    raise AssertionError("the store stayed busy")


def test_many_kills_at_once_are_one_gapless_chain(store: Store) -> None:
    """200 kills by eight threads: every one has its own seq, and each entry follows the one before."""

    def twenty_five(thread: int) -> list[int]:
        orders = [kill_order(f"run:r-{thread}-{number}", actor=f"t{thread}") for number in range(25)]
        return [insisted(store, order) for order in orders]

    acked = at_once(*[partial(twenty_five, thread) for thread in range(8)])
    assert sorted(seq for seqs in acked for seq in seqs) == list(range(2, 202))
    assert all(list(seqs) == sorted(seqs) for seqs in acked)
    assert _chain(store) == list(range(1, 202))


def test_a_page_agrees_with_itself_while_kills_arrive(store: Store) -> None:
    """Head and rows of one refresh are of one moment: the last row of a last page is the head."""
    done = threading.Event()

    def kills() -> None:
        try:
            for number in range(40):
                committed(store.kill(kill_order(f"run:r-{number}")))
        finally:
            done.set()

    def refreshes() -> None:
        position = Position()
        while not done.is_set():
            page = store.refresh(position, limit=5)
            position = page.rows[-1].position if page.rows else position
            assert page.last == (position == page.head.position)

    def loads() -> None:
        while not done.is_set():
            found = store.load(remember_since="2020-01-01T00:00:00.000000Z")
            head, replica = found.head, found.replica
            assert replica.position == head.position
            assert len(replica.holds) == head.position.seq - 1

    at_once(kills, refreshes, loads)


def test_two_stores_write_one_log(postgres_place: Place) -> None:
    """On PostgreSQL several nodes share the log: what one acknowledges, the other continues and sees at once."""
    left, right = postgres_place.opened(), postgres_place.opened()
    try:
        for number in range(10):
            one, other = (left, right) if number % 2 else (right, left)
            killed = committed(one.kill(kill_order()))
            assert other.head().position == killed.row.position
            assert other.flag(parse_target("run:r-42"))[1] == killed.flag
        assert _chain(left) == list(range(1, 12))
    finally:
        left.close()
        right.close()


def test_two_nodes_begin_one_log(postgres_place: Place) -> None:
    """Two first starts at once make one log with one epoch."""
    heads = at_once(*[partial(_epoch_of, postgres_place, epoch * 16) for epoch in "abcd"])
    assert len(set(heads)) == 1


def _epoch_of(place: Place, epoch: str) -> str:
    store = place.open()
    try:
        return store.open_log(namespace="default", ttl_ms=1000, at="2026-11-20T20:25:11.000000Z", epoch=epoch).epoch
    finally:
        store.close()


def test_first_starts_keep_one_token(place: Place) -> None:
    """Of stores that all make the first token of a role at once, one keeps it, and all return that one."""
    shared = place.opened()
    stores = [shared] if place.sqlite else [shared, place.open(), place.open()]
    try:

        def first(number: int) -> FirstToken:
            token = StoredToken(f"abcdef01234{number}", "0" * 64, "admin", "admin", None, AT, 1_800_000_000.0)
            store = stores[number % len(stores)]
            return store.add_first_token(token, actor="admin", shown_by=f"host-{number}")

        found = at_once(*[partial(first, number) for number in range(6)])
        assert len(set(found)) == 1
        assert found[0].shown_by == f"host-{found[0].token.token_id[-1]}"
        assert list(shared.tokens(after=None, limit=10)) == [found[0].token]
        assert _chain(shared) == [1, 2]
    finally:
        for each in stores:
            each.close()
