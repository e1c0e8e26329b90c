"""The broadcaster on real sockets: who is told what, and what becomes of those that do not read."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gevent  # type: ignore[import-untyped]
import pytest
from gevent.socket import socket as gevent_socket  # type: ignore[import-untyped]

from app.api.granting import StreamReply
from app.service.clocks import SystemClocks
from app.service.store import StoreUnavailable, Ttl
from app.service.streams import Stream
from app.serving.broadcaster import Broadcaster
from app.serving.carried import Line as Way
from tests.unit.service.test_streams import Bench

WITHIN_S = 0.3


def way(stream: Stream) -> Way:
    """Return the way to its next stream of a connection whose own greenlet reads every request."""
    return Way(StreamReply(None, stream, b"", send_within_s=WITHIN_S), None, bytes)  # type: ignore[arg-type]


class Line:
    """One worker's connection, and the greenlet that serves it."""

    def __init__(self, hall: Hall, stream: Stream, *, buffer: int | None) -> None:
        ours, theirs = socket.socketpair()
        if buffer is not None:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        theirs.settimeout(0)
        self.worker = theirs
        self.stream = stream
        self.client = gevent_socket(fileno=ours.detach())
        self.failure: OSError | None = None
        self._got = b""
        self.greenlet = gevent.spawn(self._serve, hall)

    def _serve(self, hall: Hall) -> None:
        try:
            hall.broadcaster.carry(self.client, way(self.stream))
        except OSError as error:
            self.failure = error

    @property
    def ended(self) -> bool:
        """Whether its greenlet has it back for good."""
        return bool(self.greenlet.dead)

    def read(self) -> list[dict[str, Any]]:
        """Return the frames that have come, taken out of their chunks; the last may be None for the end."""
        try:
            while data := self.worker.recv(65_536):
                self._got += data
        except BlockingIOError:
            pass
        frames = []
        while b"\r\n" in self._got:
            size, _, rest = self._got.partition(b"\r\n")
            length = int(size, 16)
            if len(rest) < length + 2:
                break
            assert rest[length : length + 2] == b"\r\n"
            if length:
                frames.append(json.loads(rest[:length]))
            self._got = rest[length + 2 :]
            if not length:
                frames.append({})
        return frames

    def close(self) -> None:
        """Close both ends."""
        self.greenlet.kill()
        self.client.close()
        self.worker.close()


class Hall:
    """A broadcaster over fakes, and its lines."""

    def __init__(self, *, ttl_ms: int = 400) -> None:
        self.bench = Bench()
        self.bench.clocks = SystemClocks()  # type: ignore[assignment]
        for part in (self.bench.refresher, self.bench.streams):
            part._clocks = self.bench.clocks  # noqa: SLF001 - real time, as its greenlet has it
        self.bench.refresher.ensure_running = lambda: None  # type: ignore[method-assign]  # read when told to
        self.bench.store.ttl = Ttl(ttl_ms)
        self.bench.refresher.refresh()
        self.broadcaster = Broadcaster(self.bench.streams)
        self.lines: list[Line] = []

    def line(self, *, buffer: int | None = None) -> Line:
        """Return a connection that was told how the log stands now."""
        made = Line(self, self.bench.begin(), buffer=buffer)
        self.lines.append(made)
        return made

    def read(self) -> None:
        """Have the log read: what the refresher does all the time."""
        self.bench.refresher.refresh()

    def flip_up_to(self, last: int) -> None:
        """Write long kills up to a position, and have them read at once: one large frame."""
        for number in range(2, last + 1):
            self.bench.store.append(
                "kill",
                target=f"run:r-{number}",
                flip_id=f"f-{number}",
                reason="x" * 400,
                in_flight="finish",
                queued="discard",
            )
        self.read()


@pytest.fixture
def hall() -> Iterator[Hall]:
    """Return a broadcaster, and close what was opened."""
    made = Hall()
    made.bench.streams.limit = 100  # type: ignore[misc]
    yield made
    for each in made.lines:
        each.close()


def until(hall: Hall, seconds: float = 5.0) -> Iterator[None]:
    """Yield while there is time, having the log read in between."""
    for _ in range(int(seconds / 0.02)):
        yield
        hall.read()
        gevent.sleep(0.02)
    raise AssertionError("it did not come about")


def test_a_flip_is_told_at_once_and_to_all(hall: Hall) -> None:
    """A flip is written to every stream without waiting for its beat."""
    hall.bench.store.ttl = Ttl(5_000)  # for a machine that takes its time over 50 connections
    hall.read()
    lines = [hall.line() for _ in range(50)]
    gevent.sleep(0.01)
    hall.bench.flip()
    gevent.sleep(0.05)
    assert [[frame["seq"] for frame in each.read()][-1] for each in lines] == [2] * 50


def test_one_that_joins_late_is_told_what_it_missed(hall: Hall) -> None:
    """A flip between a stream's first frame and its joining is told as soon as it has joined."""
    stream = hall.bench.begin()
    hall.bench.flip()
    hall.line()
    gevent.sleep(0.01)
    late = Line(hall, stream, buffer=None)
    hall.lines.append(late)
    gevent.sleep(0.05)
    frames = late.read()
    assert (frames[0]["from"], frames[0]["seq"]) == (1, 2)


