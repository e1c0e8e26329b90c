"""The refresher: what it publishes, when a read counts, and that nothing about it fails open."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from app.service.clocks import SystemClocks
from app.service.published import TAIL_LENGTH, Kept, Published, Tail
from app.service.refresher import SHARED, Refresher, Unready
from app.service.store import LogDiverged, LogRow, StoreUnavailable, Ttl
from haltline.flips import Position
from tests.unit.service.fakes import EPOCH, NAMESPACE, ManualClocks, MemoryStore


class Bench:
    """A refresher over fakes."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.clocks = ManualClocks()
        self.forgotten: list[str] = []
        self.ttls: list[int] = []
        self.refresher = Refresher(
            self.store,
            self.clocks,
            open_log=lambda: self.store.open_log(namespace=NAMESPACE, ttl_ms=1_000, at="", epoch=EPOCH),
            forget_token=self.forgotten.append,
            use_ttl=self.ttls.append,
        )

    def published(self) -> Published:
        """Return what was published last."""
        published = self.refresher.published
        assert published is not None
        return published

    def kill(self, number: int = 1) -> None:
        """Write a kill."""
        self.store.append(
            "kill",
            target=f"run:r-{number}",
            flip_id=f"f-{number}",
            reason="why",
            in_flight="finish",
            queued="discard",
        )


@pytest.fixture
def bench() -> Bench:
    """Return a refresher that has read an empty log once."""
    made = Bench()
    made.refresher.refresh()
    return made


def test_first_read_loads_the_fold(bench: Bench) -> None:
    """The first read publishes the whole fold, dated by when it began."""
    assert bench.published().replica.position.seq == 1
    assert bench.published().read_at_us == bench.clocks.now_us
    assert bench.ttls == [1_000]


def test_first_read_takes_the_newest_entries_along() -> None:
    """A node that was just started has the newest 10,000 entries ready, whatever was before them."""
    made = Bench()
    for _ in range(TAIL_LENGTH + 2):
        made.store.append("note", topic="something")
    made.refresher.refresh()
    tail = made.published().tail
    assert tail.base == made.store.rows[1].position
    assert [each.position for each in tail.after(2)] == [row.position for row in made.store.rows[2:]]
    made.kill()
    made.refresher.refresh()
    assert made.published().tail.after(TAIL_LENGTH + 2)[0].position == made.store.rows[-1].position


@pytest.mark.parametrize("how", ["altered", "gap", "cut", "swapped", "headless"])
def test_a_log_that_was_edited_before_the_start_halts_it(how: str) -> None:
    """What the first read takes along must be whole and lead to the head: otherwise there is no first read."""
    made = Bench()
    made.store.open_log(namespace=NAMESPACE, ttl_ms=1_000, at="", epoch=EPOCH)
    for number in range(4):
        made.kill(number)
    rows = made.store.rows
    if how == "altered":
        rows[2] = LogRow(rows[2].position, rows[2].body.replace('"why"', '"who"'))
    elif how == "gap":
        del rows[2]
    elif how == "cut":
        rows.pop()
    elif how == "swapped":
        rows[1], rows[2] = rows[2], rows[1]
    else:
        made.store.replica = replace(made.store.replica, position=Position(5, "a" * 64))
    with capture_logs() as logs:
        made.refresher.refresh()
    assert made.refresher.published is None
    assert made.refresher.halted
    assert [entry["event"] for entry in logs] == ["log_diverged"]


def test_old_positions_are_looked_up_once(bench: Bench) -> None:
    """The position at any seq is what the log has there; a thousand of them are remembered, no more."""
    for number in range(3):
        bench.kill(number)
    rows = bench.store.rows
    assert [bench.refresher.position(seq) for seq in (1, 2, 3, 4)] == [row.position for row in rows]
    assert bench.refresher.position(5) is None
    bench.store.failure = StoreUnavailable("gone")
    assert bench.refresher.position(2) == rows[1].position
    with pytest.raises(StoreUnavailable):
        bench.refresher.position(5)
    bench.store.failure = None
    bench.store.rows.extend(LogRow(Position(seq, "a" * 64), "{}") for seq in range(5, 2_005))
    for seq in range(1, 2_005):
        assert bench.refresher.position(seq) == bench.store.rows[seq - 1].position
        assert len(bench.refresher._past) <= 1_000  # noqa: SLF001 - nothing else shows how much is kept


