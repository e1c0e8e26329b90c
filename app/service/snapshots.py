"""Snapshots: the fold as text, written once for all views, a slice at a time.

One of 100,000 holds is some 20 MiB. The holds and marks of everybody, and those of each tenant, are kept as pieces of
bytes; what a view is shown is a choice of pieces, which no view has a copy of. While the pieces are written, streams
get their frames: a node that stands still for that long would stop its fleet.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeAlias

from app.service.published import Published
from haltline.flips import Position
from haltline.replica import Mark
from haltline.scopes import Scope
from haltline.verdict import Hold

BEHIND: Final = 1_000
"""How many entries a kept snapshot may be behind: it is sent with those that came since, instead of being made anew."""

SLICE: Final = 2_000
"""How many holds or marks are written before others have their turn: one or two milliseconds."""

PAUSE_S: Final = 0.0005
"""For how long others then have it at least, seconds. After a sleep of 0 gevent resumes fifty times before it looks at
timers and sockets: measured, two beats in 235 ms."""

_TENANT: Final = f"{Scope.TENANT.value}:"

_text: Final = json.JSONEncoder(ensure_ascii=False).encode

Pieces: TypeAlias = Mapping[str | None, list[bytes]]
"""What is shown to those who see a tenant, by its id; under None what is shown to everybody."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """The fold at one position, ready to be sent.

    Attributes:
        position: how far the log is folded in it.
        floor_seq: as in :class:`haltline.replica.Replica`.
        holds: the JSON of holds, in pieces of several.
        marks: likewise of marks.
    """

    position: Position
    floor_seq: int
    holds: Pieces
    marks: Pieces

    def pieces(self, tenants: tuple[str, ...] | None) -> Iterator[bytes]:
        """Yield the snapshot as one view shows it: other tenants' holds and marks are left out.

        What :meth:`haltline.replica.Replica.snapshot` returns is the same as JSON, but for the order of its holds.

        Args:
            tenants: whose holds and marks are shown, beside those of nobody's; None for all.
        """
        yield b'{"seq":%d,"hash":"%s",' % (self.position.seq, self.position.hash.encode("ascii"))
        yield b'"floor_seq":%d,"holds":[' % self.floor_seq
        yield from _shown(self.holds, tenants)
        yield b'],"marks":{'
        yield from _shown(self.marks, tenants)
        yield b"}}"


class Snapshots:
    """The newest snapshot of one log."""

    def __init__(self, *, give_way: Callable[[], None] = lambda: time.sleep(PAUSE_S)) -> None:
        """Set up without one.

        Args:
            give_way: lets others run.
        """
        self._give_way = give_way
        self._lock = threading.Lock()
        self._copying = threading.Lock()
        self._kept: Snapshot | None = None
        self._writing: Future[Snapshot] | None = None

    def of(self, published: Published) -> Snapshot:
        """Return a snapshot that the tail of ``published`` continues: not far behind, if there was time to make one.

        Whoever asks while one is being written gets the one before, or else waits for that one.
        """
        while True:
            kept = self._kept
            usable = kept is not None and _continued(kept, published)
            if kept is not None and usable and published.replica.position.seq - kept.position.seq <= BEHIND:
                return kept
            with self._lock:
                under_way = self._writing
                mine: Future[Snapshot] = Future()
                if under_way is None:
                    self._writing = mine
            if under_way is None:
                return self._written(published, mine)
            if kept is not None and usable:
                return kept
            if under_way.exception() is None:
                made = under_way.result()
                # One of a later state cannot be sent as this one: that is rare, and so nobody shares it.
                return made if _continued(made, published) else _write(published, self._give_way)

    def joined(self, pieces: Iterable[bytes]) -> bytes:
        """Return a frame with a snapshot in it; those who have waited for one do not copy it all at the same moment."""
        with self._copying:
            self._give_way()
            return b"".join(pieces)

    def _written(self, published: Published, mine: Future[Snapshot]) -> Snapshot:
        try:
            made = _write(published, self._give_way)
            kept = self._kept
            if kept is None or kept.position.seq <= made.position.seq:
                self._kept = made
        except BaseException:  # this very thread of work may have been ended: one of those who wait writes it then
            with self._lock:
                self._writing = None
            mine.set_exception(RuntimeError("a snapshot was broken off"))
            raise
        with self._lock:
            self._writing = None
        mine.set_result(made)
        return made


def hold_text(hold: Hold, target: str) -> str:
    """Return the JSON of :func:`haltline.replica.hold_members`, in a tenth of the time that goes through a dict.

    Nothing but the reason has to be escaped: everything else is of a grammar that every entry is held to.

    Args:
        hold: the hold.
        target: its target as text.
    """
    return (
        f'{{"seq":{hold.seq},"target":"{target}","actor":"{hold.actor}","at":"{hold.at}","reason":{_text(hold.reason)},'
        f'"in_flight":"{hold.in_flight}","queued":"{hold.queued}","flip_id":"{hold.flip_id}"}}'
    )


def _continued(kept: Snapshot, published: Published) -> bool:
    return published.tail.position(kept.position.seq) == kept.position


def _write(published: Published, give_way: Callable[[], None]) -> Snapshot:
    # The state is immutable: whatever is published meanwhile, it is the same after each turn.
    replica = published.replica
    active = ((key, hold_text(hold, key)) for key, holds in replica.holds.items() for hold in holds)
    holds = _sliced(active, give_way)
    marks = _sliced(((key, _mark_text(mark, key)) for key, mark in replica.marks.items()), give_way)
    return Snapshot(replica.position, replica.floor_seq, holds, marks)


def _mark_text(mark: Mark, key: str) -> str:
    return f'"{key}":[{mark.last_kill},{mark.barrier}]'


def _sliced(texts: Iterator[tuple[str, str]], give_way: Callable[[], None]) -> Pieces:
    """Return texts by who is shown them, as bytes; ``give_way`` is called after each slice of them."""
    pieces: dict[str | None, list[bytes]] = {}
    while part := list(islice(texts, SLICE)):
        gathered: dict[str | None, list[str]] = {}
        for key, text in part:
            tenant = key[len(_TENANT) :] if key.startswith(_TENANT) else None
            gathered.setdefault(tenant, []).append(text)
        for tenant, told in gathered.items():
            pieces.setdefault(tenant, []).append(",".join(told).encode("utf-8"))
        give_way()
    return pieces


def _shown(pieces: Pieces, tenants: tuple[str, ...] | None) -> Iterator[bytes]:
    comma = b""
    for tenant in pieces if tenants is None else (None, *tenants):
        for each in pieces.get(tenant, ()):
            yield comma
            yield each
            comma = b","
