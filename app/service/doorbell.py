"""The doorbell: after a flip, tell the refreshers of all nodes to read now instead of at their next turn.

It carries a position and nothing else: it never says what was flipped, and nothing is lost when it does not ring,
because every refresher reads many times per ttl anyway.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, Protocol

import structlog

_log: Final[Any] = structlog.get_logger(__name__)


class DoorbellUnavailable(Exception):
    """The doorbell could not be rung; slower, never wrong."""


class Doorbell(Protocol):
    """How one node tells all, itself included, that the log has grown."""

    def ring(self, seq: int) -> None:
        """Tell every listener that the log has reached ``seq``.

        Raises:
            DoorbellUnavailable: it could not be told.
        """

    def listen(self, heard: Callable[[int], None]) -> None:
        """Call ``heard`` with a position whenever somebody rings. It must return at once."""


class BackgroundBell:
    """Rings a doorbell from a thread of its own, so that a frozen doorbell costs a kill nothing."""

    def __init__(self, bell: Doorbell) -> None:
        self._bell = bell
        self._changed = threading.Condition()
        self._newest = 0
        self._closed = False
        self._thread: threading.Thread | None = None

    def ring(self, seq: int) -> None:
        """Have ``seq`` rung soon; never waits for it. Positions not yet rung are covered by a newer one."""
        with self._changed:
            self._newest = max(self._newest, seq)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._send, name="haltline-bell", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join(timeout=1.0)

    def _send(self) -> None:
        rung = 0
        while True:
            with self._changed:
                while self._newest <= rung and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                rung = self._newest
            try:
                self._bell.ring(rung)
            except DoorbellUnavailable:
                _log.warning("doorbell_unavailable", detail="nodes read at their next turn instead")