def test_beats_come_and_are_spread(hall: Hall) -> None:
    """Without a flip each stream gets about four frames a ttl, and not all in one go."""
    lines = [hall.line() for _ in range(20)]
    counts = [0] * 20
    bursts: list[int] = []
    for _ in range(40):
        hall.read()
        gevent.sleep(0.02)
        came = [len(each.read()) for each in lines]
        bursts.append(sum(count > 0 for count in came))
        counts = [one + more for one, more in zip(counts, came, strict=True)]
    assert min(counts) >= 4
    assert max(counts) <= 16
    hall.bench.store.ttl = Ttl(300)
    hall.read()
    gevent.sleep(0.4)
    assert sum(burst == 20 for burst in bursts) < 20


def test_the_end_is_written_with_the_last_frame(hall: Hall) -> None:
    """A stream that has lasted long enough gets one more frame and the end of the reply, and is given back."""
    line = hall.line()
    line.stream.ends_at = 0.0
    for _ in until(hall):
        if line.ended:
            break
    frames = line.read()
    assert frames[-1] == {}
    assert frames[-2]["seq"] == 1
    assert line.failure is None


def test_a_revoked_one_is_told_nothing_more(hall: Hall) -> None:
    """The stream of a token that was revoked ends without another frame: none of a read after the revocation."""
    line, other = hall.line(), hall.line()
    gevent.sleep(0.01)
    line.read()
    other.stream.who = replace(other.stream.who, token_id="b" * 12)
    hall.bench.store.append("note", topic="token_revoked", token_id="a" * 12)
    hall.read()
    for _ in until(hall):
        if line.ended:
            break
    assert line.failure is None
    assert all(not frame or frame["seq"] == 1 for frame in line.read())
    assert other.read()[-1]["seq"] == 2
    assert not other.ended


def test_all_end_when_the_node_cannot_read(hall: Hall) -> None:
    """When the newest read is too old every stream ends, in order, and none of them hangs."""
    lines = [hall.line() for _ in range(5)]
    gevent.sleep(0.01)
    hall.bench.store.failure = StoreUnavailable("gone")
    for _ in until(hall):
        if all(each.ended for each in lines):
            break
    assert all(each.read()[-1] == {} and each.failure is None for each in lines)
    hall.bench.store.failure = None
    hall.read()
    again = hall.line()
    for _ in until(hall):
        if again.read():
            break


def test_a_slow_one_gets_the_rest(hall: Hall) -> None:
    """A frame that a socket takes in parts arrives whole if its client reads in time; others are not held up."""
    slow, quick = hall.line(buffer=4_608), hall.line()
    gevent.sleep(0.01)
    hall.flip_up_to(61)
    gevent.sleep(0.05)
    assert quick.read()[-1]["seq"] == 61
    seen: list[int] = []
    for _ in until(hall):
        seen += [frame["seq"] for frame in slow.read()]
        if 61 in seen:
            break
    assert not slow.ended
    before = len(seen)
    for _ in until(hall):
        seen += [frame["seq"] for frame in slow.read()]
        if len(seen) > before:
            break


def test_one_that_does_not_read_is_given_up(hall: Hall) -> None:
    """A frame that is not taken in time ends the connection: a part of a frame is never followed by another one."""
    lazy = hall.line(buffer=4_608)
    gevent.sleep(0.01)
    hall.flip_up_to(201)
    for _ in until(hall):
        if lazy.ended:
            break
    assert isinstance(lazy.failure, TimeoutError)


def test_one_that_is_gone_is_given_back_broken(hall: Hall) -> None:
    """A connection whose other end was closed is given back with the error, at its next frame."""
    line = hall.line()
    line.worker.close()
    for _ in until(hall):
        if line.ended:
            break
    assert isinstance(line.failure, BrokenPipeError)


def test_a_greenlet_that_is_ended_takes_its_socket_with_it(hall: Hall) -> None:
    """Nothing is written to a connection whose greenlet was ended from outside: its descriptor may be another's."""
    line, other = hall.line(), hall.line()
    gevent.sleep(0.01)
    line.read()
    line.greenlet.kill()
    hall.bench.flip()
    gevent.sleep(0.1)
    assert all(frame["seq"] == 1 for frame in line.read())
    assert other.read()[-1]["seq"] == 2


def test_a_failure_wakes_everybody(hall: Hall, capsys: pytest.CaptureFixture[str]) -> None:
    """If the broadcaster itself fails nobody sleeps for ever, and the next stream starts it anew."""
    line = hall.line()
    gevent.sleep(0.01)
    over = hall.bench.streams.over

    def broken(_: object) -> bool:
        raise RuntimeError("a defect")

    hall.bench.streams.over = broken  # type: ignore[method-assign, assignment]
    hall.bench.flip()
    gevent.sleep(0.1)
    assert line.ended
    assert "a defect" in capsys.readouterr().err
    hall.bench.streams.over = over  # type: ignore[method-assign]
    again = hall.line()
    for _ in until(hall):
        if again.read():
            break
