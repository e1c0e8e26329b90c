"""The broadcaster: one greenlet writes the frames of all lease streams of a process, straight to their sockets.

A greenlet a stream that waits, builds and writes costs five times as much (docs/decisions/0016). The connection's own
greenlet sends the first frame, then sleeps here as long as its worker asks for one stream after the other, and goes on
with whatever else is asked: so the socket never has two owners, and closing it needs no lock.

A frame is made once for each view and position and written without waiting. Where a socket does not take all of it,
the rest is given back to the connection's own greenlet, which may wait for it, but not for long.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import gevent  # type: ignore[import-untyped]
import structlog
from gevent.event import Event  # type: ignore[import-untyped]
from gevent.hub import Waiter  # type: ignore[import-untyped]

from app.serving.carried import Carried, Line
from app.serving.handovers import HandOvers

if TYPE_CHECKING:
    from app.service.frames import View
    from app.service.published import Published
    from app.service.streams import Stream, Streams

SLICE_S: Final = 0.003
"""How long it writes at most before requests have their turn, seconds, where nothing was flipped."""

FLIP_SLICE_S: Final = 0.02
"""The same where something was: the stop goes before all else, but not before a kill for very long."""

TICK_S: Final = 0.005
"""The shortest wait between two rounds in which nothing was flipped, seconds."""

_LOOK: Final = 32
"""After how many sockets it looks at the clock."""

_log: Final[Any] = structlog.get_logger(__name__)

_LAST: Final = b"0\r\n\r\n"
"""The end of a chunked reply: the connection is ready for the next request."""


class Broadcaster:
    """Writes the streams of one process."""

    def __init__(self, streams: Streams) -> None:
        """Set up, without starting.

        Args:
            streams: says what each stream gets next, and which has to end.
        """
        self._streams = streams
        self._carried: dict[Carried, None] = {}
        self._beats: deque[Carried] = deque()
        self._late: list[Carried] = []
        self._beat_s = 0.0
        self._seq = 0
        self._told = Event()
        self._of: Published | None = None
        self._chunks: dict[tuple[View, int], bytes | None] = {}
        self._greenlet: Any = None
        self._loop = gevent.get_hub().loop
        self._between = HandOvers(streams, loop=self._loop, wake=self._told.set, give_back=self._give_back)
        streams.subscribe(self._told.set)

    def carry(self, client: Any, line: Line) -> bytes:
        """Write a stream's frames from the second on, and those of the ones that follow on its connection.

        Args:
            client: its socket.
            line: its stream, whose first frame was sent, and its way to the next one.

        Returns:
            what the worker has sent since, which has to be answered in the usual way.

        Raises:
            OSError: the socket is broken, or a frame was not taken within half a ttl: it must be closed.
        """
        while True:
            carried = Carried(client.fileno(), line, Waiter())
            self._join(carried)
            try:
                rest = carried.waiter.get()
            finally:
                self._leave(carried)
            if isinstance(rest, OSError):
                raise rest
            if rest:
                client.settimeout(self._streams.send_within_s)
                client.sendall(rest)
            if carried.last:
                return carried.data

    def _join(self, carried: Carried) -> None:
        if not self._greenlet:
            self._greenlet = gevent.spawn(self._run)
        carried.here, carried.last = True, False
        self._carried[carried] = None
        if not carried.queued:
            carried.queued = True
            carried.beat_at = self._streams.now() + self._beat_s
            self._beats.append(carried)
        if carried.stream.cursor < self._seq:
            self._late.append(carried)  # something was flipped between its first frame and now
            self._told.set()

    def _leave(self, carried: Carried) -> None:
        carried.here, carried.gone = False, True
        self._carried.pop(carried, None)
        self._between.leave(carried)

    def _give_back(self, carried: Carried, rest: bytes | OSError) -> None:
        """Wake a connection's own greenlet: with what it has to send, or with what is wrong."""
        self._leave(carried)
        self._loop.run_callback(carried.waiter.switch, rest)

    def _run(self) -> None:
        try:
            while self._carried or self._between:
                self._told.clear()
                published = self._streams.published
                if published is None or self._streams.over(published):
                    self._end_all()
                    continue
                if published.replica.position.seq > self._seq or self._streams.beat_s != self._beat_s:
                    self._flipped(published)
                else:
                    late, self._late = self._late, []
                    self._write(late, slice_s=FLIP_SLICE_S)
                    self._beat()
                self._hand_over(published)
                left = self._beats[0].beat_at - self._streams.now() if self._beats else self._beat_s
                self._told.wait(max(left, TICK_S))
        finally:
            # Also where it fails: whoever sleeps here is woken, its client asks again.
            self._end_all()

    def _end_all(self) -> None:
        for each in list(self._carried):
            each.last = True
            self._give_back(each, _LAST)
        self._between.give_all_back()
        for each in self._beats:
            each.queued = False
        self._beats.clear()
        self._late.clear()

    def _flipped(self, published: Published) -> None:
        """Tell every stream of what is new to it."""
        self._seq = published.replica.position.seq
        self._late.clear()
        if self._streams.beat_s != self._beat_s:
            self._beat_s = self._streams.beat_s
            self._space()
        everybody = list(self._carried)
        self._write([each for each in everybody if each.stream.cursor < self._seq], slice_s=FLIP_SLICE_S)

    def _space(self) -> None:
        """Spread the beats of all streams evenly: the ttl has changed."""
        for each in self._beats:
            each.queued = False
        self._beats = deque(self._carried)
        now, number = self._streams.now(), max(len(self._beats), 1)
        for place, each in enumerate(self._beats):
            each.queued = True
            each.beat_at = now + self._beat_s * place / number

    def _beat(self) -> None:
        """Tell every stream whose time has come how the log stands."""
        beats, now = self._beats, self._streams.now()
        due: list[Carried] = []
        while beats and beats[0].beat_at <= now:
            each = beats.popleft()
            each.queued = each.here
            if each.here:
                each.beat_at += self._beat_s
                if each.beat_at <= now:  # it comes late: a machine that was stopped has not to catch up
                    each.beat_at = now + self._beat_s
                beats.append(each)
                due.append(each)
        self._write(due, slice_s=SLICE_S)

    def _hand_over(self, published: Published) -> None:
        """Give those who have asked for their next stream its first frame."""
        until = time.perf_counter() + SLICE_S
        for number, each in enumerate(self._between.due(published)):
            if number % _LOOK == 0 and number and time.perf_counter() >= until:
                gevent.sleep(0)
                until = time.perf_counter() + SLICE_S
            published = self._streams.published or published
            if published.replica.position.seq > self._seq:
                return  # a flip goes before them; the others are found again
            if each.gone:
                continue
            first = self._first(each, published)
            if first is None:
                self._give_back(each, b"")
                continue
            self._between.take(each)
            self._join(each)
            self._send(each, first)

    @staticmethod
    def _first(each: Carried, published: Published) -> bytes | None:
        """Return a reply up to its first frame; None where the connection's own greenlet has to answer."""
        try:
            line = each.line.reply.follow(each.body, published, received_at_us=each.received_at_us)
            return each.line.head() + _framed(line) if line is not None else None
        except Exception:  # noqa: BLE001 - it decides nothing: asked in the usual way, it fails there, for this one alone
            _log.exception("hand_over_failed")
            return None

    def _write(self, streams: Sequence[Carried], *, slice_s: float) -> None:
        """Write to each of these streams what is newest at its turn."""
        until = time.perf_counter() + slice_s
        published, now = self._streams.published, self._streams.now()
        for number, each in enumerate(streams):
            if number % _LOOK == 0 and number:
                if time.perf_counter() >= until:
                    gevent.sleep(0)
                    until = time.perf_counter() + slice_s
                published, now = self._streams.published, self._streams.now()
                if slice_s < FLIP_SLICE_S and published is not None and published.replica.position.seq > self._seq:
                    return  # a flip goes before beats, and is one
            if not each.here or published is None:
                continue
            chunk = None if self._streams.barred(each.stream, now) else self._chunk(each.stream, published)
            if chunk is None:
                each.last = True
                self._give_back(each, _LAST)
                continue
            if self._streams.aged(each.stream, now):
                each.last = True
                chunk += _LAST
            self._send(each, chunk)

    def _send(self, each: Carried, data: bytes) -> None:
        """Write without waiting; what is not taken is for the connection's own greenlet, and so is what is wrong."""
        try:
            sent = os.write(each.descriptor, data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._give_back(each, error)
            return
        if sent < len(data):
            self._give_back(each, data[sent:])
        elif each.last:
            if each.line.body_of is None:
                self._give_back(each, b"")
            else:
                each.here = False
                del self._carried[each]
                self._between.wait(each)

    def _chunk(self, stream: Stream, published: Published) -> bytes | None:
        """Return a stream's next frame as it stands on the wire, and move its cursor; None if it cannot go on."""
        if published is not self._of:
            self._of, self._chunks = published, {}
        key = (stream.view, stream.cursor)
        if key in self._chunks:
            chunk = self._chunks[key]
        else:
            line = self._streams.line(stream, published)
            chunk = _framed(line) if line is not None else None
            self._chunks[key] = chunk
        self._streams.sent(stream, published)
        return chunk


def _framed(line: bytes) -> bytes:
    """Return a line as a chunk of a reply."""
    return b"%X\r\n%s\r\n" % (len(line), line)
