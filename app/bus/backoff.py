"""How long to wait before the next attempt: longer each time, at random, so that nodes do not come back in step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FIRST_S: Final = 0.05
LONGEST_S: Final = 1.5
"""With one attempt, which its time-outs bound, less than 2 seconds: so long a doorbell stays away at most."""


class Backoff:
    """Decorrelated jitter: each wait is drawn between the shortest and three times the one before.

    Args:
        draw: returns a number between two bounds, as random.uniform does.
    """

    def __init__(self, draw: Callable[[float, float], float]) -> None:
        self._draw = draw
        self._last_s = FIRST_S

    def next_s(self) -> float:
        """Return how long to wait now, seconds."""
        self._last_s = min(LONGEST_S, self._draw(FIRST_S, 3 * self._last_s))
        return self._last_s

    def reset(self) -> None:
        """Begin anew: the last attempt came to something."""
        self._last_s = FIRST_S