def test_read_at_is_when_the_read_began(bench: Bench) -> None:
    """Time that passes while the database answers makes the read older, not newer."""
    began = bench.clocks.now_us + 10
    bench.clocks.pass_us(10)
    bench.store.on_read = lambda: bench.clocks.pass_us(70_000)
    bench.refresher.refresh()
    assert bench.published().read_at_us == began
    assert bench.published().age_us(bench.clocks.raw_us_ceil()) == 70_000


def test_entries_and_date_are_published_together(bench: Bench) -> None:
    """A kill shows in the fold, in the tail and with the date of the read that brought it, in one object."""
    before = bench.published()
    bench.kill()
    bench.clocks.pass_us(5)
    bench.refresher.refresh()
    after = bench.published()
    assert "run:r-1" in after.replica.holds
    assert after.tail.after(1)[0].position == after.replica.position
    assert after.read_at_us > before.read_at_us
    assert "run:r-1" not in before.replica.holds
    assert list(before.tail.after(1)) == []


def test_a_page_that_is_not_the_last_leaves_read_at_alone(bench: Bench) -> None:
    """Only the page that reaches the head dates the state anew."""
    before = bench.published().read_at_us
    for number in range(5):
        bench.kill(number)
    bench.store.page_limit = 2
    bench.store.ttl = Ttl(5_000, changed_at=1.0, before_ms=1_000)
    bench.clocks.pass_us(9)
    assert bench.refresher.refresh() is False
    assert bench.published().replica.position.seq == 3
    assert bench.published().read_at_us == before
    assert bench.published().ttl.ttl_ms == 1_000  # a longer ttl beside an old date would be a lease nobody promised
    assert bench.refresher.refresh() is False
    assert bench.refresher.refresh() is True
    assert bench.published().replica.position.seq == 6
    assert bench.published().read_at_us == before + 9
    assert bench.published().ttl.ttl_ms == 5_000


def test_a_failed_read_lets_the_state_age(bench: Bench) -> None:
    """Without the database nothing is published, the age grows, and it is logged once."""
    before = bench.published()
    bench.store.failure = StoreUnavailable("gone")
    with capture_logs() as logs:
        bench.refresher.refresh()
        bench.refresher.refresh()
    assert bench.published() is before
    assert [entry["event"] for entry in logs] == ["log_unreadable"]
    bench.clocks.pass_s(0.5)
    assert before.fresh(bench.clocks.raw_us_ceil())
    bench.clocks.pass_us(1)
    assert not before.fresh(bench.clocks.raw_us_ceil())


@pytest.mark.parametrize("how", ["diverged", "epoch", "unknown kind", "newer version", "altered", "gap"])
def test_a_log_it_cannot_trust_halts_it_for_good(bench: Bench, how: str) -> None:
    """A restored, replaced, altered or newer log ends the leases of this process, loudly, and for good."""
    if how == "diverged":
        bench.store.failure = LogDiverged("shorter than before")
    elif how == "epoch":
        bench.store.epoch = "f" * 16
    elif how == "unknown kind":
        bench.store.append("permit")
    elif how == "newer version":
        bench.store.append("note", topic="x")
        bench.store.rows[-1] = LogRow(
            bench.store.rows[-1].position, bench.store.rows[-1].body.replace('"v":1', '"v":2')
        )
    elif how == "altered":
        bench.kill()
        bench.store.rows[-1] = LogRow(
            bench.store.rows[-1].position, bench.store.rows[-1].body.replace('"why"', '"who"')
        )
    else:
        bench.kill(1)
        bench.kill(2)
        del bench.store.rows[1]
    with capture_logs() as logs:
        bench.refresher.refresh()
    assert bench.refresher.halted
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("log_diverged", "critical")]
    bench.store.failure = None
    assert bench.refresher.read_after(0) is Unready.HALTED
    bench.refresher.ensure_running()
    assert not bench.refresher.running


def test_revocations_are_heeded(bench: Bench) -> None:
    """The note of a revoked token makes this node forget it."""
    bench.store.append("note", topic="token_created", token_id="aaaaaaaaaaaa")
    bench.store.append("note", topic="token_revoked", token_id="bbbbbbbbbbbb")
    bench.refresher.refresh()
    assert bench.forgotten == ["bbbbbbbbbbbb"]


