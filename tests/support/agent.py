"""An agent in a process of its own: it checks before each effect, and tells what it did, a line each.

Run as ``python -m tests.support.agent``; the address and token come from the environment. Lines are
``effect <nanoseconds of CLOCK_BOOTTIME, read before the check>`` and ``stop <reason>``, each reason once in a row.
"""

from __future__ import annotations

import sys
import time

from haltline import Halt, KillSwitch


def main() -> None:
    """Check, act, tell, until the pipe is closed."""
    last = ""
    with KillSwitch() as switch, switch.run("r-1", timeout=5) as run:
        while True:
            before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            try:
                run.check("send_email")
                told = f"effect {before}"
            except Halt as halt:
                told = f"stop {halt.verdict.reason.value}"
            if told != last:
                sys.stdout.write(f"{told}\n")
                sys.stdout.flush()
            last = told
            time.sleep(0.002)


if __name__ == "__main__":
    main()
