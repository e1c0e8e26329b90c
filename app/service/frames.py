"""Frames: what a lease request is answered with, built from one published state and nothing else.

Everything but the nonce and ``received_at`` is the same text for every client with the same view and position, so it is
built once for each published state.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from app.service.published import Published
from app.service.snapshots import Snapshots
from haltline.flips import GENESIS_HASH, Position
from haltline.scopes import Scope, Target

FRAME_VERSION: Final = 1
CACHED_PARTS: Final = 1_024

View: TypeAlias = tuple[str, ...] | None
"""The tenants that a token is bound to, sorted; None where it sees everything."""


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """What a worker asks with.

    Attributes:
        nonce: a text that the frame repeats.
        epoch: the log that the worker knows; None if it knows none.
        seq: how far it has applied that log; 0 if it has not.
        hash: the hash of its last entry; None if it has none.
    """

    nonce: str
    epoch: str | None
    seq: int
    hash: str | None


@dataclass(frozen=True, slots=True)
class Regress:
    """The worker has seen more of the log, or another history, than the database holds."""

    detail: str


@dataclass(frozen=True, slots=True)
class Foreign:
    """The worker knows another log."""

    detail: str


def in_view(target: Target | None, view: View) -> bool:
    """Return whether an entry on ``target`` (None for a note) is sent in full."""
    if target is None:
        return False
    return view is None or target.scope is not Scope.TENANT or target.id in view


def _text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _no_past(_seq: int) -> Position | None:
    return None


class Frames:
    """Builds frames, remembering the common part of those of the newest state."""

    def __init__(self, *, namespace: str, timebase: str) -> None:
        """Set up.

        Args:
            namespace: the namespace of the log.
            timebase: the random name of the clock that ``read_at`` and ``received_at`` are read on.
        """
        self._namespace = namespace
        self._timebase = timebase
        self._snapshots = Snapshots()
        self._memo: tuple[Published, dict[tuple[View, int], str], dict[tuple[View, int], bytes]] | None = None

    def frame(
        self,
        published: Published,
        request: LeaseRequest,
        *,
        view: View,
        received_at_us: int,
        past: Callable[[int], Position | None] = _no_past,
    ) -> bytes | Regress | Foreign:
        """Return the frame that answers a request.

        Args:
            published: the state, read after the request was received.
            request: what the worker sent.
            view: what its token may see.
            received_at_us: when the request was received, microseconds of the raw clock, rounded up.
            past: looks up a position of the log that lies before the tail; without it such a request is refused.
        """
        if request.seq == 0 and request.hash not in (None, GENESIS_HASH):
            return Regress("before the first entry there is no hash but 64 zeros")
        refused = self.refusal(published, request.epoch, Position(request.seq, request.hash or GENESIS_HASH), past)
        if refused is not None:
            return refused
        asked = f',"nonce":{_text(request.nonce)},"received_at":{received_at_us}}}'
        if request.seq > 0 and published.tail.position(request.seq) is not None:
            return (self._part(published, view, request.seq) + asked).encode()
        # Nothing as large as a snapshot is remembered for a view, nor copied more than this once.
        snapshot = self._snapshots.of(published)
        part = self._part(published, view, snapshot.position.seq).encode()
        return self._snapshots.joined((part, b',"snapshot":', *snapshot.pieces(view), asked.encode()))

    def next(self, published: Published, view: View, cursor: int) -> bytes | None:
        """Return a later frame of a stream, a line: the same bytes for every stream with this view and position.

        Args:
            published: the state that it tells of.
            view: what the stream's token may see.
            cursor: the position that the stream has reached, at most that of ``published``.

        Returns:
            the line; None if entries after the cursor are not at hand any more, so that the stream cannot go on.
        """
        lines = self._memory(published)[2]
        line = lines.get((view, cursor))
        if line is None:
            if published.tail.position(cursor) is None:
                return None
            line = f"{self._part(published, view, cursor)}}}\n".encode()
            if len(lines) < CACHED_PARTS:
                lines[view, cursor] = line
        return line

    @staticmethod
    def refusal(
        published: Published, epoch: str | None, position: Position, past: Callable[[int], Position | None] = _no_past
    ) -> Regress | Foreign | None:
        """Return what is wrong with a position that a worker says it has reached; None if it is one of this log.

        Args:
            published: the state to hold it against.
            epoch: the log that the worker knows; None if it knows none.
            position: how far it has applied that log.
            past: looks up a position of the log that lies before the tail.
        """
        replica = published.replica
        if epoch is not None and epoch != replica.epoch:
            return Foreign(f"the log of this service has epoch {replica.epoch}, the request names {epoch}")
        if position.seq > replica.position.seq:
            return Regress(f"the log ends at {replica.position.seq}, the request has seen {position.seq}")
        if position.seq == 0:
            return None
        # Also where only a snapshot can follow: whoever has seen another history has seen kills that are not in it.
        if position != (published.tail.position(position.seq) or past(position.seq)):
            return Regress(f"entry {position.seq} of this log has another hash than the request names")
        return None

    def _memory(
        self, published: Published
    ) -> tuple[Published, dict[tuple[View, int], str], dict[tuple[View, int], bytes]]:
        memo = self._memo
        if memo is None or memo[0] is not published:
            # State and parts are one object, loaded once: a part is never taken for another state's.
            memo = (published, {}, {})
            self._memo = memo
        return memo

    def _part(self, published: Published, view: View, start: int) -> str:
        parts = self._memory(published)[1]
        part = parts.get((view, start))
        if part is None:
            part = self._common(published, view, start)
            if len(parts) < CACHED_PARTS:
                parts[view, start] = part
        return part

    def _common(self, published: Published, view: View, start: int) -> str:
        position = published.replica.position
        common: Mapping[str, object] = {
            "v": FRAME_VERSION,
            "namespace": self._namespace,
            "timebase": self._timebase,
            "epoch": published.replica.epoch,
            "from": start,
            "seq": position.seq,
            "hash": position.hash,
            "read_at": published.read_at_us,
            "ttl_ms": published.ttl.ttl_ms,
            # So that a worker knows whose kills it would never hear of.
            "tenants": view,
        }
        sent = (each.body if in_view(each.target, view) else each.stub for each in published.tail.after(start))
        return f'{_text(common)[:-1]},"entries":[{",".join(sent)}]'
