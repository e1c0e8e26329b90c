"""Hand-overs on real sockets: who asks again is answered in place, whatever else comes is left to the greenlet."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import gevent  # type: ignore[import-untyped]
import pytest

from app.api.granting import StreamReply
from app.service.published import Published
from app.service.store import StoreUnavailable, Ttl
from app.service.streams import LONGEST_S, SHORTEST_S, Stream
from app.serving import handovers
from app.serving.carried import Carried
from app.serving.carried import Line as Way
from tests.unit.serving.test_broadcaster import WITHIN_S, Hall, Line, until

ASK = b"ask"
REFUSED = b"ask what is refused"
BREAKS = b"ask what breaks"
HEAD = b"head\r\n\r\n"


class Caller(Line):
    """A worker that may ask for its next stream in place.

    Attributes:
        left: what its greenlet was given back to answer itself; None while it sleeps.
        answered: for each request answered in place, when it was received and when what answers it was read.
    """

    def __init__(self, hall: Hall, *, buffer: int | None = None) -> None:
        self.left: bytes | None = None
        self.answered: list[tuple[int, int]] = []
        self._hall = hall
        super().__init__(hall, hall.bench.begin(), buffer=buffer)
        hall.lines.append(self)

    def _serve(self, hall: Hall) -> None:
        reply = StreamReply(hall.bench.streams, self.stream, b"", send_within_s=WITHIN_S, follow=self._follow)
        try:
            self.left = hall.broadcaster.carry(self.client, Way(reply, _body_of, lambda: HEAD))
        except OSError as error:
            self.failure = error

    def _follow(self, stream: Stream, body: bytes, published: Published, received_at_us: int) -> bytes | None:
        if body == REFUSED:
            return None
        if body == BREAKS:
            raise RuntimeError("a defect")
        self.answered.append((received_at_us, published.read_at_us))
        streams = self._hall.bench.streams
        streams.again(stream)
        streams.sent(stream, published)
        return b'{"first":true,"seq":%d}\n' % stream.cursor

    def finish(self) -> None:
        """Have this stream end, and take what has come up to its end."""
        self.stream.ends_at = 0.0
        for _ in until(self._hall):
            if {} in self.read():
                return

    def ask(self, data: bytes = ASK) -> None:
        """Send something as the next request."""
        self.worker.send(data)

    def take_head(self) -> None:
        """Take the head of the next reply, once it has come whole with what follows."""
        for _ in until(self._hall):
            try:
                self._got += self.worker.recv(65_536)
            except BlockingIOError:
                continue
            if self._got.startswith(HEAD) and len(self._got) > len(HEAD):
                self._got = self._got[len(HEAD) :]
                return


def _body_of(data: bytes) -> bytes | None:
    return data if data.startswith(ASK) else None


@pytest.fixture
def hall() -> Iterator[Hall]:
    """Return a broadcaster, and close what was opened."""
    made = Hall()
    made.bench.streams.limit = 100  # type: ignore[misc]
    yield made
    for each in made.lines:
        each.close()
    gevent.sleep(0)
    assert len(made.broadcaster._between) == 0  # noqa: SLF001 - nothing may be left in any test


def test_the_next_stream_is_given_in_place(hall: Hall) -> None:
    """A worker that asks again gets a head, a first frame and those after it; its greenlet sleeps on."""
    line = Caller(hall)
    for number in range(3):
        line.finish()
        line.ask()
        line.take_head()
        first = line.read()[0]
        assert first == {"first": True, "seq": 1 + number}
        left = line.stream.ends_at - hall.bench.streams.now()
        assert SHORTEST_S - 5 < left <= LONGEST_S
        hall.bench.flip(number)
        frames = []
        for _ in until(hall):
            frames += line.read()
            if frames:
                break
        assert frames[0]["seq"] == number + 2
    assert not line.ended


def test_the_answer_is_of_a_read_that_began_later(hall: Hall) -> None:
    """Nobody is answered from what had been read before; one read answers all who have asked by then."""
    lines = [Caller(hall) for _ in range(20)]
    for line in lines:
        line.finish()
    for line in lines:
        line.ask()
    gevent.sleep(0.02)
    assert not any(line.answered for line in lines)
    hall.read()
    gevent.sleep(0.02)
    assert [len(line.answered) for line in lines] == [1] * 20
    assert all(read > received for line in lines for received, read in line.answered)
    assert len({read for line in lines for _, read in line.answered}) == 1


def test_no_read_no_answer(hall: Hall) -> None:
    """If the log is not read for half a ttl the request is left to the greenlet, which refuses it as ever."""
    line = Caller(hall)
    line.finish()
    line.ask()
    gevent.sleep(0.35)
    assert line.left == ASK
    assert line.answered == []


@pytest.mark.parametrize("data", [REFUSED, b"something else", b"as"])
def test_anything_else_is_left_to_the_greenlet(hall: Hall, data: bytes) -> None:
    """A request that is not the one before again, or that is refused, is given back as it came."""
    line = Caller(hall)
    line.finish()
    line.ask(data)
    for _ in until(hall):
        if line.ended:
            break
    assert (line.left, line.failure) == (data, None)


def test_a_flip_in_between_is_not_missed(hall: Hall) -> None:
    """What is flipped between two streams is in the first frame of the second, or told right after it."""
    line, other = Caller(hall), hall.line()
    line.finish()
    hall.bench.flip(1)
    gevent.sleep(0.02)
    assert other.read()[-1]["seq"] == 2
    line.ask()
    line.take_head()
    hall.bench.flip(2)
    seen: list[int] = []
    for _ in until(hall):
        seen += [frame["seq"] for frame in line.read()]
        if 3 in seen:
            break
    assert seen[0] == 2


def test_one_that_goes_away_in_between(hall: Hall) -> None:
    """A connection that is closed between two streams is given back, with nothing to answer."""
    line = Caller(hall)
    line.finish()
    line.worker.close()
    for _ in until(hall):
        if line.ended:
            break
    assert line.left == b""


def test_one_that_is_reset_in_between(hall: Hall) -> None:
    """A connection that breaks between two streams is given back broken."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    line = Caller(hall)
    line.client.close()
    line.worker.close()
    line.greenlet.kill()
    line.client, line.worker = gevent.socket.socket(fileno=ours.detach()), theirs
    theirs.settimeout(0)
    line.greenlet = gevent.spawn(line._serve, hall)  # noqa: SLF001 - over TCP this time: only that has resets
    gevent.sleep(0.01)
    line.finish()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    theirs.close()
    for _ in until(hall):
        if line.ended:
            break
    assert isinstance(line.failure, ConnectionResetError)


