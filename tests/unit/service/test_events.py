"""Event streams: from the newest published state or the database, proven, and never past what is not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.service.events import PAGE, Beyond, Events, Watch
from app.service.published import TAIL_LENGTH
from app.service.refresher import Refresher
from app.service.store import LogDiverged, LogRow, StoreUnavailable
from haltline.cli.sse import Event, Parser
from haltline.flips import Position
from tests.unit.service.fakes import EPOCH, NAMESPACE, ManualClocks, MemoryStore

OLD = 2 * PAGE + 50
"""How many entries there are that a node does not keep at hand."""


class Edited(MemoryStore):
    """A log whose entries somebody may have edited after the node had read them.

    Attributes:
        edited: what a look at old entries finds; None for what was written.
    """

    def __init__(self) -> None:
        super().__init__()
        self.edited: list[LogRow] | None = None

    def entry(self, seq: int) -> LogRow | None:
        found = super().entry(seq)
        return found if self.edited is None or found in self.edited else None

    def export(self, *, after: int, up_to: int, limit: int) -> Sequence[LogRow]:
        rows = super().export(after=after, up_to=up_to, limit=limit)
        return rows if self.edited is None else self.edited[after : min(up_to, after + limit)]


@dataclass
class Bench:
    """Event streams over a log in memory; ``stands`` and ``gone`` decide when they end."""

    store: Edited = field(default_factory=Edited)
    clocks: ManualClocks = field(default_factory=ManualClocks)
    stands: Callable[[], bool] = lambda: True
    gone: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        self.refresher = Refresher(
            self.store,
            self.clocks,
            open_log=lambda: self.store.open_log(namespace=NAMESPACE, ttl_ms=1_000, at="", epoch=EPOCH),
            forget_token=lambda _: None,
            use_ttl=lambda _: None,
        )
        self.events = Events(self.refresher, self.store, self.clocks)

    def told(self, after: int, *, start: Position | None = None) -> Iterator[Event]:
        """Yield what a stream tells."""
        begun = start if start is not None else self.events.start(after)
        assert isinstance(begun, Position)
        watch = Watch(None, self._stands, self._gone)
        parser = Parser()
        for piece in self.events.stream(begun, watch):
            yield from parser.take(piece)

    def _stands(self) -> bool:
        return self.stands()  # as it is then

    def _gone(self) -> bool:
        return self.gone()

    def note(self) -> LogRow:
        """Write an entry."""
        return self.store.append("note", topic="padding")

    def read(self, row: LogRow) -> None:
        """Have the refresher's own thread read as far as an entry: two readers of one node there never are."""
        self.refresher.ring()
        published = self.refresher.wait_beyond(row.position.seq - 1, 20.0)
        assert published is not None
        assert published.replica.position.seq >= row.position.seq


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Yield a bench whose node has read an empty log."""
    made = Bench()
    made.refresher.refresh()
    yield made
    made.refresher.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[Bench]:
    """Yield a bench whose log is longer than what its node keeps at hand."""
    made = Bench()
    made.store.open_log(namespace=NAMESPACE, ttl_ms=1_000, at="", epoch=EPOCH)
    for _ in range(TAIL_LENGTH + OLD - 1):
        made.note()
    made.refresher.refresh()
    yield made
    made.refresher.close()


@pytest.fixture
def long(shared: Bench) -> Iterator[Bench]:
    """Yield the same, and mend its log."""
    yield shared
    shared.store.edited, shared.store.failure, shared.gone = None, None, bool


def seqs(events: Iterator[Event], number: int) -> list[int]:
    """Return the positions of the next so many entries."""
    found: list[int] = []
    for event in events:
        if event.data is not None and event.id is not None:
            found.append(event.id)
            if len(found) == number:
                break
    return found


def reason(event: Event) -> str:
    """Return why a stream ends."""
    assert event.name == "end"
    assert event.id is None
    return str(json.loads(event.data or "")["reason"])


@pytest.mark.parametrize("after", [0, 1, PAGE, OLD - 1, OLD, OLD + 1, OLD + TAIL_LENGTH - 1])
def test_old_entries_come_from_the_database(long: Bench, after: int) -> None:
    """From wherever a stream begins, old pages and the tail join without a gap or a double."""
    head = OLD + TAIL_LENGTH
    assert seqs(long.told(after), head - after) == list(range(after + 1, head + 1))


Edit = Callable[[list[LogRow], int], list[LogRow]]


def swapped(rows: list[LogRow], seq: int) -> list[LogRow]:
    """Swap an entry and the next one."""
    rows[seq - 1], rows[seq] = rows[seq], rows[seq - 1]
    return rows


def broken_line(rows: list[LogRow], seq: int) -> list[LogRow]:
    """Break the line between two members: JSON does not mind, an event stream does."""
    row = rows[seq - 1]
    rows[seq - 1] = LogRow(row.position, row.body.replace(",", ",\n", 1))
    return rows


def altered(**changes: Any) -> Edit:
    """Return what changes members of one entry."""

    def change(rows: list[LogRow], seq: int) -> list[LogRow]:
        row = rows[seq - 1]
        rows[seq - 1] = LogRow(row.position, json.dumps({**json.loads(row.body), **changes}))
        return rows

    return change


def replaced(body: str) -> Edit:
    """Return what puts another text in place of one entry."""

    def change(rows: list[LogRow], seq: int) -> list[LogRow]:
        rows[seq - 1] = LogRow(rows[seq - 1].position, body)
        return rows

    return change


EDITS: dict[str, Edit] = {
    "missing": lambda rows, seq: rows[: seq - 1] + rows[seq:],
    "cut off": lambda rows, seq: rows[: seq - 1],
    "swapped": swapped,
    "another past": altered(prev_hash="ab" * 32),
    "an unknown kind": altered(kind="hug"),
    "a kind with a line break": altered(kind="kill\ndata: x"),
    "no object": replaced("[]"),
    "no JSON": replaced("{"),
    "a line break": broken_line,
}


@pytest.mark.parametrize("seq", [1, PAGE, PAGE + 1, OLD])
@pytest.mark.parametrize("how", EDITS)
def test_what_was_tampered_with_is_never_told(long: Bench, how: str, seq: int) -> None:
    """A log that does not hang together ends the stream before the flaw, loudly, with nothing passed over."""
    long.store.edited = EDITS[how]([*long.store.rows], seq)
    with capture_logs() as journal:
        *told, last = long.told(0)
    assert reason(last) == "diverged"
    found = [event.id for event in told if event.data is not None]
    assert found == list(range(1, len(found) + 1))
    assert len(found) < seq
    assert [entry["event"] for entry in journal] == ["log_diverged"]


def test_old_entries_that_do_not_reach_the_tail(long: Bench) -> None:
    """Old entries that are a chain of their own, but not the one that the tail continues, are not told up to it."""
    other = MemoryStore(epoch="fedcba9876543210")
    for _ in range(OLD):
        other.append("note", topic="padding")
    long.store.edited = other.rows
    *told, last = long.told(0)
    assert reason(last) == "diverged"
    assert [event.id for event in told if event.data is not None][-1] == 2 * PAGE


def test_another_history_behind_the_position(long: Bench) -> None:
    """A position with another hash than the log has there is gone on from nowhere."""
    for seq in (OLD, OLD + 5, OLD - 5):
        *told, last = long.told(seq, start=Position(seq, "ab" * 32))
        assert reason(last) == "diverged"
        assert [event.data for event in told] == [None]


def test_a_database_that_is_away_for_a_while(long: Bench) -> None:
    """A page that cannot be read is read when it can be: nothing is told meanwhile, and nothing is passed over."""
    told = long.told(0)
    assert seqs(told, PAGE) == list(range(1, PAGE + 1))
    long.store.failure = StoreUnavailable("gone")
    looks = 0

    def look() -> bool:
        nonlocal looks
        looks += 1
        if looks == 2:
            long.store.failure = None
        return False

    long.gone = look
    assert seqs(told, PAGE) == list(range(PAGE + 1, 2 * PAGE + 1))
    assert looks >= 2


def test_where_a_stream_begins(bench: Bench) -> None:
    """At the head of the database without a position; behind what another node has told; never behind the end."""
    assert bench.events.start(0) == Position()
    newest = [bench.note().position for _ in range(3)][-1]
    assert bench.events.start(None) == newest
    assert bench.events.start(newest.seq) == newest
    assert bench.events.start(newest.seq + 1) == Beyond(newest.seq)
    bench.refresher.refresh()
    assert bench.events.start(newest.seq) == newest


def test_a_position_that_is_missing(long: Bench) -> None:
    """A position in the middle that the database does not have is a log that was edited."""
    long.store.edited = []
    with pytest.raises(LogDiverged):
        long.events.start(7)


def test_a_token_that_ends(bench: Bench) -> None:
    """The token is looked at on every wake-up: what is written later than its end is not told."""
    told = bench.told(0)
    assert seqs(told, 1) == [1]
    bench.stands = lambda: False
    bench.note()
    bench.refresher.ring()
    assert [reason(event) for event in told] == ["token"]


def test_a_log_that_diverges(bench: Bench) -> None:
    """When the node has read another log, its streams say so and end."""
    told = bench.told(0)
    assert seqs(told, 1) == [1]
    bench.store.epoch = "fedcba9876543210"
    bench.refresher.ring()
    assert [reason(event) for event in told] == ["diverged"]


def test_pings(bench: Bench) -> None:
    """When nothing has been told for five seconds a comment is, and never an entry."""
    start = bench.events.start(None)
    assert isinstance(start, Position)

    def six_seconds() -> bool:
        bench.clocks.pass_s(6)
        return False

    pieces = bench.events.stream(start, Watch(None, lambda: True, six_seconds))
    next(pieces)
    assert [next(pieces) for _ in range(2)] == [b": ping\n\n"] * 2


def test_how_long_a_stream_lasts(bench: Bench) -> None:
    """A stream ends five minutes after it began, give or take a tenth, and not all at the same moment."""
    lengths = set()
    for _ in range(4):
        began = bench.clocks.monotonic()
        start = bench.events.start(None)
        assert isinstance(start, Position)
        bench.read(bench.note())

        def a_while() -> bool:
            bench.clocks.pass_s(4.5)
            bench.read(bench.note())
            return False

        watch = Watch(None, lambda: True, a_while)
        pieces = list(bench.events.stream(start, watch))
        assert not any(b"event: end" in piece for piece in pieces)
        lasted = bench.clocks.monotonic() - began
        assert 270 <= lasted <= 335
        lengths.add(round(lasted, 1))
    assert len(lengths) > 1
