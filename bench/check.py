"""run.check() beside time.monotonic(), and whether it grows with the number of kills."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

from bench.agent import agent
from bench.command import alone
from bench.figure import Bound, Effort, Figure
from bench.measure import Compared, compare, shown, statement

NAME: Final = "check"
LOOPS: Final = 1_000
CHECK: Final = 'run.check("send_email")'
NO_KILLS: Final = 0
KILLS: Final = 10_000
OTHER_KILLS: Final = (1_000, 100_000)

BOUND: Final = Bound(must=4, goal=3, unit="x monotonic")
GROWTH: Final = Bound(must=1.2, goal=1.1)


def measure(effort: Effort) -> Iterator[Figure]:
    """Measure the check with 10,000 kills against the clock, and with others against none."""
    monotonic = statement("monotonic()", {"monotonic": time.monotonic})
    with agent(KILLS) as run:
        check = statement(CHECK, {"run": run})
        result = compare(monotonic, check, rounds=effort.of(2_000), loops=LOOPS)
        yield BOUND.figure(
            NAME,
            f"`run.check()`, path of four scopes and a capability, {KILLS:,} active kills",
            value=result.ratio,
            measured=told(result),
            floor=f"`time.monotonic()` {shown(result.base_s)}",
        )
    with ExitStack() as agents:
        none = statement(CHECK, {"run": agents.enter_context(agent(NO_KILLS))})
        for kills in (*OTHER_KILLS[:1], KILLS, *OTHER_KILLS[1:]):
            some = statement(CHECK, {"run": agents.enter_context(agent(kills))})
            result = compare(none, some, rounds=effort.of(1_000), loops=LOOPS)
            yield GROWTH.figure(
                NAME,
                f"… {kills:,} kills beside none",
                value=result.ratio,
                measured=told(result),
                floor=f"no kills {shown(result.base_s)}",
            )


def told(result: Compared) -> str:
    """Return a comparison as the table shows it: the ratio, its quartiles, and the time."""
    return f"{result.ratio:.2f}x ({result.low:.2f} to {result.high:.2f}), {shown(result.taken_s)}"


if __name__ == "__main__":
    sys.exit(alone(measure))
