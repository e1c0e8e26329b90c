"""Events: the log as it grows, sent to whoever watches, entry by entry and each of them once.

A stream is a position and nothing else: the one that its reader was brought to. What follows it comes from the newest
published state or, where that has forgotten it, from the database; so it is committed, and another read has seen it.
Each entry is proven to follow the one before. What cannot be proven ends the stream: nothing is ever passed over.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import structlog

from app.service.clocks import Clocks
from app.service.frames import View, in_view
from app.service.places import Places
from app.service.published import Kept, Published, stub
from app.service.refresher import Refresher
from app.service.store import LogDiverged, LogRow, Store, StoreUnavailable
from app.service.views import visible
from haltline.canonical import parse
from haltline.errors import InvalidDocument
from haltline.flips import Position

PAGE: Final = 200
"""How many entries are sent at a time: about 100 KiB."""

LOOK_S: Final = 1.0
"""How often the reader and its token are looked at when nothing happens, seconds."""

PING_S: Final = 5.0
"""After how long without an entry something is said anyway, seconds: proxies and readers take silence for death."""

LASTS_S: Final = 300.0
"""How long a stream lasts, give or take a tenth, seconds: readers that resume spread over the nodes that there are."""

RETRY_MS: Final = 1_000
"""How long a browser waits before it resumes, milliseconds."""

_PREAMBLE: Final = "retry: {}\nid: {}\n\n"
_PING: Final = b": ping\n\n"
_KINDS: Final = frozenset({"kill", "revive", "note"})

_log: Final[Any] = structlog.get_logger(__name__)


class Over(Enum):
    """Why a stream ends for good: its reader is told, and need not come back as it is."""

    TOKEN = "token"  # noqa: S105 - a word, no secret
    """The token was revoked or has expired."""
    DIVERGED = "diverged"
    """The log is not the one that was told of before, or does not hang together."""


@dataclass(frozen=True, slots=True)
class Beyond:
    """The reader has seen more of the log than there is.

    Attributes:
        head: where the log ends.
    """

    head: int


@dataclass(frozen=True, slots=True)
class Watch:
    """What one stream depends on.

    Attributes:
        view: what the reader's token may see.
        stands: whether that token is still good.
        gone: whether the reader is known to have left.
    """

    view: View
    stands: Callable[[], bool]
    gone: Callable[[], bool]


class Events:
    """Event streams over what one node publishes.

    Attributes:
        places: how many may run at once.
        lasts_s: how long a stream lasts, give or take a tenth, seconds.
        ending: whether streams have to end, because the process is about to.
    """

    def __init__(self, refresher: Refresher, store: Store, clocks: Clocks, *, lasts_s: float = LASTS_S) -> None:
        """Set up.

        Args:
            refresher: what publishes the log.
            store: where entries are that the node does not keep at hand.
            clocks: what time it is.
            lasts_s: how long a stream lasts, give or take a tenth, seconds.
        """
        self._refresher = refresher
        self._store = store
        self._clocks = clocks
        self.lasts_s = lasts_s
        self.places: Final = Places()
        self.ending = False

    def close(self) -> None:
        """Have every stream end soon."""
        self.ending = True

    def start(self, after: int | None) -> Position | Beyond:
        """Return the position that a stream begins after. It may read the database: take a place first.

        Args:
            after: the seq of the last entry that the reader has; None for the head as it is now.

        Raises:
            LogDiverged: an entry is missing.
            StoreUnavailable: the position had to be looked up and could not be.
        """
        if after is None:
            # Not the head as it was published: what is acknowledged already is no news.
            return self._store.head().position
        if after == 0:
            return Position()
        published = self._refresher.published
        if published is None or after > published.replica.position.seq:
            # Another node may have told the reader more than this one has read.
            head = self._store.head().position.seq
            if after > head:
                return Beyond(head)
        known = published.tail.position(after) if published is not None else None
        known = known if known is not None else self._refresher.position(after)
        if known is None:
            raise LogDiverged(f"the log has no entry {after}, though it goes on behind it")
        return known

    def stream(self, start: Position, watch: Watch) -> Iterator[bytes]:
        """Yield the stream that begins after ``start``, piece by piece."""
        # Told at once, so that a browser that has got nothing else yet resumes from here and not from a later head.
        yield _PREAMBLE.format(RETRY_MS, start.seq).encode("ascii")
        now = self._clocks.monotonic
        reached, spoke_at = start, now()
        ends_at = spoke_at + self.lasts_s * random.SystemRandom().uniform(0.9, 1.1)
        while not self.ending and (left := ends_at - now()) > 0:
            wait = min(LOOK_S, left, max(0.0, spoke_at + PING_S - now()))
            published = self._refresher.wait_beyond(reached.seq, wait)
            if watch.gone():
                return
            over = self._over(watch)
            if over is not None:
                yield _end(over)
                return
            if not self._refresher.running:
                return  # the node is closed: whoever watches resumes at another one
            page: Sequence[Kept | LogRow] = ()
            try:
                page = self._page(published, reached)
                piece, reached = _proven(page, reached, watch.view)
            except StoreUnavailable:
                # Nothing is lost by waiting: the same page is read when it can be.
                self._refresher.wait_beyond(published.replica.position.seq if published is not None else 0, LOOK_S)
                piece = b""
            except LogDiverged as error:
                _log.critical("log_diverged", detail=str(error), action="an event stream is ended")
                yield _end(Over.DIVERGED)
                return
            if piece:
                yield piece
                spoke_at = now()
                if len(page) == PAGE:
                    time.sleep(0)  # more is waiting: under gevent, let others have their turn before it
            elif now() - spoke_at >= PING_S:
                yield _PING
                spoke_at = now()

    def _over(self, watch: Watch) -> Over | None:
        if not watch.stands():
            return Over.TOKEN
        return Over.DIVERGED if self._refresher.halted is not None else None

    def _page(self, published: Published | None, reached: Position) -> Sequence[Kept | LogRow]:
        """Return the next entries, at most a page of them."""
        if published is None or published.replica.position.seq <= reached.seq:
            return ()
        tail = published.tail
        if tail.base.seq <= reached.seq:
            return tail.after(reached.seq)[:PAGE]
        rows = self._store.export(after=reached.seq, up_to=tail.base.seq, limit=PAGE)
        if not rows:
            raise LogDiverged(f"the log has no entry {reached.seq + 1}, though it goes on behind it")
        if rows[-1].position.seq >= tail.base.seq and rows[-1].position != tail.base:
            raise LogDiverged(f"entry {rows[-1].position.seq} is not the one that the entries behind it continue")
        return rows


def _proven(page: Sequence[Kept | LogRow], reached: Position, view: View) -> tuple[bytes, Position]:
    """Return entries as events, and the position that they reach.

    Raises:
        LogDiverged: one of them does not follow the one before.
    """
    told: list[str] = []
    for each in page:
        position, body = each.position, each.body
        try:
            members = parse(body.encode("utf-8"), scan_depth=False)
        except InvalidDocument as error:
            raise LogDiverged(f"entry {position.seq} cannot be read: {error}") from error
        # A line break would be one of the stream's own; canonical JSON has none.
        if not isinstance(members, dict) or "\n" in body or "\r" in body or members.get("kind") not in _KINDS:
            raise LogDiverged(f"entry {position.seq} is not one that this service writes")
        if position.seq != reached.seq + 1 or members.get("prev_hash") != reached.hash:
            raise LogDiverged(f"entry {reached.seq + 1} should come next, but it is {position.seq}, or was changed")
        whole = view is None or (in_view(each.target, view) if isinstance(each, Kept) else visible(each, view))
        kind, shown = (members["kind"], body) if whole else ("stub", stub(position))
        told.append(f"id: {position.seq}\nevent: {kind}\ndata: {shown}\n\n")
        reached = position
    return "".join(told).encode("utf-8"), reached


def _end(over: Over) -> bytes:
    return f'event: end\ndata: {{"reason": "{over.value}"}}\n\n'.encode("ascii")