def test_a_changed_ttl_is_published(bench: Bench) -> None:
    """The ttl that the log holds now is the one that leases and memories use."""
    bench.store.ttl = Ttl(300, 1.0, 1_000)
    bench.refresher.refresh()
    assert bench.published().ttl.ttl_ms == 300
    assert bench.ttls[-1] == 300


def test_only_a_read_that_began_later_counts(bench: Bench) -> None:
    """A read that began in the very microsecond of the request is not later: the request waits for another."""
    received = bench.clocks.now_us
    moved = iter((0, 0, 1))
    bench.store.on_read = lambda: bench.clocks.pass_us(next(moved, 1))
    try:
        published = bench.refresher.read_after(received)
    finally:
        bench.refresher.close()
    assert isinstance(published, Published)
    assert published.read_at_us > received


def test_waiting_requests_share_a_read(bench: Bench) -> None:
    """Requests that wait while a read is under way are all answered by the one read after it."""
    gate, entered = threading.Event(), threading.Event()

    def held() -> None:
        entered.set()
        gate.wait(5)
        bench.clocks.pass_us(10)

    bench.store.on_read = held
    bench.refresher.ensure_running()
    assert entered.wait(5)
    received = bench.clocks.now_us + 1
    bench.clocks.pass_us(1)
    answers: list[object] = []
    waiting = [threading.Thread(target=lambda: answers.append(bench.refresher.read_after(received))) for _ in range(20)]
    reads = bench.store.reads
    for thread in waiting:
        thread.start()
    bench.store.on_read = lambda: bench.clocks.pass_us(10)
    gate.set()
    for thread in waiting:
        thread.join(5)
    bench.refresher.close()
    assert len(answers) == 20
    assert all(isinstance(each, Published) and each.read_at_us > received for each in answers)
    assert bench.store.reads - reads <= 6


def test_a_request_is_told_when_the_read_stays_away(bench: Bench) -> None:
    """If no read comes within half a ttl, the answer is that the node is stale."""
    bench.store.failure = StoreUnavailable("gone")
    bench.store.on_read = lambda: bench.clocks.pass_s(0.2)
    try:
        assert bench.refresher.read_after(bench.clocks.now_us) is Unready.STALE
    finally:
        bench.refresher.close()


def test_a_read_that_took_too_long_is_stale(bench: Bench) -> None:
    """A read that began after the request but took over half a ttl does not date a lease."""
    bench.store.on_read = lambda: bench.clocks.pass_us(500_001)
    received = bench.clocks.now_us
    bench.clocks.pass_us(1)
    bench.refresher.refresh()
    assert bench.published().read_at_us > received
    assert bench.refresher.read_after(received) is Unready.STALE
    bench.refresher.close()


def test_a_dead_thread_is_started_anew(bench: Bench) -> None:
    """A fault that nobody foresaw ends the thread, not the service: the next request starts another."""
    faults: list[Callable[[], None]] = [lambda: (_ for _ in ()).throw(RuntimeError("fault"))]

    def once() -> None:
        if faults:
            faults.pop()()
        bench.clocks.pass_us(10)

    bench.store.on_read = once
    with capture_logs() as logs:
        bench.refresher.ensure_running()
        thread = bench.refresher._thread  # noqa: SLF001 - to wait for its end
        assert thread is not None
        thread.join(5)
        assert not bench.refresher.running
        published = bench.refresher.read_after(bench.clocks.now_us)
        bench.refresher.close()
    assert isinstance(published, Published)
    assert "refresher_died" in [entry["event"] for entry in logs]


def test_closing_wakes_those_who_wait() -> None:
    """A request that waits while the process stops is answered as stale, not left hanging."""
    made = Bench()
    made.store.failure = StoreUnavailable("gone")
    answers: list[object] = []
    waiting = threading.Thread(target=lambda: answers.append(made.refresher.read_after(0)))
    waiting.start()
    made.refresher.close()
    waiting.join(5)
    assert answers == [Unready.STALE]


def test_waiting_for_the_log_to_grow(bench: Bench) -> None:
    """Whoever waits beyond a position is woken by the read that brings more, not by one that finds nothing new."""
    came: list[Published | None] = []
    # Its thread reads all the time: here the reads are made by hand.
    bench.refresher.ensure_running = lambda: None  # type: ignore[method-assign]
    waiter = threading.Thread(target=lambda: came.append(bench.refresher.wait_beyond(1, 20.0)))
    waiter.start()
    bench.refresher.refresh()
    waiter.join(0.1)
    assert came == []
    bench.kill()
    bench.refresher.refresh()
    waiter.join(10)
    assert came == [bench.published()]


