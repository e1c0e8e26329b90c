"""The public API as a type checker sees it. Never run: `mypy --strict` is the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import AbstractContextManager
from typing import Any, assert_type

import haltline
from haltline import (
    CapabilityFrozen,
    Go,
    Halt,
    HaltlineError,
    Hold,
    InvalidTarget,
    Killed,
    KillSwitch,
    Reason,
    Run,
    Scope,
    Stop,
    Target,
    Unverified,
    Verdict,
    guarded,
)
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