def test_one_that_stays_silent(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that asks for nothing more is the greenlet's to wait for after a while; the others go on."""
    monkeypatch.setattr(handovers, "PATIENCE_S", 0.2)
    line, other = Caller(hall), Caller(hall)
    line.finish()
    for _ in until(hall):
        if line.ended:
            break
    assert line.left == b""
    other.finish()
    other.ask()
    other.take_head()
    assert other.read()[0]["first"]


def test_a_greenlet_that_is_ended_in_between(hall: Hall) -> None:
    """Nothing is read from a connection whose greenlet was ended from outside, before it asks or after."""
    silent, asking, due = Caller(hall), Caller(hall), Caller(hall)
    for line in (silent, asking, due):
        line.finish()
    asking.ask()
    gevent.sleep(0.01)
    for line in (silent, asking):
        line.greenlet.kill()
        line.ask()
    due.ask()
    for _ in until(hall):
        if due.answered:
            break
    assert (silent.answered, asking.answered) == ([], [])


def test_a_node_that_cannot_read_gives_all_back(hall: Hall) -> None:
    """When every stream has to end, those between two are given back, too, with what they have asked."""
    silent, asking = Caller(hall), Caller(hall)
    for line in (silent, asking):
        line.finish()
    hall.bench.store.failure = StoreUnavailable("gone")
    asking.ask()
    for _ in until(hall):
        if silent.ended and asking.ended:
            break
    assert (silent.left, asking.left) == (b"", ASK)


def test_a_first_frame_that_is_not_taken_at_once(hall: Hall) -> None:
    """The rest of a first frame arrives if it is read in time, and the stream goes on; if not, it is given up."""
    slow, lazy = Caller(hall, buffer=4_608), Caller(hall, buffer=4_608)
    for line in (slow, lazy):
        line.finish()
        line.client.settimeout(0)
        while True:  # what was sent before fills the way: there is no room for the first frame
            try:
                line.client._sock.send(b"x" * 100)  # noqa: SLF001 - without gevent's waiting
            except BlockingIOError:
                break
        line.ask()
    for _ in until(hall):
        if slow.answered and lazy.answered:
            break
    data = b""
    for _ in until(hall):
        try:
            data += slow.worker.recv(65_536)
        except BlockingIOError:
            continue
        if data.count(b'"seq"') > 1:
            break
    assert data.lstrip(b"x").startswith(HEAD)
    for _ in until(hall):
        if lazy.ended:
            break
    assert isinstance(lazy.failure, TimeoutError)


def test_a_defect_in_one_is_that_ones(hall: Hall) -> None:
    """If answering one of them fails it has its connection back, with what it has asked; the others are answered."""
    lines = [Caller(hall) for _ in range(3)]
    for line in lines:
        line.finish()
    for line, data in zip(lines, (ASK, BREAKS, ASK), strict=True):
        line.ask(data)
    for _ in until(hall):
        if all(line.ended or line.answered for line in lines):
            break
    assert [line.left for line in lines] == [None, BREAKS, None]


def test_a_failure_leaves_nobody_asleep(hall: Hall, capsys: pytest.CaptureFixture[str]) -> None:
    """If the broadcaster itself fails, whoever is between two streams has its connection back."""
    silent, asking = Caller(hall), Caller(hall)
    for line in (silent, asking):
        line.finish()

    def broken(_: object) -> list[Carried]:
        raise RuntimeError("a defect")

    hall.broadcaster._between.due = broken  # type: ignore[method-assign, assignment]  # noqa: SLF001 - no other way in
    asking.ask()
    for _ in until(hall):
        if silent.ended and asking.ended:
            break
    assert "a defect" in capsys.readouterr().err
    assert silent.left == b""
    assert asking.left in (b"", ASK)  # its request may still be in the socket


def test_a_flip_goes_before_those_who_wait(hall: Hall) -> None:
    """A flip that comes while many are being answered is told to everybody else before the rest of them."""
    hall.bench.store.ttl = Ttl(1_000)
    hall.read()
    others, askers = [hall.line() for _ in range(3)], [Caller(hall) for _ in range(200)]
    for each in askers:
        each.stream.ends_at = 0.0
    for each in askers:
        each.finish()
    order: list[str] = []
    join, send = hall.broadcaster._join, hall.broadcaster._send  # noqa: SLF001 - the order of things is seen only here

    def joined(carried: Carried) -> None:
        order.append("answered")
        if order.count("answered") == 40:
            hall.bench.flip()
        gevent.sleep(0.001)  # so that its time is soon over
        join(carried)

    def sent(carried: Carried, data: bytes) -> None:
        if carried.line.body_of is None:
            order.append("told")
        send(carried, data)

    hall.broadcaster._join = joined  # type: ignore[method-assign]  # noqa: SLF001
    hall.broadcaster._send = sent  # type: ignore[method-assign, assignment]  # noqa: SLF001
    for each in askers:
        each.ask()
    for _ in until(hall, 10.0):
        if order.count("answered") == 200:
            break
    flipped = [place for place, what in enumerate(order) if what == "answered"][39]
    before_next = order[flipped : flipped + 64].index("told")  # it looks at the clock every 32
    assert before_next < 64
    assert len(others) == 3


def test_beats_do_not_add_up(hall: Hall) -> None:
    """However often a connection is handed over, it is due four times a ttl, not more often."""
    line = Caller(hall)
    for _ in range(10):
        line.finish()
        line.ask()
        line.take_head()
    line.read()
    frames = 0
    for _ in range(20):  # one ttl
        hall.read()
        gevent.sleep(0.02)
        frames += len(line.read())
    assert 2 <= frames <= 6
    assert len(hall.broadcaster._beats) <= 1  # noqa: SLF001 - what would add up
