"""Waiting for a lease: many share one exchange, it ends on go or on a kill, and closing ends it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from haltline import Killed, KillSwitch, Reason, Stop, Unverified
from haltline.switch import Driver
from haltline.testing import FakeService, fake_switch, killed
from tests.support.lines import Line, connected, quiet


@pytest.fixture
def service() -> FakeService:
    """Return a service with the longest ttl, so that no renewal comes by itself during a test."""
    return FakeService(ttl_ms=5000)


@pytest.fixture
def line(service: FakeService) -> Line:
    """Return a line to it."""
    return Line(service)


@pytest.fixture
def switch(line: Line) -> Iterator[KillSwitch]:
    """Return a switch with its background thread on the machine's clocks."""
    with connected(line) as made:
        yield made
        line.open.set()


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition of another thread holds; fail after 5 s."""
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end, "it did not happen within 5 s"
        time.sleep(0.001)


def test_a_hundred_callers_share_one_exchange(switch: KillSwitch, line: Line) -> None:
    """ensure() is single-flight."""
    line.open.clear()
    gate = threading.Barrier(101)

    def ensure() -> bool:
        gate.wait()
        return switch.ensure(5)

    with ThreadPoolExecutor(100) as pool:
        callers = [pool.submit(ensure) for _ in range(100)]
        gate.wait()
        until(lambda: line.asked == 1)
        time.sleep(0.05)
        line.open.set()
        assert all(caller.result() for caller in callers)
    time.sleep(0.1)
    assert (line.asked, line.interrupted) == (1, 0)


def test_a_hundred_tasks_share_one_exchange(switch: KillSwitch, line: Line) -> None:
    """So is aensure(), and the event loop goes on meanwhile."""
    line.open.clear()

    async def main() -> None:
        runs = [switch.run(f"r-{number}") for number in range(100)]
        tasks = [asyncio.create_task(run.aarm(5)) for run in runs]
        for _ in range(5):
            await asyncio.sleep(0.01)
        line.open.set()
        await asyncio.gather(*tasks)
        for run in runs:
            await run.aensure()

    asyncio.run(main())
    time.sleep(0.1)
    assert line.asked == 1


def test_ensure_joins_the_next_exchange_that_may_begin(switch: KillSwitch, line: Line, service: FakeService) -> None:
    """In the middle of an outage's pauses it waits for the next exchange, which is never more than a second away."""
    service.down()
    for _ in range(8):
        assert not switch.ensure(0.03)
    service.up()
    begun = time.monotonic()
    assert switch.ensure(5)
    assert time.monotonic() - begun < 2


def test_ensure_in_a_tight_loop_keeps_to_the_pauses(service: FakeService, line: Line) -> None:
    """Called every millisecond for ten seconds of an outage, it asks as seldom as if nobody had called it."""
    clock = service.clock
    driver = Driver(clock.clocks, connect=lambda: line, background=False)
    with KillSwitch("https://fake.invalid", token=service.token, driver=driver) as switch:
        service.down()
        for _ in range(1_000):  # the clock stands still: no pause is over
            assert not switch.ensure()
        assert line.asked == 1
        asked = []
        for millisecond in range(10_000):
            before = line.asked
            assert not switch.ensure()
            asked += [millisecond] * (line.asked - before)
            clock.advance(0.001)
        pauses = [after - before for before, after in pairwise(asked)]
        assert min(pauses) >= 50
        assert max(pauses) > 200, "they grow, to a second at most"
        service.up()
        clock.advance(1)
        assert switch.ensure()


def test_ensure_never_hammers_a_service_that_is_down(switch: KillSwitch, line: Line, service: FakeService) -> None:
    """However many impatient callers there are, no two requests are closer than the shortest pause, 50 ms."""
    service.down()
    begun = time.monotonic()

    def impatient() -> None:
        for _ in range(20):
            switch.ensure(0.02)

    with ThreadPoolExecutor(50) as pool:
        for _ in range(50):
            pool.submit(impatient)
    assert 1 < line.asked <= 2 + (time.monotonic() - begun) / 0.05


def test_ensure_ends_in_time(switch: KillSwitch, line: Line) -> None:
    """While the exchange hangs, whoever waits for it gives up when its own time is up."""
    line.open.clear()
    begun = time.monotonic()
    assert not switch.ensure(0.1)
    assert 0.09 < time.monotonic() - begun < 1


def test_wait_returns_when_the_service_is_back(switch: KillSwitch, service: FakeService) -> None:
    """A run that was stopped by an outage goes on by itself."""
    service.down()
    run = switch.run("r-1", timeout=0.02)
    with pytest.raises(Unverified):
        run.arm()
    threading.Timer(0.1, service.up).start()
    run.arm(5)
    run.wait(timeout=5)


