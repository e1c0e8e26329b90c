"""Flips to be written, with everything filled in that a test does not care about."""

from __future__ import annotations

import itertools
from typing import Final

from app.service.store import Committed, Flag, FlipResult, KillOrder, ReviveOrder
from haltline.flips import InFlight, Queued
from haltline.scopes import parse_target

AT: Final = "2026-11-20T20:25:12.000000Z"

_count = itertools.count(1)


def fresh_id() -> str:
    """Return a flip_id that no other call returns."""
    return f"f-{next(_count)}"


def kill_order(
    target: str = "run:r-42",
    *,
    flip_id: str | None = None,
    reason: str = "it sends too much",
    actor: str = "ann",
    at: str = AT,
    in_flight: InFlight = "abort",
    queued: Queued = "discard",
) -> KillOrder:
    """Return a kill."""
    key = fresh_id() if flip_id is None else flip_id
    return KillOrder(parse_target(target), reason, actor, key, at, in_flight, queued)


def revive_order(  # a revive has that many parts
    flag: Flag,
    *holds: int,
    flip_id: str | None = None,
    reason: str = "mended",
    actor: str = "bob",
    at: str = AT,
    seen: frozenset[int] | None = None,
) -> ReviveOrder:
    """Return a revive of ``holds`` (all of the flag's, if none are named) by somebody who saw ``flag``."""
    return ReviveOrder(
        flag.target,
        holds or tuple(hold.seq for hold in flag.holds),
        reason,
        actor,
        fresh_id() if flip_id is None else flip_id,
        at,
        frozenset({flag.version}) if seen is None else seen,
    )


def committed(result: FlipResult) -> Committed:
    """Return a flip's result, which must be a commit."""
    assert isinstance(result, Committed), result
    return result
