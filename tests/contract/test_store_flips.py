"""Contract of every store: what a kill and a revive write, answer and refuse."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from app.service.store import (
    Committed,
    FlipIdTaken,
    KillOrder,
    LogQuery,
    NoSuchHold,
    StaleView,
    Store,
    StoreFull,
)
from haltline.canonical import canonical
from haltline.errors import InvalidDocument
from haltline.flips import InFlight, Kill, Position, Queued, Revive, parse_entry
from haltline.replica import Mark
from haltline.scopes import parse_target
from tests.support.orders import AT, committed, kill_order, revive_order
from tests.support.places import EPOCH, NAMESPACE, Place

RUN = parse_target("run:r-42")


def test_a_kill_is_the_next_entry_of_the_chain(store: Store) -> None:
    """A kill becomes the entry after the head, sealed, canonical, and with every member of the order."""
    before = store.head().position
    order = kill_order("tenant:acme", flip_id="f-mine")
    done = committed(store.kill(order))
    assert done.row.body.encode() == canonical(done.members)
    entry = parse_entry(json.loads(done.row.body), namespace=NAMESPACE, epoch=EPOCH)
    assert entry == Kill(
        done.row.position, before.hash, AT, "ann", "f-mine", order.target, order.reason, "abort", "discard"
    )
    assert done.row.position.seq == before.seq + 1
    assert store.head().position == done.row.position


@pytest.mark.parametrize("in_flight", ["abort", "finish"])
@pytest.mark.parametrize("queued", ["discard", "drain"])
def test_a_kill_keeps_its_options(store: Store, in_flight: InFlight, queued: Queued) -> None:
    """What it asks of running calls and planned work is in its entry, its hold and the fold; drain moves no barrier."""
    before = committed(store.kill(kill_order())).row.position.seq
    done = committed(store.kill(kill_order(in_flight=in_flight, queued=queued)))
    entry = parse_entry(json.loads(done.row.body))
    assert isinstance(entry, Kill)
    assert (entry.in_flight, entry.queued) == (in_flight, queued)
    assert [(hold.in_flight, hold.queued) for hold in done.flag.holds] == [("abort", "discard"), (in_flight, queued)]
    barrier = entry.position.seq if queued == "discard" else before
    assert done.flag.mark == Mark(entry.position.seq, barrier)
    assert store.load(remember_since=AT, newest=0).replica.holds[str(RUN)] == done.flag.holds
    assert store.load(remember_since=AT, newest=0).replica.marks[str(RUN)] == done.flag.mark


def test_a_kill_repeated_with_other_options(store: Store) -> None:
    """Options are part of the flip: its flip_id with others is taken, with the same it is the same flip."""
    order = kill_order(in_flight="finish", queued="drain")
    seq = committed(store.kill(order)).row.position.seq
    assert committed(store.kill(order)).replayed
    assert store.kill(replace(order, in_flight="abort")) == FlipIdTaken(seq)
    assert store.kill(replace(order, queued="discard")) == FlipIdTaken(seq)


def test_a_kill_puts_a_hold_and_moves_mark_and_version(store: Store) -> None:
    """After a kill its target has one more hold, named by the entry's seq, and remembers that seq three times."""
    first = committed(store.kill(kill_order()))
    second = committed(store.kill(kill_order(actor="eve", reason="me too")))
    seq = second.row.position.seq
    assert [hold.seq for hold in second.flag.holds] == [first.row.position.seq, seq]
    assert (second.flag.holds[1].actor, second.flag.holds[1].reason) == ("eve", "me too")
    assert (second.flag.mark, second.flag.version) == (Mark(seq, seq), seq)
    assert store.flag(RUN) == (store.head(), second.flag)


def test_a_flip_brings_the_ttl_read_with_it(store: Store) -> None:
    """A committed flip carries the ttl of the same transaction."""
    assert committed(store.kill(kill_order())).ttl == store.head().ttl
    assert store.head().ttl.ttl_ms == 1000


def test_a_revive_releases_the_holds_it_names_and_no_other(store: Store) -> None:
    """Somebody else's hold survives a revive, on the same target as on another."""
    mine = committed(store.kill(kill_order()))
    other = committed(store.kill(kill_order(actor="eve")))
    elsewhere = committed(store.kill(kill_order("global", actor="eve")))
    done = committed(store.revive(revive_order(other.flag, mine.row.position.seq)))
    assert done.flag.holds == (other.flag.holds[1],)
    assert store.flag(RUN)[1] == done.flag
    assert store.flag(parse_target("global"))[1].holds == elsewhere.flag.holds


def test_a_revive_is_an_entry_that_names_its_holds(store: Store) -> None:
    """The log says which holds a revive released, ascending."""
    committed(store.kill(kill_order()))
    flag = committed(store.kill(kill_order())).flag
    done = committed(store.revive(revive_order(flag, flip_id="f-back")))
    entry = parse_entry(json.loads(done.row.body))
    assert isinstance(entry, Revive)
    assert entry.holds == tuple(hold.seq for hold in flag.holds)
    assert (entry.actor, entry.reason, entry.flip_id) == ("bob", "mended", "f-back")


