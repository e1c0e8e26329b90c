"""A stream whose request was long in coming through is of little use: it is left for a new one, not all at once."""

from __future__ import annotations

import pytest

from haltline.clocks import LEASE_CLOCK
from haltline.errors import ServiceError
from haltline.exchanges import Exchanges
from haltline.native import make_condition
from haltline.renewal import Identity, Renewal, Reply, Then
from haltline.testing import FakeService, ManualClock
from haltline.testing.streams import FakeStream
from tests.support.exchange import Exchange


def known(*, random: float = 0.5) -> Exchange:
    """Return a client that knows the log: no first frame of its streams has a snapshot."""
    exchange = Exchange(random=random)
    exchange.renew()
    return exchange


@pytest.mark.parametrize("random", [0.0, 0.5, 0.999999])
def test_it_is_left_for_a_new_one(random: float) -> None:
    """Its leases are over, or nearly, when they come: after ttl/4 to 5/4 ttl it is asked for anew, in order."""
    exchange = known(random=random)
    stream = exchange.open(waited=0.9)
    assert exchange.live
    while stream.then is not Then.ASK:
        assert exchange.clock.read().boot - stream.ask.t0.boot <= 2_200_000_000
        exchange.clock.advance(min(stream.following.left_s(exchange.clock.read()), 0.25))
        stream.hear()
    assert exchange.clock.read().boot - stream.ask.t0.boot == pytest.approx(1_150_000_000 + random * 1e9, abs=1e6)
    assert exchange.renewal.due <= exchange.clock.read().boot


def test_silence_until_then_is_no_failure() -> None:
    """The service is asked anew as after an orderly end, without a pause and at the same address."""
    exchange = known(random=0.0)
    stream = exchange.open(waited=0.9)
    left = stream.following.left_s(exchange.clock.read())
    assert left == pytest.approx(0.25)
    exchange.clock.advance(left)
    assert stream.following.failed("no frame in time", exchange.clock.read()) is Then.ASK


def test_one_that_came_soon_enough_is_kept() -> None:
    """Half a ttl still leaves a lease that outlasts the next frame."""
    exchange = known(random=0.0)
    stream = exchange.open(waited=0.49)
    for _ in range(20):
        exchange.clock.advance(0.25)
        stream.hear()
        assert exchange.live
    assert stream.then is Then.READ


def test_what_counts_is_when_the_truth_was_read() -> None:
    """A node that read it late, and answered at once, gives whole leases."""
    exchange = known(random=0.0)
    stream = exchange.open(took=0.9, change=lambda frame: frame.update(read_at=frame["received_at"] + 899_000))
    assert stream.following.left_s(exchange.clock.read()) == pytest.approx(0.6)
    exchange.clock.advance(0.5)
    assert exchange.live


def test_the_time_doubles_while_it_gets_no_better() -> None:
    """A node that still has too much to do is asked less and less often; a good stream begins anew."""
    exchange = known(random=0.999999)

    def kept(waited: float) -> float:
        """Return for how long a stream is kept whose frames come so late, at most."""
        return exchange.open(waited=waited).following.left_s(exchange.clock.read())

    assert exchange.renewal.patience_ns(600_000_000) == pytest.approx(1_250_000_000, abs=10_000)
    assert exchange.renewal.patience_ns(600_000_000) == pytest.approx(2_250_000_000, abs=10_000)
    waits = [exchange.renewal.patience_ns(600_000_000) for _ in range(5)]
    assert max(wait or 0 for wait in waits) == pytest.approx(8_250_000_000, abs=10_000)
    assert kept(0.1) == pytest.approx(0.6)
    assert exchange.renewal.patience_ns(600_000_000) == pytest.approx(1_250_000_000, abs=10_000)


# -- what a frame was late by itself ---------------------------------------------------------------------------------


def test_a_snapshot_that_was_long_on_its_way_says_nothing_of_its_stream() -> None:
    """A large one is: the stream is kept, and its next frame is soon enough."""
    exchange = Exchange(random=0.0)
    stream = exchange.open(took=0.9)
    assert stream.following.left_s(exchange.clock.read()) == pytest.approx(0.6)
    for _ in range(20):
        exchange.clock.advance(0.25)
        stream.hear()
        assert (stream.then, exchange.live) == (Then.READ, True)


def test_the_frame_after_a_snapshot_is_judged() -> None:
    """Where the request had waited in a queue it is as late as the snapshot was."""
    exchange = Exchange(random=0.0)
    stream = exchange.open(waited=0.9)
    exchange.clock.advance(0.25)
    stream.hear()
    assert stream.following.left_s(exchange.clock.read()) == pytest.approx(0.25)


def test_a_snapshot_that_came_soon_shows_a_good_stream() -> None:
    """A frame that was held up later does not make it a poor one."""
    exchange = Exchange(random=0.0)
    stream = exchange.open(waited=0.1)
    stream.hear(took=0.9)
    assert stream.following.left_s(exchange.clock.read()) == pytest.approx(0.6)
    assert stream.following.may_leave(exchange.clock.read())


