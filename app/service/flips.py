"""Flips: the kill and the revive, from an order to what its reply promises."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import structlog

from app.domain.access import Principal, Reach
from app.domain.etags import seen_versions
from app.domain.moments import moment, moment_after
from app.domain.promises import effective_at
from app.service.clocks import Clocks
from app.service.skew import Skew
from app.service.store import (
    Committed,
    FlipIdTaken,
    FlipResult,
    KillOrder,
    NoSuchHold,
    ReviveOrder,
    StaleView,
    Store,
    StoreFull,
)
from haltline.flips import InFlight, Queued
from haltline.scopes import Target

_log: Final[Any] = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Flipped:
    """A flip that is durable.

    Attributes:
        committed: what the store says of it.
        committed_at: when it was durable, RFC 3339; for a replay, the ``at`` of its entry.
        effective_at: from when no check anywhere passes what it kills, RFC 3339.
        effective_raw_us: the same on the raw clock of this process, microseconds.
    """

    committed: Committed
    committed_at: str
    effective_at: str
    effective_raw_us: int

    def effective_in_ms(self, clocks: Clocks) -> int:
        """Return how long until then, milliseconds, rounded up; 0 if it has passed."""
        return max(0, math.ceil((self.effective_raw_us - clocks.raw_us_floor()) / 1000))


FlipOutcome: TypeAlias = Flipped | FlipIdTaken | StaleView | NoSuchHold | StoreFull | Reach


class Flips:
    """What operators and releasers do to the log."""

    def __init__(self, store: Store, clocks: Clocks, skew: Skew, *, ring: Callable[[int], None]) -> None:
        """Set up.

        Args:
            store: where the log is kept.
            clocks: the wall clock for the log's time stamps, the raw one for what is promised.
            skew: how far the wall clock is from the database's, as it was measured last.
            ring: called with the position of each flip after its commit; must return at once.
        """
        self._store = store
        self._clocks = clocks
        self._skew = skew
        self._ring = ring

    def kill(
        self,
        principal: Principal,
        target: Target,
        *,
        reason: str,
        flip_id: str | None,
        in_flight: InFlight = "abort",
        queued: Queued = "discard",
    ) -> FlipOutcome:
        """Kill a target.

        Args:
            principal: who kills; permission to kill at all was asked before.
            target: what.
            reason: why, a valid reason.
            flip_id: the caller's idempotency key; None to have one made.
            in_flight: what happens to calls that are running.
            queued: what happens to planned work.

        Returns:
            the flip; or why there is none: the target is not this token's (``Reach``), the flip_id is another
            flip's, or the cap on holds is reached.

        Raises:
            StoreUnavailable: nothing was written.
            OutcomeUnknown: it may have been written: repeat it with the same flip_id.
        """
        reach = principal.reaches(target)
        if reach is not Reach.ALLOWED:
            return reach
        order = KillOrder(
            target=target,
            reason=reason,
            actor=principal.subject,
            flip_id=flip_id or new_flip_id(),
            at=moment(self._clocks.wall()),
            in_flight=in_flight,
            queued=queued,
        )
        return self._after(self._store.kill(order), "killed")

    def revive(
        self,
        principal: Principal,
        target: Target,
        *,
        holds: tuple[int, ...],
        reason: str,
        flip_id: str | None,
        if_match: str,
    ) -> FlipOutcome:
        """Release holds of a target.

        Args:
            principal: who revives; the permission was asked before.
            target: what.
            holds: the holds to release, each the seq of its kill, ascending.
            reason: why, a valid reason.
            flip_id: the caller's idempotency key; None to have one made.
            if_match: the ``If-Match`` header: the view that the caller saw. Not ``*``.

        Returns:
            the flip; or why there is none: the view is stale, a hold is not active, or the flip_id is another flip's.

        Raises:
            ValueError: ``if_match`` is malformed.
            StoreUnavailable: nothing was written.
            OutcomeUnknown: it may have been written: repeat it with the same flip_id.
        """
        order = ReviveOrder(
            target=target,
            holds=holds,
            reason=reason,
            actor=principal.subject,
            flip_id=flip_id or new_flip_id(),
            at=moment(self._clocks.wall()),
            seen_versions=seen_versions(if_match, epoch=self._store.head().epoch),
        )
        return self._after(self._store.revive(order), "revived")

    def _after(self, result: FlipResult, what: str) -> FlipOutcome:
        if not isinstance(result, Committed):
            return result
        # F of the promise: read after the commit has returned, never before.
        committed, raw = self._clocks.wall(), self._clocks.raw_us_ceil()
        seq = result.row.position.seq
        self._ring(seq)
        ttl = result.ttl
        promised = effective_at(
            committed,
            ttl_ms=ttl.ttl_ms,
            changed_at=ttl.changed_at,
            before_ms=ttl.before_ms,
            ahead=self._skew.seconds or 0.0,
        )
        if not result.replayed:
            _log.info(
                what,
                seq=seq,
                target=str(result.flag.target),
                actor=result.members["actor"],
                flip_id=result.members["flip_id"],
            )
        return Flipped(
            committed=result,
            committed_at=result.members["at"] if result.replayed else moment(committed),
            effective_at=moment_after(promised),
            effective_raw_us=raw + math.ceil((promised - committed) * 1_000_000),
        )


def new_flip_id() -> str:
    """Return an idempotency key for a caller who named none."""
    return f"f-{uuid.uuid4().hex}"
