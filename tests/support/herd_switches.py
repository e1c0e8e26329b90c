"""A few real switches in one process, each with its own thread, among the herd of tests/support/herd.py.

Run as ``python -m tests.support.herd_switches``; the first line of standard input says how, and it ends with that
input. It tells the same ticks; who is live is found out by a check of a run, as an agent would.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import ExitStack

from haltline import Halt, KillSwitch, Run
from tests.support.herd import say
from tests.support.herding import TICK_S


def passes(run: Run) -> bool:
    """Return whether a check passes."""
    try:
        run.check("send_email")
    except Halt:
        return False
    return True


def until_end(over: threading.Event) -> None:
    """Say when the input ends."""
    sys.stdin.read()
    over.set()


def main() -> None:
    """Check each run at each tick, until the input ends."""
    told = json.loads(sys.stdin.readline())
    over = threading.Event()
    threading.Thread(target=until_end, args=(over,), daemon=True).start()
    with ExitStack() as stack:
        runs: list[Run] = []
        for number in range(told["size"]):
            switch = stack.enter_context(KillSwitch(told["url"], token=told["token"], ca=told.get("ca")))
            runs.append(stack.enter_context(switch.run(f"r-{number}", timeout=30)))
        while not over.wait(TICK_S):
            at = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            live = sum(map(passes, runs))
            say({"at": at, "live": live, "until": 0.0, "asked": 0, "opened": 0, "refused": 0, "late_ms": 0})


if __name__ == "__main__":
    main()
