"""An open lease stream of the fake service, as whoever reads it sees it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

from haltline.errors import ServiceError
from haltline.frames import STREAM_TYPE, Reply
from haltline.native import Condition

_SHORTEST_S: Final = 6.0
_LONGEST_S: Final = 9.0
_BEATS: Final = 4


class FakeStream:
    """The reply to a request for a stream: a frame on every flip, and four a ttl without one.

    Args:
        first: the first frame, or a problem.
        frame: returns the next frame as of now.
        news: returns whether something was flipped since the last frame.
        changed: notified of every flip and of every end.
        ttl_ms: the lease ttl, milliseconds.

    Attributes:
        status: the status code.
        content_type: the header's value.
        encoded: whether the reply names a content encoding.
    """

    def __init__(
        self,
        first: Reply,
        *,
        frame: Callable[[], bytes],
        news: Callable[[], bool],
        changed: Condition,
        ttl_ms: int,
    ) -> None:
        self.status, self.content_type, self.encoded = first.status, first.content_type, first.encoded
        self._body = first.body
        self._frame = frame
        self._news = news
        self._changed = changed
        self._beat_s = ttl_ms / 1000 / _BEATS
        self._begun = False
        self._broken = ""
        now = time.monotonic()
        self._ends_at = now + random.uniform(_SHORTEST_S, _LONGEST_S)  # noqa: S311  # no secret
        self._due = now

    @property
    def open(self) -> bool:
        """Whether there is anything still to come."""
        return self.status == 200 and self.content_type == STREAM_TYPE and not self._broken

    def end(self) -> None:
        """End it in order, as a node that goes away does; the caller holds the condition."""
        self._ends_at = 0.0
        self._changed.notify_all()

    def snap(self, why: str) -> None:
        """Break it off; the caller holds the condition."""
        self._broken = why
        self._changed.notify_all()

    def interrupt(self) -> None:
        """Break it off for whoever reads it, from another thread."""
        with self._changed:
            self.snap("the stream was interrupted")

    def wait(self, seconds: float) -> bool:
        """Wait until there is a frame or an end to read, so many seconds at most, and return whether there is."""
        until = time.monotonic() + seconds
        with self._changed:
            while not self._ready() and (left := until - time.monotonic()) > 0:
                self._changed.wait(min(left, max(self._due - time.monotonic(), 0.001)))
            return self._ready()

    def line(self, *, deadline_s: float, limit: int) -> bytes | None:
        """Return the next frame, without the line's end; None at the stream's end.

        Args:
            deadline_s: for how long to wait, seconds.
            limit: the longest frame, bytes.

        Raises:
            ServiceError: it broke off, no frame came in time, or it is too long.
        """
        if not self.wait(deadline_s):
            raise ServiceError("the fake service was silent for too long", sent=True)
        with self._changed:
            if self._broken:
                raise ServiceError(self._broken, sent=True)
            if self._begun and self._ends_at <= time.monotonic():
                return None
            told = self.beat()
            self._due = time.monotonic() + self._beat_s
        if len(told) > limit:
            raise ServiceError(f"the frame is larger than {limit} bytes", sent=True)
        return told

    def beat(self) -> bytes:
        """Return the next frame as of now, due or not; on a manual clock no time makes one due."""
        with self._changed:
            if self._begun:
                return self._frame()
            self._begun = True
            return self._body

    def header(self, name: str) -> str:  # noqa: ARG002  # the port's
        """Return no header but those that every reply has."""
        return ""

    def read(self, limit: int) -> bytes:
        """Return the whole body of a reply that is no stream.

        Raises:
            ServiceError: it is larger than ``limit`` bytes.
        """
        if len(self._body) > limit:
            raise ServiceError(f"the reply is larger than {limit} bytes", sent=True)
        return self._body

    def _ready(self) -> bool:
        now = time.monotonic()
        return bool(self._broken) or not self._begun or self._news() or now >= min(self._due, self._ends_at)
