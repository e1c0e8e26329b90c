"""Cleanups: once, the newest first, however the run's block is left, and none holds up the next."""

# ruff: noqa: PT012 - the kill comes inside the block, and what surfaces is what leaves it

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import haltline
from haltline import Killed, Run
from haltline.cleanup import LEAST_S, Cleanup, pending
from haltline.testing import FakeService, FakeSwitch, fake_switch
from tests.support.lines import Line, connected

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


def test_the_newest_first_and_once(switch: FakeSwitch) -> None:
    """They run when the block is left, not before, and not when it is left another time."""
    seen: list[str] = []
    with switch.run("r-1") as run:
        run.on_cleanup(lambda: seen.append("old"), name="old")
        run.on_cleanup(lambda: seen.append("new"), name="new")
        assert seen == []
    assert seen == ["new", "old"]
    assert brief(run.cleanups) == [("new", "done"), ("old", "done")]
    with run:
        pass
    assert seen == ["new", "old"]
    assert run.cleanups == ()


def test_before_an_error_surfaces(switch: FakeSwitch) -> None:
    """Also of an error, after the block's own ``finally``; it surfaces as it was raised."""
    seen: list[str] = []
    with pytest.raises(ZeroDivisionError), switch.run("r-1") as run:
        run.on_cleanup(lambda: seen.append("cleanup"))
        try:
            _ = 1 / 0
        finally:
            seen.append("finally")
    assert seen == ["finally", "cleanup"]


def test_before_a_halt_surfaces(switch: FakeSwitch) -> None:
    """A killed run is cleaned up behind, and it is still the current run then."""
    seen: list[Any] = []
    with pytest.raises(Killed), switch.run("r-1") as run:
        run.on_cleanup(lambda: seen.append(haltline.current_run().id))
        kill(switch)
        run.check()
    assert seen == ["r-1"]


def test_a_decorator(switch: FakeSwitch) -> None:
    """With and without arguments, and the function stays what it was."""
    seen: list[str] = []
    with switch.run("r-1") as run:

        @run.on_cleanup
        def first() -> None:
            seen.append("first")

        @run.on_cleanup(timeout=5, name="the second")
        def second() -> None:
            seen.append("second")

        assert callable(first)
        assert callable(second)
        run.on_cleanup(partial(seen.append, "third"))
    assert seen == ["third", "second", "first"]
    names = [each.name for each in run.cleanups]
    assert names[1] == "the second"
    assert names[2].endswith("first")


@pytest.mark.parametrize("error", [ValueError("a defect"), SystemExit("a defect"), None])
def test_one_that_raises(switch: FakeSwitch, caplog: pytest.LogCaptureFixture, error: BaseException | None) -> None:
    """It is logged and recorded, a Halt too, and the next one runs."""
    seen: list[str] = []
    with switch.run("r-1") as run:
        run.on_cleanup(lambda: seen.append("next"), name="next")

        @run.on_cleanup(name="broken")
        def broken() -> None:
            if error is not None:
                raise error
            kill(switch)
            run.check()

    assert seen == ["next"]
    assert brief(run.cleanups) == [("broken", "failed"), ("next", "done")]
    assert run.cleanups[0].detail.startswith(
        "Killed: run r-1" if error is None else f"{type(error).__name__}: a defect"
    )
    assert "cleanup broken failed" in caplog.text


