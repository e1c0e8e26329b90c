"""Skew: how far this node's wall clock is from the database's, which every node of one log can ask.

What one node writes down of a changed ttl is compared with what another one's clock says, and that holds only while the
two are within a second of each other (docs/decisions/0014). Nodes that are each within half a second of one clock are.
Where one is not, its own kills promise the longer ttl after a change (:func:`app.domain.promises.effective_at`).
"""

from __future__ import annotations

from typing import Any, Final

import structlog

from app.domain.promises import ALONE_S
from app.service.clocks import Clocks
from app.service.store import Store

EVERY_S: Final = 60.0
"""How often a node compares its clock, seconds: a time service may break, or be set right, at any time."""

_log: Final[Any] = structlog.get_logger(__name__)


class Skew:
    """Compares the clocks when it is told to.

    Attributes:
        seconds: by how much this node's clock was ahead of the database's when they were compared last, at least;
            None if they never were, or if the database has no clock of its own.
    """

    def __init__(self, store: Store, clocks: Clocks) -> None:
        """Set up.

        Args:
            store: where the log is kept.
            clocks: this node's wall clock.
        """
        self._store = store
        self._clocks = clocks
        self.seconds: float | None = None
        self._apart = False

    def measure(self) -> float | None:
        """Compare the clocks now, and return :attr:`seconds`.

        Raises:
            StoreUnavailable: the database could not be asked.
        """
        began = self._clocks.wall()
        theirs = self._store.wall()
        ended = self._clocks.wall()
        if theirs is None:
            return None
        # Theirs was read at some moment of the call: what the call took is no difference.
        self.seconds = began - theirs if theirs < began else min(ended - theirs, 0.0)
        self._tell(self.seconds)
        return self.seconds

    def _tell(self, seconds: float) -> None:
        """Log a change, and nothing while it stays as it is."""
        apart = abs(seconds) > ALONE_S
        if apart and not self._apart:
            _log.warning("clocks_apart", ahead_s=round(seconds, 3), action="set this host's time service right")
        elif self._apart and not apart:
            _log.info("clocks_together_again", ahead_s=round(seconds, 3))
        self._apart = apart
