"""Turns: how many requests of workers are served at once. The others wait for theirs, not for long.

A whole fleet may ask at the same moment: after an outage, or when a node goes away. Served all at once, their requests
would keep the node from reading the log, so that nobody could be granted a lease, and all would ask again. So some are
served, the next wait for half a ttl, and whoever cannot be served in that time is told so at once.
"""

from __future__ import annotations

import threading
from typing import Final

AT_ONCE: Final = 128
"""How many requests of workers a node serves at once; each waits for a read of the log, which they share."""

WAITING: Final = 2_000
"""How many more may wait for their turn."""


class Turns:
    """Hands out turns in the order in which they were asked for."""

    def __init__(self, number: int, *, waiting: int) -> None:
        """Set up.

        Args:
            number: how many are served at once.
            waiting: how many may wait.
        """
        self._free = threading.BoundedSemaphore(number)
        self._most = waiting
        self.waiting = 0

    def take(self, patience_s: float) -> bool:
        """Take a turn, and return whether there was one in time; whoever took one must :meth:`give` it back.

        Args:
            patience_s: for how long to wait for it, seconds.
        """
        if self._free.acquire(blocking=False):
            return True
        if self.waiting >= self._most:
            return False
        self.waiting += 1
        try:
            return self._free.acquire(timeout=patience_s)
        finally:
            self.waiting -= 1

    def give(self) -> None:
        """Give a turn back."""
        self._free.release()
