"""Lease streams: which are open, what each gets next, and when one has to end.

A stream is a cursor into the log with an end: 6 to 9 s after it began, so that the drift between two machines' clocks
stays small; at once when its token ends; and when the node's own read of the log is too old to build on. It reads
nothing itself: what it sends is built from the newest published state.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from app.domain.access import Principal
from app.service.clocks import Clocks
from app.service.frames import Frames, View
from app.service.published import Published
from app.service.refresher import Refresher

SHORTEST_S: Final = 6.0
LONGEST_S: Final = 9.0
"""Between these a stream's length is drawn, seconds: a client drops one that is older than 10 s."""

ACKS_A_SECOND: Final = 2_000
"""How many acks of one flip a node wants to hear a second: each costs it about as much as ten frames."""

ACK_WITHIN_MS: Final = (50, 10_000)
"""The shortest and the longest time over which a fleet is asked to spread its acks of a flip, milliseconds."""

BEATS: Final = 4
"""How many frames a ttl has when nothing is flipped."""


@dataclass(slots=True, eq=False)
class Stream:
    """One open stream.

    Attributes:
        who: the holder of its token.
        view: what that token may see.
        cursor: the position that the last frame brought its client to.
        ends_at: when it has lasted long enough, monotonic clock, seconds.
        token_ends_at: when its token ends, monotonic clock, seconds.
    """

    who: Principal
    view: View
    cursor: int
    ends_at: float
    token_ends_at: float


class Streams:
    """The open streams of one process.

    Attributes:
        limit: how many there may be at once.
        open: how many there are.
        followed: how many began in place, after another one on their connection.
    """

    def __init__(
        self,
        refresher: Refresher,
        frames: Frames,
        clocks: Clocks,
        *,
        revoked: AbstractSet[str],
        limit: int,
    ) -> None:
        """Set up.

        Args:
            refresher: what publishes the log.
            frames: what builds frames.
            clocks: what time it is.
            revoked: the ids of the tokens that were revoked in the life of this process, growing with the log.
            limit: how many streams there may be at once.
        """
        self._refresher = refresher
        self._frames = frames
        self._clocks = clocks
        self._revoked = revoked
        self._random = random.SystemRandom()
        self._closing = False
        self._seq = 0
        self._asked = False
        self._listeners: tuple[Callable[[], None], ...] = ()
        refresher.subscribe(self._heed)
        self.limit: Final = limit
        self.open = 0
        self.followed = 0

    @property
    def full(self) -> bool:
        """Whether no more streams are taken: the cap is reached, or the node is going away."""
        return self.open >= self.limit or self._closing

    @property
    def ack_within_ms(self) -> int:
        """Over how long the workers of this node should spread their acks of a flip, milliseconds."""
        shortest, longest = ACK_WITHIN_MS
        return min(max(self.open * 1_000 // ACKS_A_SECOND, shortest), longest)

    def begin(self, who: Principal) -> Stream:
        """Take a place, and return a stream that has sent nothing yet. Whoever begins one must :meth:`end` it."""
        self.open += 1
        now, left = self._clocks.monotonic(), who.expires_at - self._clocks.wall()
        return Stream(who, who.tenants, 0, now + self._random.uniform(SHORTEST_S, LONGEST_S), now + left)

    def again(self, stream: Stream) -> None:
        """Have a stream that has lasted long enough last as long once more: its client has asked for the next one."""
        stream.ends_at = self._clocks.monotonic() + self._random.uniform(SHORTEST_S, LONGEST_S)
        self.followed += 1

    def sent(self, stream: Stream, published: Published) -> None:
        """Note that a stream's client was, or is now being, told of ``published``."""
        stream.cursor = published.replica.position.seq

    def end(self, stream: Stream) -> None:  # noqa: ARG002 - one for one
        """Note that a stream has ended."""
        self.open -= 1

    def close(self) -> None:
        """End every stream, and take no more: the node is going away."""
        self._closing = True
        for listener in self._listeners:
            listener()

    @property
    def published(self) -> Published | None:
        """What the node published last; None before its first read."""
        return self._refresher.published

    @property
    def beat_s(self) -> float:
        """The time between two frames without a flip, seconds."""
        published = self._refresher.published
        return beat_s(published) if published is not None else 0.0

    @property
    def send_within_s(self) -> float:
        """How long a frame may take to be accepted, seconds: half a ttl."""
        return self.beat_s * BEATS / 2

    def now(self) -> float:
        """Return the monotonic clock, which streams are timed on, seconds."""
        return self._clocks.monotonic()

    def raw_us_ceil(self) -> int:
        """Return the clock that leases are dated on, microseconds, rounded up."""
        return self._clocks.raw_us_ceil()

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Have ``listener``, which returns at once, called when something was flipped or every stream has to end.

        And once after each :meth:`ask`, when the log has been read.
        """
        self._listeners = (*self._listeners, listener)

    def ask(self) -> None:
        """Have the log read soon: somebody waits for a read that begins from now on."""
        self._asked = True
        self._refresher.ask()

    def over(self, published: Published) -> bool:
        """Return whether every stream has to end: the node is going away, or cannot say how the log stands now."""
        return self._closing or self._refresher.halted is not None or not published.fresh(self._clocks.raw_us_ceil())

    def barred(self, stream: Stream, now_s: float) -> bool:
        """Return whether a stream's token has ended or was revoked: it is told nothing any more.

        Args:
            stream: the stream.
            now_s: the monotonic clock, seconds.
        """
        return now_s >= stream.token_ends_at or stream.who.token_id in self._revoked

    def aged(self, stream: Stream, now_s: float) -> bool:
        """Return whether a stream has lasted long enough: its next frame is its last.

        Args:
            stream: the stream.
            now_s: the monotonic clock, seconds.
        """
        return now_s >= stream.ends_at

    def line(self, stream: Stream, published: Published) -> bytes | None:
        """Return a stream's next frame and move its cursor; None if it cannot go on."""
        line = self._frames.next(published, stream.view, stream.cursor)
        if line is not None:
            self.sent(stream, published)
        return line

    def next(self, stream: Stream) -> bytes | None:
        """Wait for a stream's next frame and return it, a line; None where the stream has to end.

        For servers that have a thread, or a greenlet, a stream: where something is flipped, and every ttl/4.
        """
        published = self._refresher.wait_beyond(stream.cursor, self.beat_s)
        now = self.now()
        if published is None or self.over(published) or self.barred(stream, now) or self.aged(stream, now):
            return None
        return self.line(stream, published)

    def _heed(self, published: Published) -> None:
        # A frame without news is sent when it is due: only a flip, or who waits for it, is worth waking anybody for.
        if self._asked or published.replica.position.seq != self._seq:
            self._asked = False
            self._seq = published.replica.position.seq
            for listener in self._listeners:
                listener()


def beat_s(published: Published) -> float:
    """Return the time between two frames without a flip, seconds."""
    return published.ttl.ttl_ms / 1_000 / BEATS
