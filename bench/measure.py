"""Measuring on a machine that others use too: what is compared runs in turns, and the medians of the pairs count."""

from __future__ import annotations

import gc
import statistics
import time
import timeit
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

Contender: TypeAlias = Callable[[int], float]
"""Does its work so many times, and returns how long that took, seconds."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What one contender came to beside a base.

    Attributes:
        base_s: the base, the median over the rounds, seconds for one.
        taken_s: the contender, the same.
        ratio: the median over the rounds of contender by base, each of one pair that ran side by side.
        low, high: the quartiles of those ratios.
    """

    base_s: float
    taken_s: float
    ratio: float
    low: float
    high: float


def statement(text: str, names: Mapping[str, Any]) -> Contender:
    """Return a contender that executes one statement, in the loop that ``timeit`` writes around it."""
    return timeit.Timer(text, globals=dict(names)).timeit


def calls(function: Callable[[], object]) -> Contender:
    """Return a contender that calls ``function``; for work beside which a call costs nothing."""

    def repeat(loops: int) -> float:
        begun = time.perf_counter()
        for _ in range(loops):
            function()
        return time.perf_counter() - begun

    return repeat


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep the garbage collector from running inside: it would hit one of a pair and not the other."""
    was = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def compare(base: Contender, contender: Contender, *, rounds: int, loops: int, base_loops: int = 0) -> Compared:
    """Compare two contenders in pairs: base, contender, contender, base, base, contender, ...

    Args:
        base: what is compared with.
        contender: what is compared.
        rounds: how many pairs.
        loops: how often the contender does its work in one. A pair should be over well within the time slice of a
            scheduler: then most pairs are not interrupted by another process, and the median knows none that was.
        base_loops: how often the base does; 0 for as often as the contender.
    """
    base_loops = base_loops or loops
    bases: list[float] = []
    takens: list[float] = []
    base(base_loops)
    contender(loops)  # the first run of anything warms caches and specialises byte code
    with no_collection():
        for number in range(rounds):
            if number % 2:
                takens.append(contender(loops) / loops)
                bases.append(base(base_loops) / base_loops)
            else:
                bases.append(base(base_loops) / base_loops)
                takens.append(contender(loops) / loops)
    return compared(bases, takens)


def compared(bases: Sequence[float], takens: Sequence[float]) -> Compared:
    """Return what pairs of measurements come to, seconds for one."""
    ratios = [taken / base for base, taken in zip(bases, takens, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
    return Compared(statistics.median(bases), statistics.median(takens), statistics.median(ratios), low, high)


def shown(seconds: float) -> str:
    """Return a time with three significant digits and a unit that fits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(seconds) >= size:
            return f"{_three(seconds / size)} {unit}"
    return f"{_three(seconds / 1e-9)} ns"


def _three(number: float) -> str:
    size = abs(number)
    return f"{number:.0f}" if size >= 100 else f"{number:.1f}" if size >= 10 else f"{number:.2f}"
