"""The broadcaster: one greenlet writes the frames of all lease streams of a process, straight to their sockets.

A greenlet a stream that waits, builds and writes costs five times as much (docs/decisions/0016). The connection's own
greenlet sends the first frame, then sleeps here until its stream has ended, and goes on with the next request: so the
socket never has two owners, and closing it needs no lock.

A frame is made once for each view and position and written without waiting. Where a socket does not take all of it,
the rest is given back to the connection's own greenlet, which may wait for it, but not for long.
"""

from __future__ import annotations

import os
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import gevent  # type: ignore[import-untyped]
from gevent.event import Event  # type: ignore[import-untyped]
from gevent.hub import Waiter  # type: ignore[import-untyped]

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

_LAST: Final = b"0\r\n\r\n"
"""The end of a chunked reply: the connection is ready for the next request."""


class _Carried:
    """A stream that is written here."""

    __slots__ = ("beat_at", "descriptor", "here", "last", "stream", "waiter")

    def __init__(self, descriptor: int, stream: Stream, waiter: Any) -> None:
        self.descriptor = descriptor
        self.stream = stream
        self.waiter = waiter
        self.beat_at = 0.0
        self.here = False
        self.last = False


class Broadcaster:
    """Writes the streams of one process."""

    def __init__(self, streams: Streams) -> None:
        """Set up, without starting.

        Args:
            streams: says what each stream gets next, and which has to end.
        """
        self._streams = streams
        self._carried: dict[_Carried, None] = {}
        self._beats: deque[_Carried] = deque()
        self._late: list[_Carried] = []
        self._beat_s = 0.0
        self._seq = 0
        self._told = Event()
        self._of: Published | None = None
        self._chunks: dict[tuple[View, int], bytes | None] = {}
        self._greenlet: Any = None
        self._loop = gevent.get_hub().loop
        streams.subscribe(self._told.set)

    def carry(self, client: Any, stream: Stream, *, within_s: float) -> None:
        """Write a stream's frames from the second on, and the end of the reply.

        Args:
            client: its socket.
            stream: the stream, whose first frame was sent.
            within_s: how long a frame that was not taken at once may take, seconds.

        Raises:
            OSError: the socket is broken, or a frame was not taken in time: it must be closed.
        """
        while True:
            carried = _Carried(client.fileno(), stream, Waiter())
            self._join(carried)
            try:
                rest = carried.waiter.get()
            finally:
                self._leave(carried)
            if isinstance(rest, OSError):
                raise rest
            if rest:
                client.settimeout(within_s)
                client.sendall(rest)
            if carried.last:
                return

    def _join(self, carried: _Carried) -> None:
        if not self._greenlet:
            self._greenlet = gevent.spawn(self._run)
        carried.here = True
        self._carried[carried] = None
        carried.beat_at = self._streams.now() + self._beat_s
        self._beats.append(carried)
        if carried.stream.cursor < self._seq:
            self._late.append(carried)  # something was flipped between its first frame and now
            self._told.set()

    def _leave(self, carried: _Carried) -> None:
        carried.here = False
        self._carried.pop(carried, None)

    def _give_back(self, carried: _Carried, rest: bytes | OSError) -> None:
        """Wake a connection's own greenlet: with what it has to send, or with what is wrong."""
        self._leave(carried)
        self._loop.run_callback(carried.waiter.switch, rest)

    def _run(self) -> None:
        try:
            while self._carried:
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
                left = self._beats[0].beat_at - self._streams.now() if self._beats else self._beat_s
                self._told.wait(max(left, TICK_S))
        finally:
            # Also where it fails: whoever sleeps here is woken, its client asks again.
            self._end_all()

    def _end_all(self) -> None:
        for each in list(self._carried):
            each.last = True
            self._give_back(each, _LAST)
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
        self._beats = deque(self._carried)
        now, number = self._streams.now(), max(len(self._beats), 1)
        for place, each in enumerate(self._beats):
            each.beat_at = now + self._beat_s * place / number

    def _beat(self) -> None:
        """Tell every stream whose time has come how the log stands."""
        beats, now = self._beats, self._streams.now()
        due: list[_Carried] = []
        while beats and beats[0].beat_at <= now:
            each = beats.popleft()
            if each.here:
                each.beat_at += self._beat_s
                if each.beat_at <= now:  # it comes late: a machine that was stopped has not to catch up
                    each.beat_at = now + self._beat_s
                beats.append(each)
                due.append(each)
        self._write(due, slice_s=SLICE_S)

    def _write(self, streams: list[_Carried], *, slice_s: float) -> None:
        """Write to each of these streams what is newest at its turn."""
        until = time.perf_counter() + slice_s
        published, now = self._streams.published, self._streams.now()
        for number, each in enumerate(streams):
            if number % _LOOK == 0 and number:
                if time.perf_counter() >= until:
                    gevent.sleep(0)
                    until = time.perf_counter() + slice_s
                published, now = self._streams.published, self._streams.now()
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
            try:
                sent = os.write(each.descriptor, chunk)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self._give_back(each, error)
                continue
            if each.last or sent < len(chunk):
                self._give_back(each, chunk[sent:])

    def _chunk(self, stream: Stream, published: Published) -> bytes | None:
        """Return a stream's next frame as it stands on the wire, and move its cursor; None if it cannot go on."""
        if published is not self._of:
            self._of, self._chunks = published, {}
        key = (stream.view, stream.cursor)
        if key in self._chunks:
            chunk = self._chunks[key]
        else:
            line = self._streams.line(stream, published)
            chunk = b"%X\r\n%s\r\n" % (len(line), line) if line is not None else None
            self._chunks[key] = chunk
        stream.cursor = published.replica.position.seq
        return chunk
