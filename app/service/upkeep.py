"""Upkeep: the thread of a node that does now and then what no request should wait for.

It learns which tokens may kill or revive, after the first read of the log and when the log says that one was made: so
whoever holds one is served at once by a process that was just started, whatever crowd of strangers is before it. And it
compares the clocks every minute. Where it fails it tries again; nothing that is granted or promised rests on it alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from app.service.clocks import Clocks
from app.service.published import Published
from app.service.refresher import Refresher
from app.service.skew import EVERY_S, Skew
from app.service.store import LogDiverged, OutcomeUnknown, StoreUnavailable
from app.service.tokens import FLIPPERS
from haltline.canonical import parse

PAUSE_S: Final = 1.0
"""How long it rests after it has learnt, or could not, seconds: tokens may be made by the thousand."""

CLOSE_S: Final = 0.25
"""How long closing waits for the thread, seconds; it ends by itself soon after."""

_FAILURES: Final = (StoreUnavailable, OutcomeUnknown, LogDiverged)  # the refresher says what they mean, and acts on it
_ROLES: Final = frozenset(role.value for role in FLIPPERS)
_CREATED: Final = '"topic":"token_created"'


class Upkeep:
    """The thread; nothing runs before :meth:`start`."""

    def __init__(
        self,
        refresher: Refresher,
        clocks: Clocks,
        skew: Skew,
        *,
        learn: Callable[[], None] | None,
        every_s: float = EVERY_S,
    ) -> None:
        """Set up.

        Args:
            refresher: what publishes the log.
            clocks: the monotonic clock says when a minute is over.
            skew: compares the clocks.
            learn: reads the tokens that may kill or revive, and raises where it cannot; None where nobody shows them.
            every_s: how often the clocks are compared, seconds.
        """
        self._refresher = refresher
        self._clocks = clocks
        self._skew = skew
        self._learn = learn
        self._every_s = every_s
        self._seen: int | None = None
        self._heard = -1
        self._woken = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        if learn is not None:
            refresher.subscribe(self._heed)

    def start(self) -> None:
        """Start the thread; call it in the process that serves, after any fork."""
        self._thread = threading.Thread(target=self._run, name="haltline-upkeep", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._woken.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def _heed(self, published: Published) -> None:
        seq = published.replica.position.seq
        if seq != self._heard:
            self._heard = seq
            self._woken.set()

    def _run(self) -> None:
        now = self._clocks.monotonic()
        due = now if self._skew.seconds is None else now + self._every_s
        while not self._closing.is_set():
            if self._clocks.monotonic() >= due:
                self._measure()
                due = self._clocks.monotonic() + self._every_s
            published = self._refresher.published
            if self._learn is not None and published is not None and self._news(published):
                self._learnt(self._learn, published.replica.position.seq)
                self._closing.wait(PAUSE_S)
                continue
            self._woken.wait(max(due - self._clocks.monotonic(), 0.0))
            self._woken.clear()

    def _measure(self) -> None:
        try:
            self._skew.measure()
        except _FAILURES:
            return  # what was measured last holds until the next time

    def _learnt(self, learn: Callable[[], None], seq: int) -> None:
        try:
            learn()
        except _FAILURES:
            return  # there are still news
        self._seen = seq

    def _news(self, published: Published) -> bool:
        """Return whether tokens that may flip may have been made since this was asked, with no, the last time."""
        seen, tail, head = self._seen, published.tail, published.replica.position.seq
        if seen is None or seen < tail.base.seq:
            return True
        if any(_made(each.body) for each in tail.after(seen) if each.target is None):
            return True
        self._seen = head
        return False


def _made(body: str) -> bool:
    """Return whether a note says that a token was made which may kill or revive."""
    if _CREATED not in body:
        return False
    members = parse(body.encode("utf-8"), scan_depth=False)
    return members.get("topic") == "token_created" and members.get("role") in _ROLES