def test_the_mark_survives_a_revive(store: Store) -> None:
    """After a revive the target still remembers its newest kill, and its version is the revive's seq."""
    killed = committed(store.kill(kill_order()))
    done = committed(store.revive(revive_order(killed.flag)))
    assert done.flag.holds == ()
    assert done.flag.mark == killed.flag.mark
    assert done.flag.version == done.row.position.seq


def test_an_unknown_target_is_an_empty_flag(store: Store) -> None:
    """A target that was never flipped has no holds, no mark, version 0."""
    flag = store.flag(parse_target("run:nobody"))[1]
    assert (flag.holds, flag.mark, flag.version) == ((), None, 0)


def test_a_repeated_kill_is_the_same_kill(store: Store) -> None:
    """The same flip_id with the same content answers the first entry and writes nothing."""
    order = kill_order()
    first = committed(store.kill(order))
    again = committed(store.kill(replace(order, at="2026-11-20T21:00:00.000000Z")))
    assert again == replace(first, replayed=True)
    assert store.head().position == first.row.position


def test_a_replay_shows_the_target_as_it_stands_now(store: Store) -> None:
    """A replayed kill whose hold was released meanwhile says so."""
    order = kill_order()
    killed = committed(store.kill(order))
    revived = committed(store.revive(revive_order(killed.flag)))
    again = committed(store.kill(order))
    assert (again.replayed, again.row, again.flag) == (True, killed.row, revived.flag)


def test_a_repeated_revive_does_not_ask_for_the_view_again(store: Store) -> None:
    """A revive that committed is replayed although its view is stale and its holds are gone by now."""
    killed = committed(store.kill(kill_order()))
    order = revive_order(killed.flag)
    first = committed(store.revive(order))
    again = committed(store.revive(order))
    assert again == replace(first, replayed=True)


@pytest.mark.parametrize(
    "change",
    [{"target": parse_target("run:r-43")}, {"reason": "another"}, {"actor": "eve"}],
    ids=["target", "reason", "actor"],
)
def test_a_flip_id_cannot_be_used_for_another_kill(store: Store, change: dict[str, object]) -> None:
    """The same flip_id with another target, reason or actor is taken, and nothing is written."""
    order = kill_order()
    first = committed(store.kill(order))
    assert store.kill(replace(order, **change)) == FlipIdTaken(first.row.position.seq)  # type: ignore[arg-type]
    assert store.head().position == first.row.position


def test_a_flip_id_cannot_be_used_for_another_kind(store: Store) -> None:
    """A revive with a kill's flip_id is taken, and a kill with a revive's."""
    killed = committed(store.kill(kill_order(flip_id="f-kill")))
    assert store.revive(revive_order(killed.flag, flip_id="f-kill")) == FlipIdTaken(killed.row.position.seq)
    revived = committed(store.revive(revive_order(killed.flag, flip_id="f-revive")))
    assert store.kill(kill_order(flip_id="f-revive")) == FlipIdTaken(revived.row.position.seq)


def test_a_flip_id_cannot_be_used_for_other_holds(store: Store) -> None:
    """A revive's flip_id with other holds is taken."""
    committed(store.kill(kill_order()))
    flag = committed(store.kill(kill_order())).flag
    order = revive_order(flag, flag.holds[0].seq)
    first = committed(store.revive(order))
    other = replace(order, holds=(flag.holds[1].seq,))
    assert store.revive(other) == FlipIdTaken(first.row.position.seq)


def test_a_stale_view_revives_nothing(store: Store) -> None:
    """A revive whose view is older than the target's last flip is refused with the target as it is."""
    seen = committed(store.kill(kill_order())).flag
    now = committed(store.kill(kill_order(actor="eve"))).flag
    assert store.revive(revive_order(seen)) == StaleView(now)
    assert store.flag(RUN)[1] == now


def test_no_view_revives_nothing(store: Store) -> None:
    """A revive that names no version of this epoch is stale."""
    flag = committed(store.kill(kill_order())).flag
    assert store.revive(revive_order(flag, seen=frozenset())) == StaleView(flag)


def test_one_of_several_views_is_enough(store: Store) -> None:
    """If-Match may list several versions; one that is current is enough."""
    flag = committed(store.kill(kill_order())).flag
    committed(store.revive(revive_order(flag, seen=frozenset({flag.version, 1}))))


def test_a_revive_of_a_missing_hold_writes_nothing(store: Store) -> None:
    """If one of the holds is not active on this target, none is released, and the missing ones are named."""
    elsewhere = committed(store.kill(kill_order("run:other"))).row.position.seq
    flag = committed(store.kill(kill_order())).flag
    head = store.head()
    held = flag.holds[0].seq
    result = store.revive(revive_order(flag, elsewhere, held, held + 7))
    assert result == NoSuchHold((elsewhere, held + 7), flag)
    assert (store.head(), store.flag(RUN)[1]) == (head, flag)