def test_wait_raises_killed_when_the_kill_comes() -> None:
    """Also where it waits for a frozen capability: nothing better can come."""
    switch = fake_switch(background=True, ttl_ms=200)
    with switch, switch.run("r-1") as run, killed(switch, "capability:send_email"):
        threading.Timer(0.1, switch.service.kill, ("run:r-1",)).start()
        with pytest.raises(Killed):
            run.wait("send_email", timeout=5)


def test_async_wait_returns_when_the_capability_is_revived() -> None:
    """And raises Killed when a kill comes."""
    switch = fake_switch(background=True, ttl_ms=200)

    async def main() -> None:
        async with switch.run("r-1") as run:
            hold = switch.service.kill("capability:send_email")
            waiting = asyncio.create_task(run.async_wait("send_email", timeout=5))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            await asyncio.to_thread(switch.service.revive, "capability:send_email", holds=[hold.seq])
            await waiting
            switch.service.kill("capability:send_email")
            waiting = asyncio.create_task(run.async_wait("send_email"))
            await asyncio.to_thread(switch.service.kill, "run:r-1")
            with pytest.raises(Killed):
                await waiting

    with switch:
        asyncio.run(main())


def test_async_waiting_ends_in_time(switch: KillSwitch, line: Line) -> None:
    """aensure() gives up when its time is up, and stays cancellable."""
    line.open.clear()

    async def main() -> None:
        run = switch.run("r-1")
        with pytest.raises(Unverified):
            await run.aarm(0.05)
        task = asyncio.create_task(run.aarm(60))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_closing_stops_every_run(switch: KillSwitch, line: Line) -> None:
    """For good: no renewal brings it back, and the thread and its connection are gone."""
    with switch.run("r-1") as run:
        switch.close()
        for call in (run.check, run.ensure, run.wait):
            with pytest.raises(Unverified) as caught:
                call()
            assert caught.value.verdict.reason is Reason.CLOSED
    assert not switch.ensure(0.05)
    assert line.closed >= 1
    assert not [thread for thread in threading.enumerate() if thread.name == "haltline-refresher"]


def test_closing_ends_what_waits(switch: KillSwitch, line: Line, service: FakeService) -> None:
    """In threads and in tasks, however long they would have waited."""
    service.kill("capability:send_email")
    run = switch.run("r-1")
    run.arm()

    async def main() -> None:
        async_waiting = asyncio.create_task(run.async_wait("send_email"))
        waiting = asyncio.create_task(asyncio.to_thread(run.wait, "send_email"))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(switch.close)
        for task in (async_waiting, waiting):
            with pytest.raises(Unverified):
                await asyncio.wait_for(task, 2)

    asyncio.run(main())


def test_closing_a_switch_without_a_thread_gives_its_connection_back(line: Line) -> None:
    """Also where nothing ran in the background."""
    switch = quiet(line)
    switch.ensure()
    switch.close()
    assert line.closed == 1


def test_a_renewal_that_comes_after_closing_is_not_published(switch: KillSwitch, line: Line) -> None:
    """The reply that was under way when the switch was closed grants nothing."""
    line.open.clear()
    asking = threading.Thread(target=switch.ensure, args=(5,))
    asking.start()
    until(lambda: line.asked == 1)
    closing = threading.Thread(target=switch.close)
    closing.start()
    until(lambda: switch.trouble is not None and switch.trouble.reason is Reason.CLOSED)
    line.open.set()
    closing.join()
    asking.join()
    assert not switch.live


def test_a_switch_tells_how_it_stands(switch: KillSwitch, service: FakeService) -> None:
    """live, position and trouble, for health checks."""
    assert switch.trouble is not None
    assert switch.trouble.reason is Reason.NOT_READY
    assert switch.ensure()
    assert switch.live
    assert switch.position == service.position
    stopped: Stop | None = switch.trouble
    assert stopped is None


def test_a_run_may_be_entered_right_after_its_revive(switch: KillSwitch, service: FakeService) -> None:
    """Where the path is killed as far as the process knows, entering asks once more before it refuses."""
    service.kill("run:r-1")
    assert switch.ensure(5)
    service.revive("run:r-1")
    with switch.run("r-1", timeout=2) as run:
        run.check("send_email")


def test_a_run_may_be_entered_right_after_its_revive_in_asyncio(switch: KillSwitch, service: FakeService) -> None:
    """The same with ``async with``; and what is still killed is refused."""
    service.kill("run:r-1")
    assert switch.ensure(5)

    async def enter() -> None:
        async with switch.run("r-1", timeout=2) as run:
            run.check("send_email")

    with pytest.raises(Killed):
        asyncio.run(enter())
    service.revive("run:r-1")
    asyncio.run(enter())
