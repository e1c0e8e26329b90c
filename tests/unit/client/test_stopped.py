"""RunStopped: at the boundary a stop is a value, neither an error nor a success."""

from __future__ import annotations

import asyncio
import dataclasses
import pickle
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from haltline import Halt, Killed, Run, RunStopped, Unverified
from haltline.testing import FakeSwitch, fake_switch


@pytest.fixture
def switch() -> FakeSwitch:
    """Return a switch that is renewed by whoever says so."""
    return fake_switch()


def plainly(run: Run, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Carry out a run in a thread."""
    return run.carry_out(function, *args, **kwargs)


def in_asyncio(run: Run, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Carry out a run in a task."""

    async def call(*args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0)
        return function(*args, **kwargs)

    return asyncio.run(_awaited(run.acarry_out(call, *args, **kwargs)))


async def _awaited(what: Awaitable[Any]) -> Any:
    return await what


@pytest.fixture(params=[plainly, in_asyncio])
def carry_out(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Return how a run is carried out: once in a thread, once in a task."""
    way: Callable[..., Any] = request.param
    return way


def kill(switch: FakeSwitch, target: str = "run:r-1") -> None:
    """Kill, and have this process hear of it."""
    switch.service.kill(target, reason="wrong list")
    switch.renew()


def test_a_result_passes(switch: FakeSwitch, carry_out: Callable[..., Any]) -> None:
    """With the arguments as they were given; what is false is a result all the same."""
    assert carry_out(switch.run("r-1"), lambda *args, **kwargs: (args, kwargs), 1, b=2) == ((1,), {"b": 2})
    assert carry_out(switch.run("r-1"), lambda: None) is None


def test_an_error_passes(switch: FakeSwitch, carry_out: Callable[..., Any]) -> None:
    """It is no stop, also of a run that is killed meanwhile."""

    def broken() -> None:
        kill(switch)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        carry_out(switch.run("r-1"), broken)


def test_a_stop_is_a_value(switch: FakeSwitch, carry_out: Callable[..., Any]) -> None:
    """It says which run, why, and what became of its cleanups; it is false."""
    run = switch.run("r-1", tenant="acme")

    def work() -> None:
        run.on_cleanup(print, name="print")
        kill(switch, "tenant:acme")
        run.check()

    stopped = carry_out(run, work)
    assert isinstance(stopped, RunStopped)
    assert not stopped
    assert (stopped.status, stopped.run, stopped.lineage.tenant) == ("stopped", "r-1", "acme")
    assert stopped.verdict.holds[0].reason == "wrong list"
    assert isinstance(stopped.halt, Killed)
    assert [(each.name, each.outcome) for each in stopped.cleanups] == [("print", "done")]
    with pytest.raises(dataclasses.FrozenInstanceError):
        stopped.run = "r-2"  # type: ignore[misc]
    again = pickle.loads(pickle.dumps(stopped))  # noqa: S301 - made here
    assert (again.run, again.verdict, again.cleanups, again.halt.run) == (
        "r-1",
        stopped.verdict,
        stopped.cleanups,
        "r-1",
    )


def test_a_run_that_may_not_begin(switch: FakeSwitch, carry_out: Callable[..., Any]) -> None:
    """It is stopped, and nothing was called."""
    kill(switch)
    called: list[int] = []
    stopped = carry_out(switch.run("r-1"), called.append, 1)
    assert isinstance(stopped, RunStopped)
    assert called == []


def test_not_knowing_is_a_stop(switch: FakeSwitch, carry_out: Callable[..., Any]) -> None:
    """Unverified comes back as well, and says so."""
    run = switch.run("r-1")

    def work() -> None:
        switch.clock.advance(10)
        run.check()

    stopped = carry_out(run, work)
    assert isinstance(stopped, RunStopped)
    assert isinstance(stopped.halt, Unverified)


def test_the_halt_of_another_run_is_raised(switch: FakeSwitch, carry_out: Callable[..., Any]) -> None:
    """A child that was killed alone has not stopped its parent: the parent has to say what that means."""
    run = switch.run("r-1")

    def work() -> None:
        with run.child("search") as child:
            kill(switch, "run:r-1.search")
            child.check()

    with pytest.raises(Killed, match=r"run r-1\.search"):
        carry_out(run, work)


def test_what_stops_a_child_with_its_parent_stops_the_parent(switch: FakeSwitch, carry_out: Callable[..., Any]) -> None:
    """Also if it is the child's Halt that surfaces."""
    run = switch.run("r-1")

    def work() -> None:
        with run.child("search") as child:
            kill(switch)
            child.check()

    stopped = carry_out(run, work)
    assert isinstance(stopped, RunStopped)
    assert (stopped.run, stopped.halt.run) == ("r-1", "r-1.search")


def test_a_group_of_halts(switch: FakeSwitch) -> None:
    """What a task group raises is a stop if all of it is; with an error in it, it is one."""
    run, other = switch.run("r-1"), switch.run("r-2")

    async def part(error: bool) -> None:  # noqa: FBT001
        await asyncio.sleep(0)
        kill(switch)
        if error:
            raise ZeroDivisionError
        run.check()

    async def work(*errors: bool) -> None:
        async with asyncio.TaskGroup() as group:
            for error in errors:
                group.create_task(part(error))

    assert isinstance(asyncio.run(_awaited(run.acarry_out(work, False, False))), RunStopped)  # noqa: FBT003

    async def mixed() -> None:
        raise BaseExceptionGroup("both", [Killed("stopped", verdict=run.halted, run="r-2"), ZeroDivisionError()])  # type: ignore[arg-type]

    with pytest.raises(BaseExceptionGroup):
        asyncio.run(_awaited(other.acarry_out(mixed)))


def test_a_cancellation_passes(switch: FakeSwitch) -> None:
    """It is somebody else's."""

    async def main() -> None:
        task = asyncio.create_task(_awaited(switch.run("r-1").acarry_out(asyncio.sleep, 60)))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_an_aborted_task_is_stopped(switch: FakeSwitch) -> None:
    """What a kill has cancelled comes back as a stop."""
    run = switch.run("r-1")

    async def work() -> None:
        async with run.abortable():
            asyncio.get_running_loop().call_later(0.01, kill, switch)
            await asyncio.sleep(60)

    stopped = asyncio.run(_awaited(run.acarry_out(work)))
    assert isinstance(stopped, RunStopped)
    assert isinstance(stopped.halt, Halt)


def test_an_asynchronous_function_is_not_carried_out_plainly(switch: FakeSwitch) -> None:
    """It would be awaited outside the run."""

    async def work() -> None:
        raise AssertionError("it happened")

    with pytest.raises(TypeError, match="acarry_out"):
        switch.run("r-1").carry_out(work)
