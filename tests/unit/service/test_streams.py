"""Lease streams on a clock that stands still: what each gets next, and when one has to end."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from app.domain.access import Principal, Role
from app.service.frames import Frames
from app.service.published import TAIL_LENGTH, Published
from app.service.refresher import Refresher
from app.service.store import LogDiverged, StoreUnavailable, Ttl
from app.service.streams import LONGEST_S, SHORTEST_S, Stream, Streams
from tests.unit.service.fakes import EPOCH, NAMESPACE, ManualClocks, MemoryStore

LIMIT = 3


class Bench:
    """Streams over fakes; the refresher reads when it is told to."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.clocks = ManualClocks()
        self.revoked: set[str] = set()
        self.refresher = Refresher(
            self.store,
            self.clocks,
            open_log=lambda: self.store.open_log(namespace=NAMESPACE, ttl_ms=1_000, at="", epoch=EPOCH),
            forget_token=self.revoked.add,
            use_ttl=lambda _: None,
        )
        self.frames = Frames(namespace=NAMESPACE, timebase=self.refresher.timebase)
        self.streams = Streams(self.refresher, self.frames, self.clocks, revoked=self.revoked, limit=LIMIT)
        self.refresher.refresh()

    def who(self, *, tenants: tuple[str, ...] | None = None, lasts_s: float = 1_000.0) -> Principal:
        """Return the holder of a worker's token."""
        ends = self.clocks.wall() + lasts_s
        return Principal("a" * 12, "mailer", Role.WORKER, tenants, frozenset(), ends)

    def begin(self, who: Principal | None = None) -> Stream:
        """Return a stream that was told how the log stands now."""
        stream = self.streams.begin(who if who is not None else self.who())
        self.streams.sent(stream, self.published())
        return stream

    def published(self) -> Published:
        """Return what was published last."""
        published = self.refresher.published
        assert published is not None
        return published

    def flip(self, number: int = 1, target: str | None = None) -> None:
        """Write a kill, and read it."""
        self.store.append(
            "kill",
            target=target if target is not None else f"run:r-{number}",
            flip_id=f"f-{number}",
            reason="why",
            in_flight="finish",
            queued="discard",
        )
        self.refresher.refresh()

    def line(self, stream: Stream) -> dict[str, Any]:
        """Return the members of a stream's next frame."""
        line = self.streams.line(stream, self.published())
        assert line is not None
        assert line.endswith(b"}\n")
        assert line.count(b"\n") == 1
        members = json.loads(line)
        assert isinstance(members, dict)
        return members


@pytest.fixture
def bench() -> Bench:
    """Return streams over a log of one entry."""
    return Bench()


def test_each_frame_continues_the_one_before(bench: Bench) -> None:
    """A stream has a cursor of its own: its frames are contiguous, whatever others were told meanwhile."""
    slow, fast = bench.begin(), bench.begin()
    bench.flip(1)
    told = bench.line(fast)
    assert (told["from"], told["seq"], len(told["entries"])) == (1, 2, 1)
    bench.flip(2)
    assert [bench.line(each)["from"] for each in (slow, fast)] == [1, 2]
    assert bench.line(slow)["entries"] == []


def test_later_frames_answer_nobody(bench: Bench) -> None:
    """A later frame has neither nonce nor received_at nor a snapshot: nothing that is one client's own."""
    bench.flip()
    assert {"nonce", "received_at", "snapshot"}.isdisjoint(bench.line(bench.begin()))


def test_the_same_bytes_for_the_same_view(bench: Bench) -> None:
    """Streams of one view and position get the same object, serialised once; another view gets its own."""
    first, second = bench.begin(), bench.begin()
    bound = bench.begin(bench.who(tenants=("acme",)))
    bench.flip(target="tenant:other")
    lines = [bench.streams.line(each, bench.published()) for each in (first, second, bound)]
    assert lines[0] is lines[1]
    assert lines[2] is not None
    assert b"other" not in lines[2]


def test_a_frame_is_dated_by_the_read(bench: Bench) -> None:
    """read_at is that of the newest read, and the ttl that of the log, in every frame anew."""
    stream = bench.begin()
    bench.clocks.pass_s(0.1)
    bench.store.ttl = Ttl(2_000, changed_at=1.0, before_ms=1_000)
    bench.refresher.refresh()
    bench.clocks.pass_s(0.1)
    told = bench.line(stream)
    assert told["read_at"] == bench.clocks.now_us - 100_000
    assert told["ttl_ms"] == 2_000


