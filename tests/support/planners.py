"""Processes of planned work: ``python -m tests.support.planners plan|work <sink port>``; stdin ends them.

``plan`` prints a JSON object of stamps by run, and keeps timers and retries of its own that fall due later. ``work``
reads a stamp a line, carries it out, and prints what came of it. Effects are lines to the sink: ``<run> <kind>``.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
from functools import partial
from typing import Final

from haltline import CapabilityFrozen, Halt, KillSwitch, Run, StampRefused, current_run

COUNT: Final = 100
DUE_S: Final = 8.0
"""When timers and retries of the planner fall due, seconds: by then the kill is effective."""


class Sink:
    """Takes effects, over one connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._lock = threading.Lock()

    def effect(self, run: str, kind: str) -> None:
        """Have an effect."""
        with self._lock:
            self._socket.sendall(f"{run} {kind}\n".encode())


class Failing:
    """Fails once, and then has an effect."""

    def __init__(self, sink: Sink, work: Run) -> None:
        self._sink = sink
        self._work = work
        self._failed = False

    async def __call__(self) -> None:
        """Fail or act."""
        if not self._failed:
            self._failed = True
            raise OSError("not now")
        async with self._work.effect("send_email"):
            self._sink.effect(self._work.id, "retry")


def fire(sink: Sink) -> None:
    """Act, as a timer does."""
    run = current_run()
    with run.effect("send_email"):
        sink.effect(run.id, "timer")


async def retry(sink: Sink, switch: KillSwitch, stamp: str) -> None:
    """Carry out work that fails at first."""
    try:
        async with await switch.aredeem(stamp, timeout=10) as work:
            again = work.retrying(on=OSError, wait_initial=DUE_S, wait_max=DUE_S, wait_jitter=0.5)
            await again.acall(Failing(sink, work))
    except (Halt, StampRefused, CapabilityFrozen):
        pass  # stopped: that is what is counted


async def plan(sink: Sink, switch: KillSwitch) -> None:
    """Plan for two runs, and keep what is due later here."""
    stamps: dict[str, list[str]] = {}
    tasks: list[asyncio.Task[None]] = []
    for name in ("r-1", "r-2"):
        with switch.run(name, tenant="acme" if name == "r-1" else "umbrella", timeout=10) as run:
            stamps[name] = [run.plan("send_email") for _ in range(COUNT)]
            for stamp in stamps[name]:
                run.call_later(DUE_S, partial(fire, sink), capability="send_email")
                tasks.append(asyncio.create_task(retry(sink, switch, stamp)))
    await asyncio.sleep(0.5)
    sys.stdout.write(json.dumps(stamps) + "\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await asyncio.gather(*tasks)


def work(sink: Sink, switch: KillSwitch) -> None:
    """Carry out what comes, a stamp a line."""
    for line in sys.stdin:
        try:
            with switch.redeem(line.strip(), timeout=10) as done, done.effect("send_email"):
                sink.effect(done.id, "stamp")
            told = "done"
        except StampRefused as refused:
            told = refused.reason.value
        except Halt as halt:
            told = halt.verdict.reason.value
        sys.stdout.write(told + "\n")
        sys.stdout.flush()


def main() -> None:
    """Be one of them."""
    what, port = sys.argv[1:]
    sink = Sink(int(port))
    with KillSwitch() as switch:
        if what == "plan":
            asyncio.run(plan(sink, switch))
        else:
            work(sink, switch)


if __name__ == "__main__":
    main()
