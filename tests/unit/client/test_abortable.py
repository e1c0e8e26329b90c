"""Calls in flight: what a kill ends, what it lets finish, and how that surfaces."""

# ruff: noqa: PT012 - the kill comes inside the block, and what surfaces is what leaves it

from __future__ import annotations

import asyncio
import os
import threading
import time

import pytest

from haltline import CapabilityFrozen, Killed, Unverified
from haltline.aborting import HANG_S
from haltline.flips import InFlight
from haltline.run import Run
from haltline.testing import FakeSwitch, fake_switch


@pytest.fixture
def switch() -> FakeSwitch:
    """Return a switch that is renewed by whoever says so."""
    return fake_switch()


def kill(switch: FakeSwitch, target: str = "run:r-1", in_flight: InFlight = "abort") -> None:
    """Kill, and have this process hear of it."""
    switch.service.kill(target, in_flight=in_flight)
    switch.renew()


async def long(run: Run, switch: FakeSwitch, seen: list[str], *, in_flight: InFlight = "abort") -> None:
    """Await something long in a call that is killed meanwhile."""
    async with run.abortable():
        asyncio.get_running_loop().call_later(0.01, kill, switch, "run:r-1", in_flight)
        try:
            await asyncio.sleep(0.1 if in_flight == "finish" else 60)
            seen.append("finished")
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        finally:
            seen.append("cleaned")


def test_a_task_is_cancelled(switch: FakeSwitch) -> None:
    """An abort cancels the task; its cleanup runs first, and what surfaces is Killed and no cancellation."""
    seen: list[str] = []

    async def main() -> None:
        async with switch.run("r-1") as run:
            with pytest.raises(Killed, match="run r-1 is stopped") as caught:
                await long(run, switch, seen)
            assert isinstance(caught.value.__cause__, asyncio.CancelledError)
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            await asyncio.sleep(0)

    asyncio.run(main())
    assert seen == ["cancelled", "cleaned"]


def test_what_may_finish_does(switch: FakeSwitch) -> None:
    """Under ``finish`` the call ends by itself, and the next check stops the run."""
    seen: list[str] = []

    async def main() -> None:
        async with switch.run("r-1") as run:
            await long(run, switch, seen, in_flight="finish")
            with pytest.raises(Killed):
                run.check()

    asyncio.run(main())
    assert seen == ["finished", "cleaned"]


def test_nested_calls_end_once(switch: FakeSwitch) -> None:
    """Of two blocks, one in the other, each is left in order, and one error surfaces."""

    async def main() -> None:
        async with switch.run("r-1") as run:
            with pytest.raises(Killed):
                async with run.abortable(), run.effect("send_email"):
                    asyncio.get_running_loop().call_soon(kill, switch)
                    await asyncio.sleep(60)
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0

    asyncio.run(main())


def test_a_group_of_tasks_is_ended(switch: FakeSwitch) -> None:
    """What a call has fanned out in a task group, or gathered, is cancelled with it."""
    ended: list[str] = []

    async def part(name: str) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(name)

    async def main() -> None:
        async with switch.run("r-1") as run:
            with pytest.raises(Killed):
                async with run.abortable(), asyncio.TaskGroup() as group:
                    group.create_task(part("a"))
                    group.create_task(part("b"))
                    asyncio.get_running_loop().call_soon(kill, switch)
        async with switch.run("r-2") as run:
            with pytest.raises(Killed):
                async with run.abortable():
                    asyncio.get_running_loop().call_soon(kill, switch, "run:r-2")
                    await asyncio.gather(part("c"), part("d"))

    asyncio.run(main())
    assert sorted(ended) == ["a", "b", "c", "d"]


def test_somebody_elses_cancellation_stays_one(switch: FakeSwitch) -> None:
    """A task that others cancel as well surfaces their cancellation."""

    async def main() -> None:
        async with switch.run("r-1") as run:

            async def work() -> None:
                async with run.abortable():
                    await asyncio.sleep(60)

            task = asyncio.create_task(work())
            await asyncio.sleep(0)
            kill(switch)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())


