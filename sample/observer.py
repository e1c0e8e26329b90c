"""The one observer: when each mail was accepted, on one clock, by the process that accepted it.

Every figure of the demo comes from here. A worker's own opinion of when it stopped plays no part.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sample.mail import Tags
from sample.watch import Watch

KEPT: Final = 50_000
"""How many stamps of each run are remembered at least; the oldest leave. Counts are never forgotten."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """One mail that was accepted.

    Attributes:
        at_ns: when, on the observer's clock, nanoseconds.
        tags: what its headers say about where it came from.
    """

    at_ns: int
    tags: Tags


class Observer:
    """Sees each accepted mail once, in order.

    Args:
        watch: told of each mail.
        clock_ns: the observer's clock, nanoseconds; monotonic.
    """

    def __init__(self, watch: Watch, *, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._watch = watch
        self._clock_ns = clock_ns
        self._stamps: dict[str, list[int]] = {}
        self._counts: dict[str, int] = {}
        self.last: Sighting | None = None

    def now_ns(self) -> int:
        """Return the observer's clock."""
        return self._clock_ns()

    def accept(self, tags: Tags) -> Sighting:
        """Stamp a mail that is being accepted right now. Called by one thread only."""
        seen = Sighting(self._clock_ns(), tags)
        stamps = self._stamps.setdefault(tags.run, [])
        stamps.append(seen.at_ns)
        if len(stamps) >= 2 * KEPT:
            self._stamps[tags.run] = stamps[KEPT:]  # a new list: who reads the old one goes on undisturbed
        self._counts[tags.run] = self._counts.get(tags.run, 0) + 1
        self.last = seen
        self._watch.changed()
        return seen

    def count(self, run: str) -> int:
        """Return how many mails of a run were ever accepted."""
        return self._counts.get(run, 0)

    def stamps(self, run: str) -> Sequence[int]:
        """Return when the mails of a run were accepted, ascending: the newest 50,000 at least."""
        return self._stamps.get(run, ())

    def count_since(self, run: str, since_ns: int) -> int:
        """Return how many mails of a run were accepted later than ``since_ns``."""
        stamps = self.stamps(run)
        return len(stamps) - bisect_right(stamps, since_ns)

    def rate(self, run: str) -> int:
        """Return how many mails of a run were accepted in the last second."""
        return self.count_since(run, self._clock_ns() - 1_000_000_000)
