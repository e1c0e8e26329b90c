"""What the workers of a process pool do in the tests of haltline.carry: functions of a module, so that they pickle."""

from __future__ import annotations

import os
import threading
import time

import haltline
from haltline import KillSwitch, current_run


def switch_of_the_test() -> KillSwitch:
    """Return a switch for a worker process, from other variables than the usual ones."""
    return KillSwitch(os.environ["TEST_URL"], token=os.environ["TEST_TOKEN"])


def where(number: int) -> tuple[int, str, int | None, int]:
    """Return the number, which run is current, armed where, and how many threads renew leases in this process."""
    run = current_run()
    run.check("send_email")
    threads = sum(each.name == "haltline-refresher" for each in threading.enumerate())
    return number, run.id, run.armed_seq, threads


def until_stopped() -> str:
    """Work until the run is stopped."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        haltline.check("send_email")
        time.sleep(0.01)
    return "never stopped"
