"""Places: how many replies that are made while they are sent may run at once, of one kind."""

from __future__ import annotations

import threading
from typing import Final

AT_ONCE: Final = 64
"""How many exports may run at the same time in one process, and how many event streams beside them."""


class Places:
    """A number of places; whoever finds none is told so at once."""

    def __init__(self, number: int = AT_ONCE) -> None:
        self._places = threading.BoundedSemaphore(number)

    def enter(self) -> bool:
        """Take a place, if one is free; whoever took it must :meth:`leave`."""
        return self._places.acquire(blocking=False)

    def leave(self) -> None:
        """Give a place back."""
        self._places.release()