def test_waiting_for_the_log_to_grow_ends(bench: Bench) -> None:
    """Nobody waits longer than asked; what is published then is handed out, also when the refresher closes."""
    bench.refresher.ensure_running = lambda: None  # type: ignore[method-assign]
    assert bench.refresher.wait_beyond(1, 0.0) is bench.published()
    assert bench.refresher.wait_beyond(0, 100.0) is bench.published()
    bench.refresher.close()
    assert bench.refresher.wait_beyond(1, 100.0) is bench.published()


def test_listeners_get_each_published_state(bench: Bench) -> None:
    """A listener is called with every state as it is published, until it does not want to be any more."""
    heard: list[Published] = []
    forget = bench.refresher.subscribe(heard.append)
    bench.refresher.refresh()
    bench.kill()
    bench.refresher.refresh()
    assert [each.replica.position.seq for each in heard] == [1, 2]
    assert heard[-1] is bench.published()
    forget()
    bench.refresher.refresh()
    assert len(heard) == 2


def test_a_flood_of_requests_is_no_flood_of_reads() -> None:
    """Requests share reads: 64 a ttl, however many come; a doorbell is read at once all the same."""
    made = Bench()
    made.clocks = SystemClocks()  # type: ignore[assignment]
    refresher = Refresher(
        made.store,
        made.clocks,
        open_log=lambda: made.store.open_log(namespace=NAMESPACE, ttl_ms=1_000, at="", epoch=EPOCH),
        forget_token=lambda _: None,
        use_ttl=lambda _: None,
    )
    until = made.clocks.monotonic() + 0.5
    requests = 0
    while made.clocks.monotonic() < until:
        assert isinstance(refresher.read_after(made.clocks.raw_us_ceil()), Published)
        requests += 1
    assert 2 <= made.store.reads <= 0.5 * SHARED + 4
    before = made.store.reads
    for _ in range(20):
        ended = threading.Event()
        made.store.on_read = ended.set
        refresher.ring()
        assert ended.wait(10)
    assert made.store.reads >= before + 20
    refresher.close()


def test_the_tail_keeps_the_newest_entries() -> None:
    """The tail drops its oldest entries in one go and never fewer than the newest 10,000 are kept."""
    tail = Tail(Position(), [], 0)
    hashed = "a" * 64
    for start in range(0, 25_000, 500):
        tail = tail.grown([Kept(Position(seq, hashed), None, "{}", "{}") for seq in range(start + 1, start + 501)])
        assert tail.length < 2 * TAIL_LENGTH
        assert tail.after(tail.base.seq)[-1].position.seq == start + 500
        assert tail.length >= min(start + 500, TAIL_LENGTH)
    assert tail.position(25_000) == Position(25_000, hashed)
    assert tail.position(tail.base.seq) == tail.base
    assert tail.position(tail.base.seq - 1) is None
    assert tail.position(25_001) is None
    assert len(tail.after(24_990)) == 10


@pytest.mark.parametrize("leisure_s", [0.0, 0.5])
def test_a_node_without_workers_reads_once_for_several_rings(leisure_s: float) -> None:
    """Where no worker waits for the news, a ring is heeded a little later, and one read answers those until then."""
    store = MemoryStore(ttl_ms=5_000)  # so that it reads by itself seldom
    reads: list[float] = []
    refresher = Refresher(
        store,
        SystemClocks(),
        open_log=lambda: store.open_log(namespace=NAMESPACE, ttl_ms=5_000, at="", epoch=EPOCH),
        forget_token=lambda _: None,
        use_ttl=lambda _: None,
        leisure_s=leisure_s,
    )
    refresher.subscribe(lambda _: reads.append(time.monotonic()))
    refresher.ensure_running()
    while not reads:
        time.sleep(0.001)
    time.sleep(0.1)  # the pause between two reads is over
    begun, rung = len(reads), time.monotonic()
    refresher.ring()
    time.sleep(0.15)
    refresher.ring()
    while reads[-1] < rung + 0.1:
        time.sleep(0.005)
    heeded = [each - rung for each in reads[begun:]]
    refresher.close()
    if leisure_s:
        assert heeded[0] >= leisure_s
        assert len(heeded) == 1
    else:
        assert len(heeded) >= 2
