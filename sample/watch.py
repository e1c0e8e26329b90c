"""Waiting for something to happen in another thread, instead of sleeping and looking again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

_GATHER_S: Final = 0.005
"""For how long changes are gathered before the next look, seconds: thousands of mails a second must not each cost a
switch of threads, in the very process whose clock they are measured with."""


class Watch:
    """Something that several threads change and one waits for."""

    def __init__(self) -> None:
        self._condition = threading.Condition()

    def changed(self) -> None:
        """Have every waiter look again."""
        with self._condition:
            self._condition.notify_all()

    def until(self, happened: Callable[[], bool], timeout: float) -> bool:
        """Return whether it happened within ``timeout`` seconds, as soon as that is known.

        Args:
            happened: asked at once and after changes, at most 200 times a second; it takes no lock of its own.
            timeout: seconds; 0 or less asks once.
        """
        ends = time.monotonic() + timeout
        while True:
            with self._condition:
                if happened():
                    return True
                left = ends - time.monotonic()
                if left <= 0:
                    return False
                self._condition.wait(left)
            time.sleep(min(_GATHER_S, max(0.0, ends - time.monotonic())))