def test_an_error_that_cannot_be_told(switch: FakeSwitch) -> None:
    """Not even what makes text of an error is trusted."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    def broken() -> None:
        raise Mute

    with switch.run("r-1") as run:
        run.on_cleanup(broken, name="broken")
    assert run.cleanups[0].outcome == "failed"
    assert run.cleanups[0].detail == "Mute"


def test_one_that_hangs(switch: FakeSwitch, hung: threading.Event, caplog: pytest.LogCaptureFixture) -> None:
    """It is left behind in its thread after its time, recorded, and the next one runs."""
    seen: list[str] = []
    ended = threading.Event()

    def hang() -> None:
        hung.wait(LONG_S)
        ended.set()

    with switch.run("r-1") as run:
        run.on_cleanup(lambda: seen.append("next"), name="next")
        run.on_cleanup(hang, timeout=0.1, name="hang")
        begun = time.monotonic()
    assert time.monotonic() - begun < LONG_S / 2
    assert seen == ["next"]
    assert brief(run.cleanups) == [("hang", "timed_out"), ("next", "done")]
    assert run.cleanups[0].seconds >= 0.1
    assert "cleanup hang has not ended" in caplog.text
    assert not ended.is_set()
    hung.set()
    assert ended.wait(10)


def test_those_that_hang_leave_time_to_the_others(hung: threading.Event) -> None:
    """Without a time of its own, each has half of what is left, so that every one begins within the grace."""
    seen: list[float] = []
    with connected_switch(grace=1.6) as switch, switch.run("r-1") as run:
        begun = time.monotonic()
        run.on_cleanup(lambda: seen.append(time.monotonic() - begun), name="oldest")
        run.on_cleanup(lambda: hung.wait(LONG_S), name="hang-2")
        run.on_cleanup(lambda: hung.wait(LONG_S), name="hang-1")
    assert [each.outcome for each in run.cleanups] == ["timed_out", "timed_out", "done"]
    first, second, _ = run.cleanups
    assert first.seconds >= 0.79
    assert 0.35 < second.seconds < first.seconds
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("timeout", "left", "last", "limit"),
    [(None, 8, False, 4), (None, 8, True, 8), (3, 8, False, 3), (30, 8, False, 8), (None, -5, False, LEAST_S),
     (30, -5, True, LEAST_S), (0.01, -5, False, 0.01)],
)  # fmt: skip
def test_how_long_each_is_waited_for(timeout: float | None, left: float, last: bool, limit: float) -> None:  # noqa: FBT001
    """Its own time within the grace, or a share of it; and a moment for each when the grace is over."""
    assert pending(print, timeout, None).limit(left, last=last) == limit


def connected_switch(**settings: Any) -> haltline.KillSwitch:
    """Return a switch with a thread of its own, as in production."""
    return connected(Line(FakeService(ttl_ms=5000)), **settings)


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_times_that_are_none(switch: FakeSwitch, timeout: float) -> None:
    """They are refused when they are given, not when the block is left."""
    with switch.run("r-1") as run, pytest.raises(ValueError, match="a positive number"):
        run.on_cleanup(print, timeout=timeout)


def test_what_is_no_cleanup(switch: FakeSwitch) -> None:
    """Something that cannot be called, and names that cannot be told."""
    with switch.run("r-1") as run:
        with pytest.raises(TypeError, match="a function without arguments"):
            run.on_cleanup(7)  # type: ignore[call-overload]
        for name in ("", "x" * 129):
            with pytest.raises(ValueError, match="1 to 128 characters"):
                run.on_cleanup(print, name=name)
    assert run.cleanups == ()


def test_only_inside_the_block(switch: FakeSwitch) -> None:
    """Before and after it, nothing would ever call a cleanup: that is an error."""
    run = switch.run("r-1")
    with pytest.raises(RuntimeError, match="inside the run's block"):
        run.on_cleanup(print)
    with run:
        pass
    with pytest.raises(RuntimeError, match="inside the run's block"):
        run.on_cleanup(print)


def test_the_last_one_cleans_up(switch: FakeSwitch) -> None:
    """A block that several threads are in is left when the last of them leaves it."""
    seen: list[str] = []
    inside, leave = threading.Event(), threading.Event()
    run = switch.run("r-1")

    def work() -> None:
        with run:
            inside.set()
            leave.wait(10)
        seen.append("thread left")

    with run:
        thread = threading.Thread(target=work)
        thread.start()
        assert inside.wait(10)
        run.on_cleanup(lambda: seen.append("cleanup"))
    assert seen == []
    leave.set()
    thread.join(10)
    assert seen == ["cleanup", "thread left"]


def test_an_interruption_waits_for_the_cleanups(switch: FakeSwitch) -> None:
    """Ctrl-C while a run cleans up surfaces afterwards; a second one leaves behind what hangs."""
    seen: list[str] = []
    hung, sent = threading.Event(), threading.Event()

    def interrupt(times: int) -> None:
        for _ in range(times):
            time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGINT)
        sent.set()

    def closing(run: Run, times: int, close: Callable[[], object]) -> None:
        with run:
            run.on_cleanup(lambda: seen.append("next"))
            run.on_cleanup(close, timeout=LONG_S)
            threading.Thread(target=interrupt, args=(times,)).start()

    def close() -> None:
        sent.wait(LONG_S)
        time.sleep(0.1)
        seen.append("closed")

    with pytest.raises(KeyboardInterrupt):
        closing(switch.run("r-1"), 1, close)
    assert seen == ["closed", "next"]
    run = switch.run("r-2")
    with pytest.raises(KeyboardInterrupt):
        closing(run, 2, lambda: hung.wait(LONG_S))
    hung.set()
    assert [each.outcome for each in run.cleanups] == ["timed_out", "done"]


FORKED = textwrap.dedent(
    """
    import os
    from haltline.testing import FakeService
    from tests.support.lines import Line, quiet
    switch = quiet(Line(FakeService(ttl_ms=5000)))

    def say(text):
        os.write(1, f"{text} ".encode())

    with switch.run("r-1") as run:
        run.on_cleanup(lambda: say(f"parent's in {'parent' if os.getpid() == parent else 'child'}"))
        parent = os.getpid()
        child = os.fork()
        if not child:
            with switch.run("r-1") as own:
                own.on_cleanup(lambda: say("child's"))
    if child:
        os.waitpid(child, 0)
        say("end")
    """
)


def test_a_forked_child_leaves_the_parents_cleanups_to_it() -> None:
    """A child that goes on to the end of its parent's block cleans up behind itself alone."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split(" ")) == sorted(["child's", "parent's", "in", "parent", "end", ""])
