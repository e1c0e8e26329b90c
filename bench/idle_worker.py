"""One worker that has nothing to do: a real KillSwitch whose run looks every 0.1 ms whether it may go on.

Run by bench.propagation and bench.unleash. Told a capability, it checks that it may be used, says so, and then says
when the check first raised, by the monotonic clock that all processes of a machine share.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Final

from bench.crowd import say
from haltline import CapabilityFrozen, KillSwitch, Unverified

LOOK_S: Final = 0.0001
"""How long it sleeps between two looks, seconds: a loop without a pause would keep the lease's thread waiting."""

ENTER_S: Final = 30.0


def stopped(check: Callable[[], None]) -> tuple[int, int]:
    """Look until ``check`` says that an operator stopped it.

    Returns:
        when that was, nanoseconds of the monotonic clock, and how many looks found no live lease before.
    """
    lapsed = 0
    while True:
        try:
            check()
        except CapabilityFrozen:
            return time.monotonic_ns(), lapsed
        except Unverified:
            lapsed += 1
        time.sleep(LOOK_S)


def main() -> int:
    """Work until standard input ends."""
    given = json.loads(sys.stdin.readline())
    switch = KillSwitch(given["url"], token=given["secret"], worker="bench-idle")
    with switch, switch.run("r-idle", timeout=ENTER_S) as run:
        for line in sys.stdin:
            capability = json.loads(line)["capability"]
            check = run.guard(capability)
            run.ensure(ENTER_S)
            check()
            say({"going": capability})
            at, lapsed = stopped(check)
            say({"stopped": at, "lapsed": lapsed})
    return 0


if __name__ == "__main__":
    sys.exit(main())