def test_a_frame_that_comes_soon_enough_ends_the_doubt() -> None:
    """Those before it lay about while the snapshot was read: the stream is not left, and the doubling ends."""
    exchange = Exchange(random=0.0)
    stream = exchange.open(took=0.9)
    exchange.clock.advance(0.1)
    stream.hear(took=0.8)
    assert stream.following.left_s(exchange.clock.read()) == pytest.approx(0.25)
    stream.hear()
    assert stream.following.left_s(exchange.clock.read()) == pytest.approx(0.6)
    exchange.clock.advance(0.5)
    stream.hear()
    assert stream.then is Then.READ
    assert exchange.renewal._poor == 0  # noqa: SLF001


# -- callers that cannot wait ----------------------------------------------------------------------------------------


class Queue:
    """A line to a node that answers each request late; the agents of the client cannot wait.

    Args:
        waited: for how long a request lies in the node's queue, seconds.
        impatient: whether the agents ask for a new stream whenever the lease has lapsed.
        asleep: a machine that sleeps does so before this frame, for an hour; 0 for one that does not.
    """

    def __init__(self, *, waited: float, impatient: bool, asleep: int = 0) -> None:
        self.clock = ManualClock()
        self.waited = waited
        self.asked = self.lapses = self.interrupted = 0
        self._service = FakeService(clock=self.clock)
        self._impatient = impatient
        self._asleep = asleep
        self.renewal = Renewal(Identity("worker-1", "instance-1", "default"), random=lambda: 0.999999)
        self.exchanges = Exchanges(
            self.renewal,
            lambda: self,
            self.clock.clocks,
            stream=True,
            lock=make_condition(),
            publish=lambda: None,
        )

    def goes(self, seconds: float) -> None:
        """Have the client go on for so long."""
        end = self.clock.read().boot + int(seconds * 1e9)
        while (now := self.clock.read().boot) < end:
            self.clock.advance(max((max(self.renewal.due, self.renewal.earliest) - now) / 1e9, 0))
            self.exchanges.once(lambda: True)

    def between(self, frames: int) -> None:
        """Let the agents have their turn before the next frame."""
        if frames and frames == self._asleep:
            self.clock.advance(3600)
        if self.clock.clocks.gettime(LEASE_CLOCK) >= self.renewal.lease.until:
            self.lapses += 1
            if self._impatient:
                self.exchanges.leave()

    def stream(self, path: str, body: bytes, *, deadline_s: float) -> Late:  # noqa: ARG002  # the port's
        """Return the node's stream."""
        self.asked += 1
        self.clock.advance(self.waited)
        return Late(self, self._service.stream(body, token=self._service.token))

    def post(self, path: str, body: bytes, *, deadline_s: float, limit: int) -> Reply:
        """Refuse: it carries streams only."""
        raise NotImplementedError

    def interrupt(self) -> None:
        """Wake whoever reads."""
        self.interrupted += 1

    def rotate(self, later_s: float = 0.0) -> float:
        """Return for how long it does not want to be asked: there is no other node."""
        return later_s

    def close(self) -> None:
        """Give the connection back."""


class Late:
    """A stream of that node: a frame every 250 ms."""

    def __init__(self, queue: Queue, stream: FakeStream) -> None:
        self._queue = queue
        self._stream = stream
        self._frames = 0
        self._interrupted = queue.interrupted
        self.status, self.content_type, self.encoded = stream.status, stream.content_type, stream.encoded

    def line(self, *, deadline_s: float, limit: int) -> bytes | None:  # noqa: ARG002  # the port's
        """Return the next frame."""
        if self._frames:
            for step in (0.2, 0.05):
                self._queue.clock.advance(min(step, deadline_s))
                self._queue.between(self._frames)
                if self._queue.interrupted != self._interrupted:
                    raise ServiceError("interrupted", sent=True)
                if deadline_s <= step:
                    raise ServiceError("no frame in time", sent=True)
                deadline_s -= step
        self._frames += 1
        return self._stream.beat()

    def header(self, name: str) -> str:
        """Return no header."""
        return self._stream.header(name)

    def read(self, limit: int) -> bytes:
        """Return the whole body."""
        return self._stream.read(limit)


@pytest.mark.parametrize("waited", [0.85, 0.95])
def test_who_cannot_wait_has_no_more_asked_of_a_node_with_too_much_to_do(waited: float) -> None:
    """Each lease is live for a moment only; however often one asks for it, the time doubles as for everybody else."""
    patient, impatient = Queue(waited=waited, impatient=False), Queue(waited=waited, impatient=True)
    for each in (patient, impatient):
        each.goes(60)
        assert each.lapses > 10
    assert impatient.asked == patient.asked <= 12


def test_a_good_stream_that_keeps_no_lease_is_left_at_once() -> None:
    """As after the machine slept."""
    queue = Queue(waited=0.0, impatient=True, asleep=2)
    queue.exchanges.once(lambda: True)
    assert (queue.interrupted, queue.asked) == (1, 1)
    assert queue.renewal.due <= queue.clock.read().boot


def test_a_poor_stream_may_be_left_once_its_time_is_over() -> None:
    """Also by whoever cannot wait: the machine may have slept, and the read's own timer with it."""
    queue = Queue(waited=0.95, impatient=True, asleep=2)
    queue.exchanges.once(lambda: True)
    assert (queue.interrupted, queue.asked) == (1, 1)
    assert queue.renewal.due <= queue.clock.read().boot