def test_a_call_that_has_ended_is_not_cancelled(switch: FakeSwitch) -> None:
    """A kill that comes as the call ends by itself cancels nothing that follows."""

    async def main() -> None:
        async with switch.run("r-1") as run:
            async with run.abortable():
                kill(switch)  # its cancellation is on its way, and the block ends without waiting
            await asyncio.sleep(0.01)
            with pytest.raises(Killed):
                run.check()

    asyncio.run(main())


def test_a_thread_is_told(switch: FakeSwitch) -> None:
    """In a thread the callbacks are called, once, and what breaks of it surfaces as the kill."""
    called: list[int] = []
    with switch.run("r-1") as run:
        ended = threading.Event()
        with pytest.raises(Killed) as caught, run.abortable() as call:
            call.on_abort(lambda: called.append(1))
            forget = call.on_abort(lambda: called.append(2))
            forget()
            call.on_abort(ended.set)
            assert not call.aborted
            kill(switch)
            switch.renew()
            assert ended.wait(10)
            assert call.aborted
            raise ConnectionError("closed")
        assert isinstance(caught.value.__cause__, ConnectionError)
        deadline = time.monotonic() + 10
        while not called and time.monotonic() < deadline:
            time.sleep(0.005)
        assert called == [1]
        with pytest.raises(Killed), run.abortable():
            pass
    assert len(run.calls) == 0


def test_a_late_callback_is_called_at_once(switch: FakeSwitch) -> None:
    """A callback that is given after the kill is called, too."""
    with switch.run("r-1") as run:
        called = threading.Event()
        with run.abortable() as call:
            kill(switch)
            call.on_abort(called.set)
            assert called.wait(10)


def test_callbacks_that_raise_or_hang(switch: FakeSwitch, caplog: pytest.LogCaptureFixture) -> None:
    """One that raises is logged, one that hangs is left alone: the others are called, and the lease goes on."""
    let_go, called = threading.Event(), threading.Event()

    def broken() -> None:
        raise SystemExit("a defect")

    with switch.run("r-1") as run, run.abortable() as call, run.abortable() as other:
        call.on_abort(lambda: let_go.wait(30))
        call.on_abort(broken)
        other.on_abort(called.set)
        kill(switch)
        deadline = time.monotonic() + 20 * HANG_S
        while not called.is_set() and time.monotonic() < deadline:
            switch.renew()
            time.sleep(0.02)
        assert called.is_set()
        assert not let_go.is_set()
        let_go.set()
    assert "an abort callback failed" in caplog.text


def test_a_frozen_capability_ends_its_calls_only(switch: FakeSwitch) -> None:
    """Freezing a tool ends its calls, and surfaces as that; calls of others go on."""

    async def main() -> None:
        async with switch.run("r-1") as run:
            async with run.abortable("read_mail"):
                with pytest.raises(CapabilityFrozen):
                    async with run.effect("send_email"):
                        asyncio.get_running_loop().call_soon(kill, switch, "capability:send_email")
                        await asyncio.sleep(60)
                await asyncio.sleep(0.01)
            run.check("read_mail")

    asyncio.run(main())


def test_a_blip_ends_calls(switch: FakeSwitch) -> None:
    """A kill that was revived before this process heard of it ends calls in flight."""
    blind = switch.service.switch(follow=False)

    async def main() -> None:
        async with blind.run("r-1") as run:
            with pytest.raises(Killed):
                async with run.abortable():
                    switch.service.kill("run:r-1", in_flight="finish")
                    switch.service.revive("run:r-1")
                    blind.renew()
                    await asyncio.sleep(60)

    asyncio.run(main())


def test_a_second_kill_may_abort_what_the_first_let_finish(switch: FakeSwitch) -> None:
    """A run that was halted gently can still be ended at once."""

    async def main() -> None:
        async with switch.run("r-1") as run:
            with pytest.raises(Killed):
                async with run.abortable():
                    kill(switch, in_flight="finish")
                    await asyncio.sleep(0.01)
                    kill(switch, "global")
                    await asyncio.sleep(60)

    asyncio.run(main())


