"""The other ways to ask: a prepared guard, the module's check(), the decorator, and a check inside a coroutine."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import repeat
from typing import Final

import haltline
from bench.agent import CAPABILITY, agent
from bench.check import CHECK, KILLS, told
from bench.command import alone
from bench.figure import Bound, Effort, Figure, noted
from bench.measure import Contender, compare, shown, statement

NAME: Final = "guard"
LOOPS: Final = 1_000

GUARD: Final = Bound(must=3, goal=2, unit="x monotonic")
OTHERS: Final = Bound(must=2.5, goal=2, unit="x check")


@haltline.guarded(CAPABILITY)
def send() -> None:
    """Do nothing, after a check."""


@haltline.guarded(CAPABILITY)
async def asend() -> None:
    """Do nothing, after a check, as a coroutine."""


async def plain() -> None:
    """Do nothing, as a coroutine."""


def measure(effort: Effort) -> Iterator[Figure]:
    """Measure each of them with 10,000 active kills."""
    with agent(KILLS) as run:
        rounds = effort.of(2_000)
        monotonic = statement("monotonic()", {"monotonic": time.monotonic})
        prepared = statement("send()", {"send": run.guard(CAPABILITY)})
        result = compare(monotonic, prepared, rounds=rounds, loops=LOOPS)
        yield GUARD.figure(
            NAME,
            '`send = run.guard("send_email"); send()`',
            value=result.ratio,
            measured=told(result),
            floor=f"`time.monotonic()` {shown(result.base_s)}",
        )
        check = statement(CHECK, {"run": run})
        contenders: tuple[tuple[str, Contender], ...] = (
            ("`haltline.check()` of the current run", statement(f'check("{CAPABILITY}")', {"check": haltline.check})),
            ('`@guarded("send_email")`, the call of an empty function included', statement("send()", {"send": send})),
            ("`run.check()` inside a coroutine", inside_coroutine(run.check)),
            ("`haltline.check()` inside a coroutine", inside_coroutine(haltline.check)),
        )
        for what, contender in contenders:
            result = compare(check, contender, rounds=rounds, loops=LOOPS)
            yield OTHERS.figure(
                NAME, what, value=result.ratio, measured=told(result), floor=f"`run.check()` {shown(result.base_s)}"
            )
        result = compare(awaited(plain), awaited(asend), rounds=rounds, loops=LOOPS)
        yield noted(
            NAME,
            '`await` of a `@guarded("send_email")` coroutine function',
            measured=f"{shown(result.taken_s - result.base_s)} more than a plain one",
            floor=f"`await` of a plain one {shown(result.base_s)}",
        )


def inside_coroutine(check: Callable[[str], None]) -> Contender:
    """Return a contender that checks inside one task; the run that is current here is current there."""

    async def checks(loops: int) -> float:
        begun = time.perf_counter()
        for _ in repeat(None, loops):
            check(CAPABILITY)
        return time.perf_counter() - begun

    return lambda loops: asyncio.run(checks(loops))


def awaited(function: Callable[[], Awaitable[None]]) -> Contender:
    """Return a contender that awaits a coroutine function inside one task."""

    async def waits(loops: int) -> float:
        begun = time.perf_counter()
        for _ in repeat(None, loops):
            await function()
        return time.perf_counter() - begun

    return lambda loops: asyncio.run(waits(loops))


if __name__ == "__main__":
    sys.exit(alone(measure))
