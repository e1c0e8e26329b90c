"""The doorbell: after a flip, tell the refreshers of all nodes to read now instead of at their next turn.

It carries a position and nothing else: it never says what was flipped, and nothing is lost when it does not ring,
because every refresher reads many times per ttl anyway.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, Protocol

import structlog

MAYBE_MISSED: Final = 0
"""The position that a listener hears when the doorbell was deaf for a time: somebody may have rung."""

CLOSE_S: Final = 0.25
"""How long closing waits for a thread that is in the middle of something, seconds; it ends by itself soon after."""

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
        """Call ``heard`` with a position, or :data:`MAYBE_MISSED`, whenever somebody rings, once it is started.

        It must return at once. What it hears may be anybody's: a reason to look, and nothing else.
        """

    def start(self) -> None:
        """Begin to hear other processes; call it in the process that serves, after any fork."""

    def close(self) -> None:
        """End what was started. From then on nothing is heard, and ringing fails."""


class BackgroundBell:
    """Rings a doorbell from a thread of its own, so that a frozen doorbell costs a kill nothing."""

    def __init__(self, bell: Doorbell) -> None:
        self._bell = bell
        self._changed = threading.Condition()
        self._newest = 0
        self._tried = 0
        self._closed = False
        self._failing = False
        self._thread: threading.Thread | None = None

    def ring(self, seq: int) -> None:
        """Have ``seq`` rung soon; never waits for it. Positions not yet rung are covered by a newer one."""
        with self._changed:
            if self._closed:
                return
            self._newest = max(self._newest, seq)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._send, name="haltline-bell", daemon=True)
                self._thread.start()
            self._changed.notify()

    def listen(self, heard: Callable[[int], None]) -> None:
        """Call ``heard`` whenever somebody rings the doorbell."""
        self._bell.listen(heard)

    def flush(self, seconds: float) -> bool:
        """Wait until all that was asked for is rung, or could not be, and return whether: for a command that ends.

        Args:
            seconds: how long at most.
        """
        with self._changed:
            return self._changed.wait_for(lambda: self._tried >= self._newest, seconds)

    def start(self) -> None:
        """Begin to hear other processes."""
        self._bell.start()

    def close(self) -> None:
        """End the thread and the doorbell; what is not rung yet is not rung."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread = self._thread
        self._bell.close()
        if thread is not None:
            thread.join(CLOSE_S)

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
            except DoorbellUnavailable as error:
                self._tell(failing=True, detail=str(error))
            else:
                self._tell(failing=False)
            with self._changed:
                self._tried = rung
                self._changed.notify_all()

    def _tell(self, *, failing: bool, detail: str = "") -> None:
        """Log a change, and nothing while it stays as it is: flips may come by the hundred."""
        if failing == self._failing:
            return
        self._failing = failing
        if failing:
            _log.warning("doorbell_silent", detail=detail, action="nodes read at their next turn instead")
        else:
            _log.info("doorbell_rings_again")
