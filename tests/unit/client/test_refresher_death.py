"""A background thread that dies takes the lease with it, and comes back when somebody asks."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

import pytest

from haltline import KillSwitch, Unverified
from haltline.testing import FakeService
from tests.support.lines import Line, connected


@pytest.fixture
def line() -> Line:
    """Return a line to a service of the shortest ttl."""
    return Line(FakeService(ttl_ms=200))


@pytest.fixture
def switch(line: Line) -> Iterator[KillSwitch]:
    """Return a switch with a background thread."""
    with connected(line) as made:
        yield made


def refreshers() -> list[threading.Thread]:
    """Return the background threads that run."""
    return [thread for thread in threading.enumerate() if thread.name == "haltline-refresher"]


def break_thread(line: Line) -> None:
    """Have the thread die in its next exchange of an error that nobody foresaw."""
    line.broken = ZeroDivisionError("a bug in the transport")
    (thread,) = refreshers()
    thread.join(5)
    assert not thread.is_alive()
    line.broken = None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_lease_lapses_and_a_check_brings_the_thread_back(switch: KillSwitch, line: Line) -> None:
    """check() itself only kicks: it raises, and a moment later the run goes on."""
    with switch.run("r-1") as run:
        break_thread(line)
        time.sleep(0.25)
        with pytest.raises(Unverified):
            run.check()
        run.wait(timeout=2)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_ensure_brings_the_thread_back(switch: KillSwitch, line: Line) -> None:
    """Whoever waits for a lease need not have checked before."""
    with switch.run("r-1") as run:
        break_thread(line)
        time.sleep(0.25)
        run.ensure(2)
        assert len(refreshers()) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("way", ["thread", "task"])
def test_a_thread_that_dies_while_somebody_waits_is_replaced(switch: KillSwitch, line: Line, way: str) -> None:
    """Waiting looks after the thread it waits for, in asyncio too."""

    async def main() -> None:
        wait = run.async_wait(timeout=5) if way == "task" else asyncio.to_thread(run.wait, timeout=5)
        waiting = asyncio.create_task(wait)
        await asyncio.sleep(0.05)
        line.open.set()
        await asyncio.to_thread(thread.join, 5)
        line.broken = None
        await waiting

    with switch.run("r-1") as run:
        line.open.clear()
        line.broken = ZeroDivisionError("a bug in the transport")
        time.sleep(0.25)
        (thread,) = refreshers()
        asyncio.run(main())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_handler_that_interrupts_the_look_at_a_dead_thread_starts_no_second_one(
    switch: KillSwitch, line: Line
) -> None:
    """A check just as the thread was found dead leaves the start to who found it."""
    run = switch.run("r-1")
    run.arm()
    break_thread(line)
    time.sleep(0.25)
    did: list[str] = []

    def interrupt(frame: FrameType, event: str, argument: object) -> None:
        caller = frame.f_back
        if caller is None or caller.f_code.co_name != "_start":
            return
        if event == "call" and frame.f_code.co_name == "start":
            did.append("start")
        if event == "return" and frame.f_code.co_name == "is_alive" and argument is False and "check" not in did:
            did.append("check")
            with pytest.raises(Unverified):
                run.check()
            did.extend("start" for _ in refreshers())  # what the check began; nothing in here is seen by itself

    sys.setprofile(interrupt)  # calls where the interpreter would call a signal handler
    try:
        switch.ensure(2)
    finally:
        sys.setprofile(None)
    assert did == ["check", "start"]
    assert len(refreshers()) == 1


def test_only_one_thread_is_ever_started(line: Line) -> None:
    """However many threads find none running."""
    for _ in range(20):
        switch = connected(line)
        run = switch.run("r-1")
        gate = threading.Barrier(8)

        def ask() -> None:
            gate.wait()  # noqa: B023  # joined within the turn
            with pytest.raises(Unverified):
                run.check()  # noqa: B023
            switch.ensure(1)  # noqa: B023

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(refreshers()) == 1
        switch.close()
        assert refreshers() == []
