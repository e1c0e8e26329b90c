"""Frames: what a lease request is answered with, built from one published state and nothing else.

Everything but the nonce and ``received_at`` is the same text for every client with the same view and position, so it is
built once for each published state.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from app.service.published import Published
from haltline.flips import GENESIS_HASH, Position
from haltline.scopes import Scope, Target, parse_target

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


def snapshot(published: Published, view: View) -> dict[str, Any]:
    """Return the snapshot of a state as one view shows it: other tenants' holds and marks are left out."""
    members = published.replica.snapshot()
    if view is None:
        return members
    members["holds"] = [each for each in members["holds"] if in_view(parse_target(each["target"]), view)]
    members["marks"] = {key: mark for key, mark in members["marks"].items() if in_view(parse_target(key), view)}
    return members


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
        self._memo: tuple[Published, dict[tuple[View, int], str]] | None = None

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
        refused = self._refused(published, request, past)
        if refused is not None:
            return refused
        start = request.seq if request.seq > 0 and published.tail.position(request.seq) is not None else -1
        part = self._part(published, view, start)
        return f'{part},"nonce":{_text(request.nonce)},"received_at":{received_at_us}}}'.encode()

    def _refused(
        self, published: Published, request: LeaseRequest, past: Callable[[int], Position | None]
    ) -> Regress | Foreign | None:
        replica = published.replica
        if request.epoch is not None and request.epoch != replica.epoch:
            return Foreign(f"the log of this service has epoch {replica.epoch}, the request names {request.epoch}")
        if request.seq > replica.position.seq:
            return Regress(f"the log ends at {replica.position.seq}, the request has seen {request.seq}")
        if request.seq == 0:
            if request.hash not in (None, GENESIS_HASH):
                return Regress("before the first entry there is no hash but 64 zeros")
            return None
        # Also where only a snapshot can follow: whoever has seen another history has seen kills that are not in it.
        known = published.tail.position(request.seq) or past(request.seq)
        if known is None or request.hash != known.hash:
            return Regress(f"entry {request.seq} of this log has another hash than the request names")
        return None

    def _part(self, published: Published, view: View, start: int) -> str:
        memo = self._memo
        if memo is None or memo[0] is not published:
            # State and parts are one object, loaded once: a part is never taken for another state's.
            memo = (published, {})
            self._memo = memo
        part = memo[1].get((view, start))
        if part is None:
            part = self._common(published, view, start)
            if len(memo[1]) < CACHED_PARTS:
                memo[1][view, start] = part
        return part

    def _common(self, published: Published, view: View, start: int) -> str:
        position = published.replica.position
        common: Mapping[str, object] = {
            "v": FRAME_VERSION,
            "namespace": self._namespace,
            "timebase": self._timebase,
            "epoch": published.replica.epoch,
            "from": position.seq if start < 0 else start,
            "seq": position.seq,
            "hash": position.hash,
            "read_at": published.read_at_us,
            "ttl_ms": published.ttl.ttl_ms,
            # So that a worker knows whose kills it would never hear of.
            "tenants": view,
        }
        if start < 0:
            tail = f'"entries":[],"snapshot":{_text(snapshot(published, view))}'
        else:
            sent = (each.body if in_view(each.target, view) else each.stub for each in published.tail.after(start))
            tail = f'"entries":[{",".join(sent)}]'
        return f"{_text(common)[:-1]},{tail}"
