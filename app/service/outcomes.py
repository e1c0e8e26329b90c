"""Outcomes: what the clean-up of stopped runs came to, as their workers say. Information beside the log, no proof.

Of each run and flip the first word is kept; it is removed when no planned work can be redeemed any more that the flip
might have concerned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from app.domain.access import Principal
from app.service.clocks import Clocks
from app.service.refresher import MEMORY_S
from app.service.store import OutcomeQuery, OutcomeUnknown, Store, StoredOutcome, StoreUnavailable
from app.service.turns import Turns
from haltline.canonical import canonical

BATCH: Final = 100
"""How many outcomes are told at once, at most."""

CLEANUPS: Final = 250
"""How many cleanups an outcome has at most."""

SWEPT: Final = 500
"""How many old outcomes are removed at once, at most."""

SWEEP_S: Final = 600.0
"""How often is looked for old outcomes when there were none, seconds."""

PATIENCE_S: Final = 1.0
WAITING: Final = 16
"""For how long, and how many, who tell of outcomes wait for the one whose turn it is."""

_log: Final[Any] = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Told:
    """One outcome as a worker tells it; the members are those of :class:`app.service.store.StoredOutcome`.

    Attributes:
        cleanups: a ``name``, an ``outcome``, ``ms`` and perhaps a ``detail`` each.
    """

    run: str
    flip: int
    worker: str
    instance: str
    at: str
    ended: str
    cleanups: Sequence[dict[str, Any]]


class Outcomes:
    """The outcomes that one node is told, and those that all nodes have kept."""

    def __init__(self, store: Store, clocks: Clocks) -> None:
        """Set up."""
        self._store = store
        self._clocks = clocks
        self._sweep_at = 0.0
        # One batch at a time: a stop of ten thousand runs must keep neither the disk nor the next kill busy.
        self._turns = Turns(1, waiting=WAITING)
        self.told: Counter[str] = Counter()
        self.cleanups: Counter[str] = Counter()

    def keep(self, who: Principal, told: Sequence[Told]) -> int | None:
        """Keep outcomes.

        Args:
            who: the holder of the token that they are told with.
            told: what is told.

        Returns:
            how many of them were not known before; None where too many tell of outcomes just now: nothing was kept.

        Raises:
            StoreUnavailable: nothing was kept.
            OutcomeUnknown: they may have been kept; they may be told again.
        """
        if not self._turns.take_now() and not self._turns.take(PATIENCE_S):
            return None
        try:
            new = self._store.keep_outcomes([self._stored(who, each) for each in told])
        finally:
            self._turns.give()
        self._count(told)
        return new

    def listed(self, query: OutcomeQuery) -> Sequence[StoredOutcome]:
        """Return the outcomes that a query names."""
        return self._store.outcomes(query)

    def sweep(self) -> None:
        """Remove some of the outcomes that are too old, if it is time to look."""
        now = self._clocks.monotonic()
        if now < self._sweep_at:
            return
        self._sweep_at = now + SWEEP_S
        try:
            gone = self._store.forget_outcomes(before=self._clocks.wall() - MEMORY_S, limit=SWEPT)
        except (StoreUnavailable, OutcomeUnknown) as error:
            _log.warning("outcomes_not_swept", detail=str(error))
            return
        if gone == SWEPT:
            self._sweep_at = 0.0  # there may be more of them, for the next round
        if gone:
            _log.info("outcomes_swept", count=gone)

    def _stored(self, who: Principal, told: Told) -> StoredOutcome:
        return StoredOutcome(
            run=told.run,
            flip=told.flip,
            worker=told.worker,
            instance=told.instance,
            subject=who.subject,
            tenants=who.tenants,
            at=told.at,
            ended=told.ended,
            cleanups=canonical(list(told.cleanups)).decode(),
            kept_at=self._clocks.wall(),
        )

    def _count(self, told: Iterable[Told]) -> None:
        for each in told:
            self.told[each.ended] += 1
            self.cleanups.update(cleanup["outcome"] for cleanup in each.cleanups)
