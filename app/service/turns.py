"""Turns: how many requests of workers are served at once. The others wait for theirs, not for long.

A whole fleet may ask at the same moment: after an outage, or when a node goes away. Served all at once, their requests
would keep the node from reading the log, so that nobody could be granted a lease, and all would ask again. So some are
served, the next wait for half a ttl, and whoever cannot be served in that time is told so at once.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Final

AT_ONCE: Final = 128
"""How many requests of workers a node serves at once; each waits for a read of the log, which they share."""

WAITING: Final = 2_000
"""How many more may wait for their turn."""


class _Waiter(threading.Event):
    """Somebody who waits; set when there is something to know.

    Attributes:
        served: whether a turn has come, and not the end of the wait without one.
    """

    served = False


class Turns:
    """Hands out turns, in the order in which they were asked for or the newest first."""

    def __init__(self, number: int, *, waiting: int, newest_first: bool = False) -> None:
        """Set up.

        Args:
            number: how many are served at once.
            waiting: how many may wait.
            newest_first: whether a turn goes to whoever has come last, and whoever has waited longest makes room where
                too many wait: for a crowd that is not worth waiting behind.
        """
        self._lock = threading.Lock()
        self._number = self._free = number
        self._most = waiting
        self._newest_first = newest_first
        self._queue: deque[_Waiter] = deque()

    @property
    def waiting(self) -> int:
        """How many wait for their turn now."""
        return len(self._queue)

    def take_now(self) -> bool:
        """Take a turn if one is free, and return whether it was; whoever took one must :meth:`give` it back."""
        # Not by a semaphore: its condition asks for a lock that it knows to be held, for which gevent gives way to
        # every other greenlet, twice a request.
        with self._lock:
            if not self._free:
                return False
            self._free -= 1
            return True

    def take(self, patience_s: float) -> bool:
        """Take a turn, and return whether there was one in time; whoever took one must :meth:`give` it back.

        Args:
            patience_s: for how long to wait for it, seconds.
        """
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            if len(self._queue) >= self._most:
                if not self._newest_first or not self._queue:
                    return False
                self._queue.popleft().set()
            mine = _Waiter()
            self._queue.append(mine)
        try:
            mine.wait(patience_s)
        except BaseException:
            if not self._left(mine):
                self.give()  # it came just now, to somebody who is being ended
            raise
        return not self._left(mine)

    def _left(self, mine: _Waiter) -> bool:
        """Leave the queue, where this has not happened; return whether no turn has come."""
        with self._lock:
            if mine.served:
                return False
            if not mine.is_set():
                self._queue.remove(mine)
            return True

    def give(self) -> None:
        """Give a turn back: to whoever is next, if anybody waits."""
        with self._lock:
            if self._queue:
                after = self._queue.pop() if self._newest_first else self._queue.popleft()
                after.served = True
                after.set()
            elif self._free < self._number:
                self._free += 1
            else:
                raise ValueError("a turn was given back that nobody had")