def test_a_hold_is_released_once(store: Store) -> None:
    """A hold that was released is missing for the next revive, also for one that saw the newest view."""
    killed = committed(store.kill(kill_order())).flag
    revived = committed(store.revive(revive_order(killed))).flag
    order = revive_order(revived, killed.holds[0].seq)
    assert store.revive(order) == NoSuchHold((killed.holds[0].seq,), revived)


@pytest.mark.parametrize("holds", [(), (3, 2), (2, 2)], ids=["none", "descending", "doubled"])
def test_a_revive_with_malformed_holds_is_never_written(store: Store, holds: tuple[int, ...]) -> None:
    """What no reader would understand is a programmer's error and leaves no entry."""
    flag = committed(store.kill(kill_order())).flag
    with pytest.raises(ValueError, match="ascending"):
        store.revive(replace(revive_order(flag), holds=holds))
    assert store.head().position.seq == flag.version


def test_a_kill_that_no_reader_would_understand_is_never_written(store: Store) -> None:
    """An actor outside the grammar would stop every reader of the log: it is refused before it is stored."""
    head = store.head()
    with pytest.raises(InvalidDocument):
        store.kill(kill_order(actor="no body"))
    assert store.head() == head


def test_time_never_goes_backwards(store: Store) -> None:
    """A flip from a node whose clock is behind is dated as the entry before it."""
    committed(store.kill(kill_order(at="2026-11-20T20:30:00.000001Z")))
    behind = committed(store.kill(kill_order(at="2026-11-20T20:29:59.999999Z")))
    assert behind.members["at"] == "2026-11-20T20:30:00.000001Z"
    assert behind.flag.holds[-1].at == behind.members["at"]


@pytest.mark.parametrize(
    "reason",
    ["'; DROP TABLE log; --", "100 % :sure %(x)s ?", "日本語 🛑", '"\\n"', "x" * 500],
    ids=["quotes", "placeholders", "unicode", "escapes", "long"],
)
def test_a_reason_is_stored_as_it_is(store: Store, reason: str) -> None:
    """Whatever the reason's characters, they come back as they went in."""
    flag = committed(store.kill(kill_order(reason=reason))).flag
    assert store.flag(RUN)[1].holds[0].reason == reason
    assert flag.holds[0].reason == reason


@pytest.mark.parametrize("pair", [("run:A", "run:a"), ("run:007", "run:7"), ("run:a-", "run:a.")])
def test_ids_are_the_same_only_byte_by_byte(store: Store, pair: tuple[str, str]) -> None:
    """No case folding, no number, no collation: a kill of one is not a kill of the other."""
    killed, other = pair
    committed(store.kill(kill_order(killed)))
    assert store.flag(parse_target(killed))[1].holds
    assert not store.flag(parse_target(other))[1].holds
    assert [str(flag.target) for flag in store.flags(after=None, limit=10)[1]] == [killed]


def test_the_cap_refuses_runs_only(place: Place) -> None:
    """With as many active holds as the cap, a run's kill is refused, and every broader kill is written."""
    store = place.opened(max_active_holds=2)
    try:
        committed(store.kill(kill_order("run:r-1")))
        committed(store.kill(kill_order("run:r-2")))
        head = store.head()
        assert store.kill(kill_order("run:r-3")) == StoreFull(2)
        assert store.head() == head
        for broader in ("global", "tenant:acme", "feature:outreach", "capability:send_email"):
            committed(store.kill(kill_order(broader)))
    finally:
        store.close()


def test_a_release_makes_room_under_the_cap(place: Place) -> None:
    """The cap counts holds that are active, not kills."""
    store = place.opened(max_active_holds=1)
    try:
        order = kill_order("run:r-1")
        killed = committed(store.kill(order))
        assert isinstance(store.kill(kill_order("run:r-2")), StoreFull)
        assert committed(store.kill(order)).replayed
        committed(store.revive(revive_order(killed.flag)))
        committed(store.kill(kill_order("run:r-2")))
    finally:
        store.close()


def test_an_acknowledged_flip_is_there_after_reopening(place: Place) -> None:
    """What was committed is there, unchanged, for the next process."""
    store = place.opened()
    done = committed(store.kill(kill_order()))
    store.close()
    again = place.opened()
    try:
        assert again.head().position == done.row.position
        assert again.flag(RUN)[1] == done.flag
        assert again.entry(done.row.position.seq) == done.row
    finally:
        again.close()


def test_a_refused_flip_leaves_no_trace_in_the_log(store: Store) -> None:
    """Only commits take a seq: after refusals of every kind the log has no gap."""
    killed = committed(store.kill(kill_order(flip_id="f-once")))
    store.kill(kill_order("run:r-9", flip_id="f-once"))
    store.revive(revive_order(killed.flag, seen=frozenset({0})))
    store.revive(revive_order(killed.flag, 99))
    done = store.kill(KillOrder(RUN, "again", "ann", "f-twice", AT))
    assert isinstance(done, Committed)
    assert done.row.position.seq == killed.row.position.seq + 1
    rows = store.log(LogQuery())[1]
    assert [row.position.seq for row in rows] == list(range(1, len(rows) + 1))
    assert store.refresh(Position(), limit=10).last
