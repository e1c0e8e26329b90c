"""A process that checks its runs without pause, and tells exactly when each went and when it stopped.

Run as ``python -m tests.support.prober``; address and token come from the environment. Orders come on standard input:
``arm <run> [<tenant>]``, ``drop <run>``, ``end``. What it tells, a line each, all times nanoseconds of CLOCK_BOOTTIME:

- ``armed <run> <when>``, or ``unarmed <run> <reason>``
- ``go <run> <first> <last> <count>`` and ``stop <run> <first> <last> <count> <reason>``: a stretch of checks that came
  out alike. Each time was read BEFORE its check, so the check's own reading is not earlier: a check that passed though
  this time is later than the promise is a broken promise, and a pause before or after a check never counts against it.
- ``cost <count> <gave up>``: how many checks were made, and in how many of them this thread gave up the processor by
  itself, as whoever waits does and whoever is interrupted does not; at the end.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from typing import Final

from haltline import Halt, KillSwitch, Run

PAUSE_S: Final = float(os.environ.get("PROBER_PAUSE_S", "0.001"))
"""The pause between two rounds of checks, seconds: a round in which nothing is checked shows nothing."""

FLUSH_NS: Final = int(float(os.environ.get("PROBER_FLUSH_S", "0.05")) * 1e9)
"""How long a stretch may last before it is told, nanoseconds."""


def now() -> int:
    """Return the lease clock, nanoseconds."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def tell(*words: object) -> None:
    """Tell one line, whole."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Stretch:
    """The checks of one run that came out alike since the last line about it."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.outcome = ""
        self.first = self.last = self.count = 0

    def check(self) -> bool:
        """Check, and return whether this thread gave up the processor by itself meanwhile."""
        before = now()
        given_up = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        try:
            self.run.check("send_email")
            outcome = "go"
        except Halt as halt:
            outcome = halt.verdict.reason.value
        waited = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw > given_up
        if outcome != self.outcome or before - self.first > FLUSH_NS:
            self.flush()
            self.outcome, self.first = outcome, before
        self.last = before
        self.count += 1
        return waited

    def flush(self) -> None:
        """Tell of these checks."""
        if self.count and self.outcome == "go":
            tell("go", self.run.id, self.first, self.last, self.count)
        elif self.count:
            tell("stop", self.run.id, self.first, self.last, self.count, self.outcome)
        self.count = 0


class Prober:
    """The loop, and the runs that it checks."""

    def __init__(self, switch: KillSwitch) -> None:
        self._switch = switch
        self._stretches: dict[str, Stretch] = {}
        self._ended = False

    def obey(self) -> None:
        """Follow orders until there are no more."""
        for line in sys.stdin:
            what, *words = line.split()
            if what == "arm":
                self._arm(words[0], words[1] if len(words) > 1 else None)
            elif what == "drop":
                self._stretches = {name: each for name, each in self._stretches.items() if name != words[0]}
            else:
                break
        self._ended = True

    def _arm(self, name: str, tenant: str | None) -> None:
        run = self._switch.run(name, tenant=tenant, timeout=10)
        try:
            run.arm()
        except Halt as halt:
            tell("unarmed", name, halt.verdict.reason.value)
            return
        tell("armed", name, now())
        self._stretches = {**self._stretches, name: Stretch(run)}

    def work(self) -> None:
        """Check until told to end."""
        count = waited = 0
        while not self._ended:
            for stretch in self._stretches.values():
                waited += stretch.check()
                count += 1
            time.sleep(PAUSE_S)
        for stretch in self._stretches.values():
            stretch.flush()
        tell("cost", count, waited)


def main() -> None:
    """Check and tell until the orders end."""
    with KillSwitch() as switch:
        prober = Prober(switch)
        orders = threading.Thread(target=prober.obey, daemon=True)
        orders.start()
        prober.work()


if __name__ == "__main__":
    main()
