"""Cleanups in asyncio: in tasks and threads, before the error surfaces, and none holds up the next or the loop."""

# ruff: noqa: PT012 - the kill comes inside the block, and what surfaces is what leaves it

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from haltline import Killed
from haltline.cleanup import Cleanup
from haltline.testing import FakeSwitch, fake_switch

LONG_S = 30.0
"""What hangs hangs for this long; far longer than any bound of these tests."""


@pytest.fixture
def switch() -> FakeSwitch:
    """Return a switch that is renewed by whoever says so."""
    return fake_switch()


@pytest.fixture
def hung() -> Iterator[threading.Event]:
    """Return what the hanging ones wait for; they are let go when the test ends."""
    let_go = threading.Event()
    yield let_go
    let_go.set()


def kill(switch: FakeSwitch, target: str = "run:r-1") -> None:
    """Kill, and have this process hear of it."""
    switch.service.kill(target)
    switch.renew()


def brief(cleanups: tuple[Cleanup, ...]) -> list[tuple[str, str]]:
    """Return names and outcomes."""
    return [(each.name, each.outcome) for each in cleanups]


def test_an_asynchronous_cleanup(switch: FakeSwitch) -> None:
    """It runs in the event loop, a function beside it in a thread; both before the error surfaces."""
    seen: list[Any] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def close() -> None:
            await asyncio.sleep(0)
            seen.append(asyncio.get_running_loop() is loop)

        with pytest.raises(ZeroDivisionError):
            async with switch.run("r-1") as run:
                run.on_cleanup(close, name="coroutine")
                run.on_cleanup(lambda: close(), name="lambda")  # noqa: PLW0108 - what returns a coroutine is awaited
                run.on_cleanup(lambda: seen.append(threading.current_thread().name), name="thread")
                _ = 1 / 0
        assert brief(run.cleanups) == [("thread", "done"), ("lambda", "done"), ("coroutine", "done")]

    asyncio.run(main())
    assert seen == ["haltline-cleanup", True, True]


def test_an_asynchronous_cleanup_of_a_plain_block(switch: FakeSwitch) -> None:
    """Where no event loop runs, it gets one."""
    seen: list[str] = []

    async def close() -> None:
        await asyncio.sleep(0)
        seen.append("closed")

    with switch.run("r-1") as run:
        run.on_cleanup(close)
    assert seen == ["closed"]
    assert run.cleanups[0].outcome == "done"


@pytest.mark.parametrize("error", [ValueError("a defect"), SystemExit("a defect"), KeyboardInterrupt()])
def test_an_asynchronous_one_that_raises(switch: FakeSwitch, error: BaseException) -> None:
    """It ends neither the loop nor the others."""
    seen: list[str] = []

    async def broken() -> None:
        raise error

    def also_broken() -> None:
        raise error

    async def main() -> None:
        async with switch.run("r-1") as run:
            run.on_cleanup(lambda: seen.append("next"))
            run.on_cleanup(broken)
            run.on_cleanup(also_broken)
        assert [each.outcome for each in run.cleanups] == ["failed", "failed", "done"]

    asyncio.run(main())
    assert seen == ["next"]


def test_an_asynchronous_one_that_hangs(switch: FakeSwitch, hung: threading.Event) -> None:
    """A task or a thread is left behind, and neither keeps the loop from ending."""
    seen: list[str] = []

    async def hang() -> None:
        try:
            await asyncio.sleep(LONG_S)
        except asyncio.CancelledError:
            seen.append("cancelled with the loop")
            raise

    async def main() -> None:
        async with switch.run("r-1") as run:
            run.on_cleanup(lambda: seen.append("next"), name="next")
            run.on_cleanup(hang, timeout=0.1, name="task")
            run.on_cleanup(lambda: hung.wait(LONG_S), timeout=0.1, name="thread")
        assert brief(run.cleanups) == [("thread", "timed_out"), ("task", "timed_out"), ("next", "done")]
        assert seen == ["next"]

    begun = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - begun < LONG_S / 2
    assert seen == ["next", "cancelled with the loop"]


def test_an_aborted_task_cleans_up_before_killed_surfaces(switch: FakeSwitch) -> None:
    """``finally``, then the cleanups, then Killed; and no cancellation is left over."""
    seen: list[str] = []

    async def close() -> None:
        await asyncio.sleep(0.01)
        seen.append("cleanup")

    async def work() -> None:
        async with switch.run("r-1") as run:
            run.on_cleanup(close)
            async with run.abortable():
                asyncio.get_running_loop().call_later(0.01, kill, switch)
                try:
                    await asyncio.sleep(LONG_S)
                finally:
                    await asyncio.sleep(0.01)
                    seen.append("finally")

    async def main() -> None:
        with pytest.raises(Killed):
            await work()
        seen.append("surfaced")
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    asyncio.run(main())
    assert seen == ["finally", "cleanup", "surfaced"]


def test_a_cancellation_waits_for_the_cleanups(switch: FakeSwitch) -> None:
    """Who cancels a task that cleans up is heeded afterwards."""
    seen: list[str] = []

    async def main() -> None:
        begun = asyncio.Event()

        async def close() -> None:
            begun.set()
            await asyncio.sleep(0.05)
            seen.append("closed")

        async def work() -> None:
            async with switch.run("r-1") as run:
                run.on_cleanup(lambda: seen.append("next"))
                run.on_cleanup(close)

        task = asyncio.create_task(work())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert seen == ["closed", "next"]
