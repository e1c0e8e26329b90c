"""The public API as a type checker sees it. Never run: `mypy --strict` is the test."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from email.message import Message
from typing import Any, Literal, assert_type

import haltline
from haltline import (
    CapabilityFrozen,
    Carried,
    Go,
    Halt,
    HaltlineError,
    Hold,
    InvalidTarget,
    Killed,
    KillSwitch,
    Reason,
    Run,
    RunStopped,
    Scope,
    Stop,
    Target,
    Unverified,
    Verdict,
    guarded,
)
from haltline.cleanup import Cleanup
from haltline.flips import Position
from haltline.testing import FakeService, FakeSwitch, ManualClock, fake_switch, killed


def switch_api() -> None:
    """A switch, from arguments or from the environment."""
    with KillSwitch() as switch:
        assert_type(switch, KillSwitch)
    switch = KillSwitch("http://127.0.0.1:8787", token="t", worker="mailer-1")
    KillSwitch("http://127.0.0.1:8787", "t")  # type: ignore[call-arg]  # keyword-only
    assert_type(switch.live, bool)
    assert_type(switch.position, Position)
    assert_type(switch.trouble, Stop | None)
    assert_type(switch.ensure(timeout=0.5), bool)
    assert_type(switch.run("r-42", tenant="acme", feature="outreach", timeout=2), Run)
    switch.run("r-42", "acme")  # type: ignore[call-arg]  # keyword-only
    switch.run(42)  # type: ignore[arg-type]


async def ending_api(run: Run) -> None:
    """Cleanups, and a stop as a value."""

    def work(order: int) -> str:
        return str(order)

    async def awork(order: int) -> str:
        return str(order)

    assert_type(run.on_cleanup(lambda: None, timeout=5, name="close"), Callable[[], None])
    run.on_cleanup(work)  # type: ignore[type-var]  # it takes no arguments

    @run.on_cleanup
    def close() -> int:
        return 1

    @run.on_cleanup(timeout=5)
    async def aclose() -> None:
        pass

    assert_type(close(), int)
    await aclose()
    assert_type(run.carry_out(work, 1), str | RunStopped)
    assert_type(await run.acarry_out(awork, order=1), str | RunStopped)
    run.carry_out(work, "one")  # type: ignore[arg-type]
    stopped = run.carry_out(work, 1)
    if isinstance(stopped, RunStopped):
        assert_type(stopped.status, Literal["stopped"])
        assert_type(stopped.cleanups, tuple[Cleanup, ...])


def run_api(run: Run) -> None:
    """A run's checks."""
    with run as entered:
        assert_type(entered, Run)
    run.check()
    run.check("send_email")
    run.check(b"send_email")  # type: ignore[arg-type]
    assert_type(run.guard("send_email"), Callable[[], None])
    assert_type(run.verdict("send_email"), Verdict)
    verdict = run.verdict()
    if isinstance(verdict, Stop):
        assert_type(verdict.reason, Reason)
        assert_type(verdict.holds, tuple[Hold, ...])
        assert_type(verdict.killed, tuple[Target, ...])
        assert_type(verdict.holds[0].target.scope, Scope)
    else:
        assert_type(verdict, Go)
    assert_type(run.armed_seq, int | None)
    assert_type(run.halted, Stop | None)
    run.arm(timeout=1)
    run.ensure(timeout=0.2)
    run.wait("send_email", timeout=None)


def tree_api(switch: KillSwitch, run: Run) -> None:
    """Children, and runs that are carried elsewhere."""

    def work(order: int) -> str:
        return str(order)

    assert_type(run.child("a", tenant="acme", feature="outreach", timeout=1), Run)
    assert_type(run.carried, Carried)
    assert_type(Carried.parse(str(run.carried)), Carried)
    assert_type(haltline.inject({"Accept": "*/*"}), dict[str, str])
    haltline.inject({"n": 1})  # type: ignore[type-var]
    assert_type(haltline.extract([(b"baggage", b"a=1")]), Carried | None)
    for carrier in (run.carried, os.environ, {"baggage": "a=1"}, [("baggage", "a=1")], Message()):
        assert_type(switch.join(carrier, timeout=1), Run)
    carried = haltline.carry(work, run=run)
    assert_type(carried(1), str)
    carried("one")  # type: ignore[arg-type]
    with ThreadPoolExecutor() as executor, haltline.CarryingExecutor(executor, timeout=1) as pool:
        assert_type(pool.submit(work, 1), Future[str])
        pool.submit(work, "one")  # type: ignore[arg-type]
        assert_type(pool.map(work, [1], timeout=1, chunksize=2), Iterator[str])


async def async_api(switch: KillSwitch) -> None:
    """The same in asyncio."""
    async with switch.run("r-42") as run:
        assert_type(run, Run)
        await run.aensure(timeout=0.2)
        await run.async_wait("send_email", timeout=1)
        await run.aarm()


@guarded("send_email")
def send(to: str, *, copies: int = 1) -> bytes:
    """A plain function keeps its signature."""
    return to.encode() * copies


@guarded("send_email")
async def send_later(to: str) -> int:
    """So does a coroutine function."""
    return len(to)


@guarded("send_email")
def send_each(to: str) -> Generator[int, str, bytes]:
    """And a generator function."""
    yield len(to)
    return b""


def guarded_api() -> None:
    """What the decorator leaves of a function."""
    assert_type(send("x", copies=2), bytes)
    later = send_later("x")
    made: Coroutine[Any, Any, int] = later
    made.close()
    assert_type(send_each("x"), Generator[int, str, bytes])
    send(1)  # type: ignore[arg-type]
    send("x", 2)  # type: ignore[call-arg]
    guarded(send)  # type: ignore[arg-type]  # it is called with the capability


def module_api() -> None:
    """The current run."""
    haltline.check()
    haltline.check("send_email")
    assert_type(haltline.current_run(), Run)


def errors_api(killed_: Killed, unverified: Unverified, frozen: CapabilityFrozen, invalid: InvalidTarget) -> None:
    """Two stops are not exceptions, the rest are."""
    halts: tuple[Halt, ...] = (killed_, unverified)
    ordinary: tuple[HaltlineError, ...] = (frozen, invalid)
    not_an_exception: Exception = killed_  # type: ignore[assignment]
    assert_type(killed_.verdict, Stop)
    assert_type(frozen.capability, str)
    del halts, ordinary, not_an_exception


def testing_api() -> None:
    """What users' own tests see."""
    clock = ManualClock()
    clock.advance(1.5)
    clock.shift(real=0.2)
    service = FakeService(clock=clock, ttl_ms=500)
    assert_type(service.switch(background=True), FakeSwitch)
    assert_type(service.kill("run:r-42", reason="why", actor="ann"), Hold)
    assert_type(service.revive("run:r-42"), tuple[int, ...])
    switch: KillSwitch = fake_switch(clock=clock)
    assert_type(killed("global"), AbstractContextManager[Hold, bool | None])
    with killed(service, "run:r-42", reason="why") as hold:
        assert_type(hold, Hold)
    killed(service)  # type: ignore[call-overload]
    killed("global", "global")  # type: ignore[call-overload]
    del switch


async def stream() -> AsyncIterator[int]:
    """An asynchronous generator cannot be guarded; that is said when it is decorated, not by its type."""
    yield 1