def test_a_stream_that_fell_behind_the_tail_ends(bench: Bench) -> None:
    """Where the entries after its cursor are not at hand any more there is no frame: its client asks anew."""
    stream = bench.begin()
    for number in range(2 * TAIL_LENGTH):
        bench.store.append("note", topic=f"t-{number}")
    while bench.published().replica.position.seq < len(bench.store.rows):
        bench.refresher.refresh()
    assert bench.streams.line(stream, bench.published()) is None


def test_streams_are_short(bench: Bench) -> None:
    """A stream ends after 6 to 9 seconds, not all at the same moment."""
    lengths = set()
    for _ in range(50):
        stream = bench.streams.begin(bench.who())
        lengths.add(stream.ends_at - bench.streams.now())
        bench.streams.end(stream)
    assert min(lengths) >= SHORTEST_S
    assert max(lengths) <= LONGEST_S
    assert len(lengths) > 40
    stream = bench.begin()
    assert not bench.streams.aged(stream, stream.ends_at - 0.001)
    assert bench.streams.aged(stream, stream.ends_at)


def test_a_revoked_token_ends_its_streams(bench: Bench) -> None:
    """Once the log has said that the token is revoked, its streams are told nothing more, without any look-up."""
    stream = bench.begin()
    assert not bench.streams.barred(stream, bench.streams.now())
    bench.store.append("note", topic="token_revoked", token_id="a" * 12)
    bench.refresher.refresh()
    assert bench.streams.barred(stream, bench.streams.now())


def test_a_stream_does_not_outlive_its_token(bench: Bench) -> None:
    """A token that expires in two seconds has a stream of two seconds."""
    stream = bench.begin(bench.who(lasts_s=2.0))
    assert stream.token_ends_at - bench.streams.now() == pytest.approx(2.0)
    assert not bench.streams.barred(stream, stream.token_ends_at - 0.001)
    assert bench.streams.barred(stream, stream.token_ends_at)


def test_an_old_read_ends_every_stream(bench: Bench) -> None:
    """When the newest read is older than half a ttl there is nothing to build on: all end, none falls silent."""
    assert not bench.streams.over(bench.published())
    bench.store.failure = StoreUnavailable("gone")
    bench.clocks.pass_s(0.5)
    bench.refresher.refresh()
    assert not bench.streams.over(bench.published())
    bench.clocks.pass_us(1)
    assert bench.streams.over(bench.published())


def test_another_log_ends_every_stream(bench: Bench) -> None:
    """A node that has halted for good carries no streams."""
    bench.store.failure = LogDiverged("shorter than before")
    bench.refresher.refresh()
    assert bench.streams.over(bench.published())


def test_there_is_a_cap(bench: Bench) -> None:
    """Beyond the cap no stream begins; an ended one makes room."""
    begun = [bench.begin() for _ in range(LIMIT)]
    full = [bench.streams.full]
    bench.streams.end(begun[0])
    full.append(bench.streams.full)
    assert full == [True, False]
    assert bench.streams.open == LIMIT - 1


def test_closing_ends_every_stream_and_takes_no_more(bench: Bench) -> None:
    """A node that goes away says so to all of its streams at once."""
    told: list[bool] = []
    bench.streams.subscribe(lambda: told.append(True))
    bench.begin()
    bench.streams.close()
    assert bench.streams.over(bench.published())
    assert bench.streams.full
    assert told == [True]


def test_only_a_flip_is_worth_a_call(bench: Bench) -> None:
    """Listeners are called once for each read that brought something, not for those that found nothing new."""
    told: list[int] = []
    bench.streams.subscribe(lambda: told.append(bench.published().replica.position.seq))
    bench.refresher.refresh()
    bench.flip()
    bench.refresher.refresh()
    assert told == [2]


def test_a_thread_for_each_stream_works_too(bench: Bench) -> None:
    """Without a broadcaster a stream waits for its next frame by itself: for a flip, and for the next beat."""
    bench.store.ttl = replace(bench.store.ttl, ttl_ms=200)
    bench.refresher.refresh()
    stream = bench.begin()
    bench.flip()
    line = bench.streams.next(stream)
    assert line is not None
    assert json.loads(line)["seq"] == 2
    stream.ends_at = 0.0
    bench.flip(2)
    assert bench.streams.next(stream) is None
    bench.refresher.close()


def test_a_revocation_before_the_first_read_is_heard(bench: Bench) -> None:
    """A token that was looked up and then revoked before a node's first read of the log opens nothing there."""
    bench.store.append("note", topic="token_revoked", token_id="a" * 12)
    revoked: set[str] = set()
    young = Refresher(
        bench.store,
        bench.clocks,
        open_log=lambda: bench.store.open_log(namespace=NAMESPACE, ttl_ms=1_000, at="", epoch=EPOCH),
        forget_token=revoked.add,
        use_ttl=lambda _: None,
    )
    young.refresh()
    assert revoked == {"a" * 12}