def test_a_lapsed_lease_ends_no_call(switch: FakeSwitch) -> None:
    """Not knowing is no kill: a call in flight goes on, the next one is refused."""

    async def main() -> None:
        async with switch.run("r-1") as run:
            async with run.abortable():
                switch.clock.advance(10)
                await asyncio.sleep(0.01)
            with pytest.raises(Unverified):
                async with run.effect("send_email"):
                    pass

    asyncio.run(main())


def test_an_effect_asks_first(switch: FakeSwitch) -> None:
    """An effect is refused where a check is, in either form, with or without a key."""
    with switch.run("r-1") as run:
        with run.effect("send_email", key="order-17") as effect:
            assert (effect.capability, effect.key, effect.aborted) == ("send_email", "order-17", False)
        kill(switch)
        with pytest.raises(Killed), run.effect("send_email"):
            raise AssertionError("it happened")

        async def main() -> None:
            async with run.effect("send_email"):
                raise AssertionError("it happened")

        with pytest.raises(Killed):
            asyncio.run(main())


@pytest.mark.parametrize("key", ["", "a b", "ä", "x" * 256, 7, "a\n"])
def test_keys(switch: FakeSwitch, key: str) -> None:
    """A key that is none is refused before anything is asked."""
    with switch.run("r-1") as run, pytest.raises(ValueError, match="an idempotency key is"):
        run.effect("send_email", key=key)


def test_a_forked_child_leaves_its_parents_calls_alone(switch: FakeSwitch) -> None:
    """A kill that a child hears of ends nothing that the parent has in flight: they share its sockets."""
    told, tell = os.pipe()
    with switch.run("r-1") as run, run.abortable() as call:
        call.on_abort(lambda: os.write(tell, b"x"))
        child = os.fork()
        if child == 0:
            try:
                kill(switch)
                deadline = time.monotonic() + 1
                while time.monotonic() < deadline:
                    time.sleep(0.01)
                os._exit(0 if call.aborted else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert not call.aborted
    os.close(tell)
    assert os.read(told, 1) == b""
    os.close(told)


def test_an_effect_is_one_block(switch: FakeSwitch) -> None:
    """What ends its call is given inside the block; the same object is not entered twice at once."""
    with switch.run("r-1") as run:
        effect, watched = run.effect("send_email"), len(run.calls)
        with pytest.raises(RuntimeError, match="belongs inside"):
            effect.on_abort(print)
        with effect, pytest.raises(RuntimeError, match="entered already"), effect:
            pass
        with effect:
            effect.on_abort(print)
            assert len(run.calls) == watched + 1
        assert len(run.calls) == watched


def test_children_are_killed_with_their_parents(switch: FakeSwitch) -> None:
    """A kill of a run halts what is below it, at any depth, and no sibling; none is armed below it any more."""
    with switch.run("r-1", tenant="acme") as run, switch.run("r-2") as other:
        child = run.child("search")
        with child, child.child("page-1") as grandchild:
            assert (grandchild.id, grandchild.tenant) == ("r-1.search.page-1", "acme")
            kill(switch)
            for each in (run, child, grandchild):
                with pytest.raises(Killed):
                    each.check()
            other.check()
        with pytest.raises(Killed), run.child("late"):
            pass
        switch.service.revive("run:r-1")
        switch.renew()
        with pytest.raises(Killed), run.child("later"):
            pass


def test_a_child_may_be_made_again(switch: FakeSwitch) -> None:
    """A child that was killed and revived can be started anew below a parent that nobody killed."""
    with switch.run("r-1") as run:
        kill(switch, "run:r-1.search")
        with pytest.raises(Killed), run.child("search"):
            pass
        switch.service.revive("run:r-1.search")
        switch.renew()
        with run.child("search") as child:
            child.check()
        run.check()
