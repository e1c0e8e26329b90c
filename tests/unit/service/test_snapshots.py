"""Snapshots: written once for all views, a slice at a time, and never sent where the tail does not continue them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from app.service.frames import in_view
from app.service.published import Kept, Published, Tail
from app.service.snapshots import BEHIND, SLICE, Snapshots, hold_text
from app.service.store import Ttl
from haltline.flips import Position
from haltline.replica import Mark, Replica, hold_members
from haltline.scopes import Scope, Target, parse_target
from haltline.verdict import Hold
from tests.unit.service.fakes import EPOCH, NAMESPACE

AT = "2027-01-15T08:00:00.000000Z"
SCOPES = (Scope.RUN, Scope.TENANT, Scope.FEATURE, Scope.CAPABILITY)


def position(seq: int) -> Position:
    """Return the one position of this log at ``seq``."""
    return Position(seq, f"{seq:064x}")


def state(kills: int, *, base: int | None = None) -> Published:
    """Return a state with so many kills, on targets of four scopes in turn, and a tail from ``base`` on."""
    holds: dict[str, tuple[Hold, ...]] = {}
    marks: dict[str, Mark] = {}
    for seq in range(1, kills + 1):
        target = Target(SCOPES[seq % 4], f"x-{seq % 1_000}")
        hold = Hold(seq, target, "ada", AT, f'"why"\\ {seq} \u00e9\u20ac\U0001f6d1\n', "finish", "discard", f"f-{seq}")
        holds[str(target)] = (*holds.get(str(target), ()), hold)
        marks[str(target)] = Mark(seq, seq)
    replica = Replica(NAMESPACE, EPOCH, position(kills), MappingProxyType(holds), MappingProxyType(marks))
    start = kills if base is None else base
    entries = [Kept(position(seq), None, "{}", "{}") for seq in range(start + 1, kills + 1)]
    return Published(replica, Tail(position(start), entries, len(entries)), Ttl(1_000), 7)


def told(snapshots: Snapshots, published: Published, tenants: tuple[str, ...] | None = None) -> Any:
    """Return a snapshot as its reader parses it."""
    return json.loads(b"".join(snapshots.of(published).pieces(tenants)))


def fold(published: Published, tenants: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Return what the snapshot of a state has to say, as the replica itself says it."""
    whole = published.replica.snapshot()
    shown = [each for each in whole["holds"] if in_view(parse_target(each["target"]), tenants)]
    marks = {key: mark for key, mark in whole["marks"].items() if in_view(parse_target(key), tenants)}
    return {**whole, "holds": sorted(shown, key=lambda each: each["seq"]), "marks": marks}


@pytest.mark.parametrize("tenants", [None, ("x-1",), ("x-1", "x-5"), ("nobody",)])
@pytest.mark.parametrize("kills", [0, 1, 3, 2 * SLICE + 7])
def test_a_view_is_shown_what_the_replica_holds_for_it(kills: int, tenants: tuple[str, ...] | None) -> None:
    """The pieces are the replica's own snapshot: whole, valid JSON, other tenants left out."""
    published = state(kills)
    read = told(Snapshots(), published, tenants)
    read["holds"].sort(key=lambda each: each["seq"])
    assert read == fold(published, tenants)


def test_a_holds_text_is_its_members() -> None:
    """What is written without a dict is what the dict would have been, whatever a reason holds."""
    for reason in ("why", '"},{"', "\\", "\u2028\u0000\x1b[0m", "\U0001f6d1é"):
        for target in (Target(Scope.GLOBAL), Target(Scope.RUN, "a:b.c-d_e")):
            hold = Hold(7, target, "ada", AT, reason, "finish", "discard", "f-7")
            assert json.loads(hold_text(hold, str(target))) == hold_members(hold)


def test_a_large_snapshot_gives_way() -> None:
    """Between two slices others have their turn: no slice has more than its share of holds and marks."""
    published, turns = state(10 * SLICE), [0]

    def give_way() -> None:
        turns[0] += 1

    Snapshots(give_way=give_way).of(published)
    assert turns[0] >= len(published.replica.holds) // SLICE + len(published.replica.marks) // SLICE
    one_a_target = Replica(
        NAMESPACE,
        EPOCH,
        position(1),
        MappingProxyType({
            f"run:r-{n}": (Hold(n + 1, Target(Scope.RUN, f"r-{n}"), "ada", AT, "why", "finish", "discard", "f"),)
            for n in range(10 * SLICE)
        }),
    )  # fmt: skip
    turns[0] = 0
    Snapshots(give_way=give_way).of(replace(published, replica=one_a_target))
    assert turns[0] >= 10


def test_what_is_killed_many_times_gives_way_too() -> None:
    """A slice counts holds, not targets: 20,000 holds on one target are not written in one go."""
    turns = [0]

    def give_way() -> None:
        turns[0] += 1

    published = many(10)
    assert len(told(Snapshots(give_way=give_way), published)["holds"]) == 10 * SLICE
    assert turns[0] >= 10


