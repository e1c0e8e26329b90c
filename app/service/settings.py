"""Settings of the whole store: the lease ttl, read with the log and changed as a note in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog

from app.domain.moments import moment
from app.domain.promises import CLOCKS_APART_S, NOT_KNOWN, TTL_MAX_MS, TTL_MIN_MS
from app.service.clocks import Clocks
from app.service.skew import Skew
from app.service.store import Store, Ttl

_log: Final[Any] = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Changed:
    """What came of a change.

    Attributes:
        seq: the position of its note in the log; None where nothing had to be changed.
        ttl: the ttl as it is now.
    """

    seq: int | None
    ttl: Ttl


class ClocksApart(Exception):
    """This node's clock is too far from the database's to date a lowered ttl; nothing was changed."""


class Settings:
    """What admins set for all nodes at once."""

    def __init__(self, store: Store, clocks: Clocks, skew: Skew, *, ring: Callable[[int], None]) -> None:
        """Set up.

        Args:
            store: where the log is kept.
            clocks: the wall clock dates the change.
            skew: how far that is from the database's.
            ring: called with the position of the note after its commit; must return at once.
        """
        self._store = store
        self._clocks = clocks
        self._skew = skew
        self._ring = ring

    def read(self) -> Ttl:
        """Return the lease ttl and its last change.

        Raises:
            StoreUnavailable: it could not be read.
        """
        return self._store.settings()

    def change(self, *, ttl_ms: int, actor: str) -> Changed:
        """Change the lease ttl; nodes serve it from their next read on, which is at once.

        Args:
            ttl_ms: 200 to 5000.
            actor: the subject who changes it.

        Raises:
            ValueError: it is out of range.
            ClocksApart: it would be lowered by a clock that is wrong.
            StoreUnavailable: nothing was changed.
            OutcomeUnknown: it may have been changed: change it again, which does nothing if it was.
        """
        if not TTL_MIN_MS <= ttl_ms <= TTL_MAX_MS:
            raise ValueError(f"the lease ttl is {TTL_MIN_MS} to {TTL_MAX_MS} ms, not {ttl_ms}")
        apart = self._skew.measure()
        if apart is not None and abs(apart) > CLOCKS_APART_S and _dated(self._store.settings(), ttl_ms):
            raise ClocksApart(
                f"this node's clock is {abs(apart):.1f} s {'ahead of' if apart > 0 else 'behind'} the database's, and "
                f"a lowered ttl is dated by it: set the time service of both hosts right, then change it again"
            )
        row, ttl = self._store.set_ttl(ttl_ms, actor=actor, at=moment(self._clocks.wall()), wall=self._clocks.wall)
        if row is None:
            return Changed(None, ttl)
        self._ring(row.position.seq)
        _log.info("settings_changed", ttl_ms=ttl_ms, actor=actor, seq=row.position.seq)
        return Changed(row.position.seq, ttl)


def _dated(before: Ttl, ttl_ms: int) -> bool:
    """Return whether what a change writes down of the clock decides a promise of a later kill.

    It does not where the ttl becomes as long as any lease that may still run: then a kill's own moment is enough.
    """
    if before.ttl_ms == ttl_ms and before.changed_at != NOT_KNOWN:
        return False  # nothing is written
    return ttl_ms < max(before.ttl_ms, before.before_ms)
