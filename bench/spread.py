"""How long one thing took to reach many, measured many times."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.measure import shown

GAP_S: Final = (0.02, 0.12)
"""How long to wait between two, seconds: drawn, so that they keep no step with anything periodic."""


@dataclass(frozen=True, slots=True)
class Spread:
    """When something reached many readers, seconds after it was sent.

    Attributes:
        first: when the first of them had read it.
        median: when half of them had.
        last: when the last of them had.
    """

    first: float
    median: float
    last: float


def spread(heard: Mapping[str, int], begun: int) -> Spread:
    """Return what a crowd told about one number, counted from ``begun``, nanoseconds of the monotonic clock."""
    return Spread(*((heard[name] - begun) / 1e9 for name in ("first", "median", "last")))


def repeated(send: Callable[[], Spread], times: int) -> list[Spread]:
    """Send so many times, with a pause before each."""
    spreads: list[Spread] = []
    for _ in range(times):
        time.sleep(random.uniform(*GAP_S))
        spreads.append(send())
    return spreads


def lasts(spreads: Sequence[Spread]) -> list[float]:
    """Return when each had reached everybody, seconds."""
    return [each.last for each in spreads]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest of ``values`` that at least ``share`` of them do not exceed."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


def told(values: Sequence[float]) -> str:
    """Return times as the table shows them: the median and the 99th percentile."""
    return f"median {shown(statistics.median(values))}, p99 {shown(percentile(values, 0.99))}"
