"""The current run: whoever has none is stopped, and nobody gets somebody else's."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import haltline
from haltline import CapabilityFrozen, InvalidTarget, Killed, Reason, Unverified, guarded
from haltline.testing import FakeSwitch, fake_switch, killed


@pytest.fixture
def switch() -> FakeSwitch:
    """Return a switch that renews after each flip."""
    return fake_switch()


def test_no_current_run_means_stopped() -> None:
    """check() and run() raise Unverified, and say what to do."""
    for call in (haltline.check, haltline.current_run):
        with pytest.raises(Unverified, match="no run is current here") as caught:
            call()
        assert caught.value.verdict.reason is Reason.NO_RUN


def test_the_entered_run_is_current(switch: FakeSwitch) -> None:
    """From entering to leaving, also if it is left by an error."""
    with switch.run("r-1") as run:
        assert haltline.current_run() is run
        haltline.check("send_email")

    def fail() -> None:
        with switch.run("r-1"):
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        fail()
    with pytest.raises(Unverified):
        haltline.check()


def test_runs_nest(switch: FakeSwitch) -> None:
    """Leaving the inner one makes the outer one current again, also for the same run entered twice."""
    with switch.run("outer") as outer:
        with switch.run("inner") as inner:
            assert haltline.current_run() is inner
            with outer:
                assert haltline.current_run() is outer
            assert haltline.current_run() is inner
        assert haltline.current_run() is outer


def test_leaving_out_of_order_leaves_nothing_behind(switch: FakeSwitch) -> None:
    """A run that was left is never current, whatever was entered inside it."""
    outer, inner = switch.run("outer"), switch.run("inner")
    outer.__enter__()
    inner.__enter__()
    switch.run("stranger").__exit__(None, None, None)
    assert haltline.current_run() is inner
    outer.__exit__(None, None, None)
    with pytest.raises(Unverified):
        haltline.current_run()
    inner.__exit__(None, None, None)
    with pytest.raises(Unverified):
        haltline.current_run()


def test_the_current_run_is_the_one_that_is_checked(switch: FakeSwitch) -> None:
    """The inner run's kill does not stop the outer one."""
    with switch.run("outer"):
        with switch.run("inner"), killed(switch, "run:inner"), pytest.raises(Killed):
            haltline.check()
        haltline.check()


def test_a_thread_has_no_run_of_its_own(switch: FakeSwitch) -> None:
    """A thread started inside a run is stopped unless the context is handed to it."""
    seen: list[object] = []

    def effect() -> None:
        try:
            haltline.check()
        except Unverified as stopped:
            seen.append(stopped.verdict.reason)
        else:
            seen.append("passed")

    with switch.run("r-1"):
        thread = threading.Thread(target=effect)
        thread.start()
        thread.join()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(effect).result()
            pool.submit(contextvars.copy_context().run, effect).result()
    assert seen == [Reason.NO_RUN, Reason.NO_RUN, "passed"]


def test_tasks_inherit_the_run_and_keep_their_own(switch: FakeSwitch) -> None:
    """A task gets the run it was started under; what it enters stays its own; to_thread takes it along."""

    async def child(name: str) -> tuple[str, str]:
        before = haltline.current_run().id
        async with switch.run(name):
            await asyncio.sleep(0)
            return before, haltline.current_run().id

    async def main() -> None:
        async with switch.run("parent"):
            assert list(await asyncio.gather(child("a"), child("b"))) == [("parent", "a"), ("parent", "b")]
            assert haltline.current_run().id == "parent"
            assert (await asyncio.to_thread(haltline.current_run)).id == "parent"
        with pytest.raises(Unverified):
            haltline.check()

    asyncio.run(main())


class Effects:
    """Functions of each kind, and what they did."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def calls(self) -> dict[str, Callable[[], object]]:
        """Return a call of each kind of guarded function, driven to its end."""

        @guarded("send_email")
        def plain(text: str, *, end: str = "") -> str:
            """Send."""
            self.done.append(text + end)
            return text

        @guarded("send_email")
        async def coroutine(text: str) -> str:
            self.done.append(text)
            return text

        @guarded("send_email")
        def generator(text: str) -> Iterator[str]:
            self.done.append(text)
            yield text

        return {
            "plain": lambda: plain("x", end="y"),
            "coroutine": lambda: asyncio.run(coroutine("x")),
            "generator": lambda: list(generator("x")),
        }


@pytest.mark.parametrize("kind", ["plain", "coroutine", "generator"])
def test_guarded_checks_before_each_call(switch: FakeSwitch, kind: str) -> None:
    """With a run it does its work; frozen, killed or without a run it does nothing at all."""
    effects = Effects()
    call = effects.calls()[kind]
    with pytest.raises(Unverified):
        call()
    with switch.run("r-1"):
        call()
        with killed(switch, "capability:send_email"), pytest.raises(CapabilityFrozen):
            call()
        with killed(switch, "run:r-1"), pytest.raises(Killed):
            call()
    assert len(effects.done) == 1


def test_guarded_checks_when_the_work_begins(switch: FakeSwitch) -> None:
    """A coroutine is checked when awaited, a generator when first asked: not when it is made."""
    done: list[str] = []

    @guarded("send_email")
    async def coroutine() -> None:
        done.append("coroutine")

    @guarded("send_email")
    def generator() -> Iterator[None]:
        done.append("generator")
        yield

    async def main() -> None:
        async with switch.run("r-1"):
            awaited, asked = coroutine(), generator()
            with killed(switch, "capability:send_email"):
                with pytest.raises(CapabilityFrozen):
                    await awaited
                with pytest.raises(CapabilityFrozen):
                    next(asked)

    asyncio.run(main())
    assert done == []


def test_guarded_generators_take_sent_values_and_return(switch: FakeSwitch) -> None:
    """The wrapper is a generator like the function itself."""

    @guarded("send_email")
    def echo() -> Iterator[str]:
        got = yield "first"
        return got  # what the wrapper must hand on

    with switch.run("r-1"):
        stream = echo()
        assert next(stream) == "first"
        with pytest.raises(StopIteration) as ended:
            stream.send("second")  # type: ignore[attr-defined]  # the wrapper is a generator
        assert ended.value.value == "second"


def test_guarded_refuses_asynchronous_generators() -> None:
    """Between two of its values no check would run."""
    with pytest.raises(TypeError, match="asynchronous generator"):

        @guarded("send_email")
        async def stream() -> AsyncIterator[int]:
            yield 1


def test_guarded_refuses_a_bad_capability_when_decorating() -> None:
    """A typing mistake shows at import, not at the first kill."""
    with pytest.raises(InvalidTarget):
        guarded("Send Email")


def test_guarded_keeps_name_and_doc() -> None:
    """Frameworks describe tools to models by them."""

    @guarded("send_email")
    def send() -> None:
        """Send a mail."""

    assert (send.__name__, send.__doc__) == ("send", "Send a mail.")
