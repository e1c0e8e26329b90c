"""Forked and spawned children of a process that holds a lease; one case a run: ``python -m tests.support.forking``.

The address and token come from the environment, the case and a count from the arguments. It prints one JSON object.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, Final, Protocol

import haltline
from haltline import Halt, KillSwitch, Run
from haltline.clocks import Clocks
from haltline.switch import Driver
from haltline.testing import FakeService, fake_switch
from tests.support.lines import Held, Line

JOSTLER: Final = "jostler"


class Sink(Protocol):
    """Where a child puts what it saw."""

    def put(self, what: dict[str, Any], /) -> None:
        """Take it."""


def seen(run: Run) -> dict[str, Any]:
    """Return what a forked child sees: at once, and after asking for a lease of its own."""
    told: dict[str, Any] = {"at_once": reason(run), "current": haltline.current_run() is run}
    begun = time.monotonic()
    run.ensure(1)
    run.check("send_email")
    return {**told, "after": "go", "took": time.monotonic() - begun}


def reason(run: Run) -> str:
    """Return what a check says."""
    try:
        run.check("send_email")
    except Halt as halt:
        return halt.verdict.reason.value
    return "go"


def forked(run: Run, tell: Callable[[Run], dict[str, Any]] = seen) -> dict[str, Any]:
    """Return what a child made by os.fork tells."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, json.dumps(tell(run)).encode())
        except BaseException:  # noqa: BLE001 - a child must never return into its parent's code
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    whole: dict[str, Any] = json.loads(told or '{"after": "nothing was told"}')
    return whole


def inherit(run: Run, sink: Sink) -> None:
    """Tell what a child of multiprocessing's fork sees."""
    sink.put(seen(run))


def fresh(sink: Sink) -> None:
    """Tell what a child sees that inherits nothing: it has no current run, and makes a switch of its own."""
    try:
        haltline.check()
        at_once = "go"
    except Halt as halt:
        at_once = halt.verdict.reason.value
    begun = time.monotonic()
    with KillSwitch() as switch, switch.run("r-1") as run:
        run.check("send_email")
        sink.put({"at_once": at_once, "after": "go", "took": time.monotonic() - begun})


def multiprocessed(method: str, run: Run) -> dict[str, Any]:
    """Return what a child of multiprocessing sees."""
    multiprocessing.set_start_method(method)
    sink: multiprocessing.SimpleQueue[dict[str, Any]] = multiprocessing.SimpleQueue()
    if method == "fork":
        child = multiprocessing.Process(target=inherit, args=(run, sink))
    else:
        child = multiprocessing.Process(target=fresh, args=(sink,))
    child.start()
    child.join(20)
    if sink.empty():
        return {"after": "nothing was told"}
    told: dict[str, Any] = sink.get()
    return told


def slow_for_jostlers(clock: int) -> float:
    """Read a clock, slowly where a jostling thread reads it: one of its four readings is made under the lock."""
    if threading.current_thread().name == JOSTLER:
        end = time.monotonic() + 0.0001
        while time.monotonic() < end:
            pass
    return time.clock_gettime(clock)


def many(run: Run, count: int) -> dict[str, Any]:
    """Fork again and again while the refresher renews and other threads hold its lock as often as they can."""
    stop = threading.Event()

    def jostle() -> None:
        while not stop.is_set():
            try:
                run.wait("frozen_tool", timeout=0.002)
            except haltline.CapabilityFrozen:
                continue

    sys.setswitchinterval(1e-6)  # so that a fork often falls into the moment in which another thread holds a lock
    threads = [threading.Thread(target=jostle, name=JOSTLER) for _ in range(3)]
    for thread in threads:
        thread.start()
    children = [forked(run) for _ in range(count)]
    stop.set()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(0.005)
    return {
        "passed_at_once": sum(child.get("at_once") == "go" for child in children),
        "live": sum(child.get("after") == "go" for child in children),
        "took": max(child.get("took", 99) for child in children),
        "after": "go",
    }


def killed() -> dict[str, Any]:
    """Return what the child of a killed run sees, with no service in reach."""
    with fake_switch(background=True) as switch, switch.run("r-1") as run:
        switch.service.kill("run:r-1")
        switch.service.down()
        return forked(run, lambda run: {"at_once": reason(run)})


class Recorder(Line):
    """A line that remembers who asked last."""

    asker: tuple[str, str] = ("", "")

    def stream(self, path: str, body: bytes, *, deadline_s: float) -> Held:
        """Return the service's stream."""
        asked = json.loads(body)
        self.asker = (asked["worker"], asked["instance"])
        return super().stream(path, body, deadline_s=deadline_s)


def identity() -> dict[str, Any]:
    """Return as whom a process and its child ask, and the child's process id."""
    line = Recorder(FakeService())
    token = line.service.token
    driver = Driver(connect=lambda: line)
    with KillSwitch("https://fake.invalid", token=token, driver=driver) as switch, switch.run("r-1") as run:
        parent = line.asker

        def tell(run: Run) -> dict[str, Any]:
            run.ensure(1)
            return {"child": line.asker, "pid": os.getpid()}

        return {"parent": parent, **forked(run, tell)}


def main() -> None:
    """Run one case, and tell whether the parent was ever disturbed."""
    case, count = sys.argv[1], int(sys.argv[2])
    alone = {"killed": killed, "identity": identity}
    if case in alone:
        sys.stdout.write(json.dumps(alone[case]()))
        return
    stopped = 0
    done = threading.Event()
    clocks = Clocks(gettime=slow_for_jostlers) if case == "many" else Clocks()
    with KillSwitch(driver=Driver(clocks)) as switch, switch.run("r-1", timeout=5) as run:

        def work() -> None:
            nonlocal stopped
            while not done.wait(0.002):
                stopped += reason(run) != "go"

        worker = threading.Thread(target=work)
        worker.start()
        if case == "os.fork":
            told = forked(run)
        elif case == "many":
            told = many(run, count)
        else:
            told = multiprocessed(case, run)
        done.set()
        worker.join()
        told["parent_stopped"] = stopped
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