class Held:
    """Gives way until it is let go."""

    def __init__(self) -> None:
        self.begun, self.gate, self.writings = threading.Event(), threading.Event(), 0
        self.raising: BaseException | None = None

    def __call__(self) -> None:
        if not self.begun.is_set():
            self.writings += 1
            self.begun.set()
            assert self.gate.wait(10)
            if self.raising is not None:
                raised, self.raising = self.raising, None
                raise raised


def waited(snapshots: Snapshots, callers: int) -> bool:
    """Return whether so many callers wait for the snapshot that another one writes."""
    writing: Any = snapshots._writing  # noqa: SLF001 - what is asked is who waits inside
    return writing is not None and len(writing._condition._waiters) == callers  # noqa: SLF001


def until(holds: Callable[[], bool]) -> None:
    """Wait for something that other threads do."""
    tick = threading.Event()
    for _ in range(10_000):
        if holds():
            return
        tick.wait(0.001)
    raise AssertionError("it did not come")


def test_all_who_ask_at_once_share_one_writing() -> None:
    """Whatever their views, requests that come while the first snapshot is written get that very one."""
    held = Held()
    snapshots, published = Snapshots(give_way=held), state(10)
    with ThreadPoolExecutor(8) as fleet:
        first = fleet.submit(snapshots.of, published)
        assert held.begun.wait(10)
        others = [fleet.submit(snapshots.of, published) for _ in range(7)]
        until(lambda: waited(snapshots, 7))
        held.gate.set()
        assert {id(each.result(10)) for each in (first, *others)} == {id(first.result())}
    assert snapshots.of(published) is first.result()
    assert held.writings == 1


def test_nobody_waits_for_a_new_one_who_can_be_sent_the_old_one() -> None:
    """While a snapshot that is far behind is made anew, the tail still continues it for everybody else."""
    held = Held()
    held.gate.set()
    snapshots = Snapshots(give_way=held)
    old = snapshots.of(state(10))
    held.begun.clear()
    held.gate.clear()
    grown = state(10 + BEHIND + 1, base=0)
    with ThreadPoolExecutor(1) as writer:
        new = writer.submit(snapshots.of, grown)
        assert held.begun.wait(10)
        assert snapshots.of(grown) is old
        held.gate.set()
        assert new.result(10).position == grown.replica.position
    assert snapshots.of(grown) is new.result()


def test_a_writing_that_is_broken_off_is_begun_anew() -> None:
    """Where the one who writes is ended, one of those who wait writes it, and nobody waits for ever."""
    held = Held()
    held.raising = KeyboardInterrupt()
    snapshots, published = Snapshots(give_way=held), state(10)
    with ThreadPoolExecutor(4) as fleet:
        first = fleet.submit(snapshots.of, published)
        assert held.begun.wait(10)
        others = [fleet.submit(snapshots.of, published) for _ in range(3)]
        until(lambda: waited(snapshots, 3))
        held.gate.set()
        assert {each.result(10).position for each in others} == {position(10)}
        assert isinstance(first.exception(10), KeyboardInterrupt)


def test_a_later_states_snapshot_is_not_sent_as_an_earlier_one() -> None:
    """Who holds a state that is older than the snapshot gets one of that state."""
    held = Held()
    snapshots, early, late = Snapshots(give_way=held), state(10), state(20, base=0)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(snapshots.of, late)
        assert held.begun.wait(10)
        second = pool.submit(snapshots.of, early)
        until(lambda: waited(snapshots, 1))
        held.gate.set()
        assert (first.result(10).position, second.result(10).position) == (position(20), position(10))
    assert snapshots.of(early).position == position(10)
    assert snapshots.of(late) is first.result()


def test_a_copy_gives_way_before_it_is_made() -> None:
    """Whoever waited for a snapshot copies it after others had their turn, one frame at a time."""
    turns: list[bool] = []

    def give_way() -> None:
        turns.append(snapshots._copying.locked())  # noqa: SLF001 - nothing else says whether another one may copy now

    snapshots = Snapshots(give_way=give_way)
    assert snapshots.joined((b"a", b"b")) == b"ab"
    assert turns == [True]


UNDER_GEVENT = """
from gevent import monkey
monkey.patch_all()
import gevent
from app.service.snapshots import Snapshots
from tests.unit.service.test_snapshots import many

beats, over = 0, False

def beat():
    global beats
    while not over:
        gevent.sleep(0.0001)
        beats += 1

beating = gevent.spawn(beat)
published = many(40)
gevent.sleep(0.01)
beats = 0
Snapshots().of(published)
print(beats)
over = True
beating.join()
"""


def many(slices: int) -> Published:
    """Return a state whose holds, all on one target, are so many slices."""
    target = Target(Scope.RUN, "r-1")
    holds = tuple(Hold(n + 1, target, "ada", AT, "why", "finish", "discard", f"f-{n}") for n in range(slices * SLICE))
    replica = Replica(NAMESPACE, EPOCH, position(1), MappingProxyType({"run:r-1": holds}))
    return replace(state(1), replica=replica)


def test_timers_go_off_under_gevent_meanwhile() -> None:
    """In the event loop that also sends frames, what is due between two slices is done between them."""
    ran = subprocess.run([sys.executable, "-c", UNDER_GEVENT], capture_output=True, text=True, check=True, timeout=50)
    assert int(ran.stdout) >= 20, ran.stdout
