"""Subprocesses of a run: what a kill ends, what leaving the block ends, and how that surfaces."""

# ruff: noqa: PT012 - the kill comes inside the block, and what surfaces is what leaves it

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from haltline import CapabilityFrozen, Killed
from haltline.carried import Carried
from haltline.testing import FakeSwitch, fake_switch
from haltline.watchdog import Grace
from tests.support.supervised import MARK, TICK, marked, wait_for

SLEEP: Final = ("sleep", "300")

TREE: Final = f"""
sh -c '{TICK.format(who="child")}' &
setsid sh -c '{TICK.format(who="session")}' &
{TICK.format(who="main")}
"""


@pytest.fixture
def switch() -> FakeSwitch:
    """Return a switch that is renewed by whoever says so."""
    return fake_switch()


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Return what is in the environment of everything that is started from here."""
    made = uuid.uuid4().hex
    monkeypatch.setenv(MARK, made)
    monkeypatch.setenv("SINK", str(tmp_path / "sink"))
    return made


def gone(mark: str) -> bool:
    """Return whether nothing is left of what was started."""
    return not [each for each in marked(mark) if each.pid != os.getpid()]


def effects(tmp_path: Path) -> list[str]:
    """Return every effect so far."""
    sink = tmp_path / "sink"
    return sink.read_text("utf-8").split() if sink.exists() else []


def soon(what: Callable[[], object], after: Callable[[], object] = lambda: True) -> threading.Thread:
    """Do something from another thread, once something holds."""

    def work() -> None:
        wait_for(after)
        what()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def set_grace(switch: FakeSwitch, seconds: float) -> None:
    """Give killed runs so long."""
    switch._refresher.watchdog.grace = Grace(seconds)  # noqa: SLF001 - the fake switch takes none


def test_it_knows_its_run(switch: FakeSwitch) -> None:
    """It has its run in its environment, is in a session of its own, and is a ``Popen`` like any other."""
    show = "import os; print(os.environ['HALTLINE_RUN'], os.environ.get('MINE'), os.getsid(0) == os.getpid())"
    with switch.run("r-1", tenant="acme") as run:
        with run.subprocess([sys.executable, "-c", show], stdout=subprocess.PIPE, text=True) as process:
            out, _ = process.communicate()
            assert process.returncode == 0
        carried, mine, leads = out.split()
        assert Carried.parse(carried) == run.carried
        assert (mine, leads) == ("None", "True")
        given = {**os.environ, "MINE": "x"}
        with run.subprocess([sys.executable, "-c", show], env=given, stdout=subprocess.PIPE, text=True) as process:
            assert process.communicate()[0].split()[1] == "x"


def test_a_kill_ends_its_tree(switch: FakeSwitch, mark: str, tmp_path: Path) -> None:
    """A kill ends it and what it started, also in a session of its own, and surfaces as Killed once that is over."""
    began = time.monotonic()
    with (
        switch.run("r-1") as run,
        pytest.raises(Killed, match="run r-1 is stopped"),
        run.subprocess(["sh", "-c", TREE]) as process,
    ):
        thread = soon(
            lambda: switch.service.kill("run:r-1"), lambda: {"main", "child", "session"} <= set(effects(tmp_path))
        )
        assert process.wait(60) == -15
    assert time.monotonic() - began < 20
    thread.join()
    assert gone(mark)
    before = len(effects(tmp_path))
    time.sleep(0.3)
    assert len(effects(tmp_path)) == before


def test_what_ignores_sigterm_is_killed_within_the_grace(switch: FakeSwitch, mark: str, tmp_path: Path) -> None:
    """Who ignores SIGTERM gets SIGKILL, also where nobody waits for it, and early enough to leave the block in time."""
    set_grace(switch, 1.0)
    stubborn = ["sh", "-c", f"trap '' TERM; {TICK.format(who='main')}"]
    with switch.run("r-1") as run, pytest.raises(Killed), run.subprocess(stubborn) as process:
        thread = soon(lambda: switch.service.kill("run:r-1"), lambda: effects(tmp_path))
        assert process.wait(60) == -9
    thread.join()
    assert gone(mark)


def test_what_may_finish_does(switch: FakeSwitch) -> None:
    """Under ``finish`` it ends by itself; the next one is not started."""
    with switch.run("r-1") as run:
        with run.subprocess(["sh", "-c", "sleep 0.3; exit 4"]) as process:
            switch.service.kill("run:r-1", in_flight="finish")
            assert process.wait(60) == 4
        with pytest.raises(Killed), run.subprocess(["false"]):
            pytest.fail("it was started")


def test_a_frozen_capability_ends_what_uses_it(switch: FakeSwitch, mark: str) -> None:
    """The freezing of a capability ends the subprocesses that use it, and no others."""
    with switch.run("r-1") as run, run.subprocess(SLEEP) as other:
        with pytest.raises(CapabilityFrozen), run.subprocess(SLEEP, capability="browse") as process:
            thread = soon(lambda: switch.service.kill("capability:browse"))
            process.wait(60)
        thread.join()
        assert other.poll() is None
    assert gone(mark)


def test_leaving_the_block_leaves_nothing(switch: FakeSwitch, mark: str) -> None:
    """What is left when the block is left is ended, however it is left, and errors are the block's own."""
    with switch.run("r-1") as run:
        with run.subprocess(SLEEP) as process:
            pass
        assert process.returncode == -15
        with pytest.raises(KeyError), run.subprocess(SLEEP):
            raise KeyError
        with run.subprocess(["sh", "-c", "sleep 300 & exit 3"]) as process:
            assert process.wait(60) == 3
        assert gone(mark)
        run.check()


def test_it_ended_before_the_kill(switch: FakeSwitch) -> None:
    """What had ended by itself when the kill came has ended by itself: the next check stops the run."""
    with switch.run("r-1") as run:
        with run.subprocess(["true"]) as process:
            assert process.wait(60) == 0
            switch.service.kill("run:r-1")
            time.sleep(0.3)  # whoever ends calls has come by
        with pytest.raises(Killed):
            run.check()


def test_killed_while_it_starts(switch: FakeSwitch, mark: str) -> None:
    """A kill between asking and starting ends it at once."""
    with switch.run("r-1") as run, pytest.raises(Killed), run.subprocess([_Killing(switch), "300"]) as process:
        process.wait(60)
    assert gone(mark)


class _Killing:
    """A program's name that kills the run when it is read, which is between asking and starting."""

    def __init__(self, switch: FakeSwitch) -> None:
        self._switch = switch

    def __fspath__(self) -> str:
        self._switch.service.kill("run:r-1")
        return "sleep"


_FORKED: Final = """
import os, time
from haltline.testing import fake_switch
switch = fake_switch()
with switch.run("r-1") as run:
    block = run.subprocess(["/bin/sleep", "300"])
    process = block.__enter__()
    child = os.fork()
    if child == 0:
        switch.service.kill("run:r-1")
        time.sleep(0.5)
        block.__exit__(None, None, None)
        os._exit(0)
    os.waitpid(child, 0)
    print(process.poll())
    block.__exit__(None, None, None)
    print(process.poll())
"""


def test_a_forked_child_ends_nothing() -> None:
    """What the parent has started is the parent's: a child that is forked meanwhile leaves it alone."""
    done = subprocess.run([sys.executable, "-c", _FORKED], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["None", "-15"]


def test_sessions_of_others(switch: FakeSwitch) -> None:
    """Whoever wants another session or group is told so, before anything is started."""
    with (
        switch.run("r-1") as run,
        pytest.raises(TypeError, match="session of its own"),
        run.subprocess(SLEEP, start_new_session=False),
    ):
        pytest.fail("it was started")


def test_what_cannot_be_started(switch: FakeSwitch) -> None:
    """An error of starting surfaces as it is, and leaves nothing watched."""
    with switch.run("r-1") as run:
        watched = len(run.calls)
        with pytest.raises(FileNotFoundError), run.subprocess(["no-such-command-anywhere"]):
            pytest.fail("it was started")
        assert len(run.calls) == watched


def test_in_asyncio(switch: FakeSwitch, mark: str, tmp_path: Path) -> None:
    """In asyncio a kill ends the tree, and the task ends with Killed and no stray cancellation."""

    async def main() -> None:
        async with switch.run("r-1") as run:
            with pytest.raises(Killed):
                async with run.asubprocess(["sh", "-c", TREE]):
                    thread = soon(lambda: switch.service.kill("run:r-1"), lambda: "session" in effects(tmp_path))
                    await asyncio.sleep(60)
            thread.join()
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            await asyncio.sleep(0)

    asyncio.run(main())
    assert gone(mark)


def test_awaited_in_asyncio(switch: FakeSwitch, mark: str) -> None:
    """Awaited, it runs to its end and returns what it wrote; a kill meanwhile surfaces as Killed."""

    async def main() -> None:
        async with switch.run("r-1") as run:
            done = await run.asubprocess(["sh", "-c", 'echo "$HALTLINE_RUN"; exit 3'], stdout=subprocess.PIPE)
            assert (done.returncode, done.stdout) == (3, f"{run.carried.text}\n".encode())
            loop = asyncio.get_running_loop()
            loop.call_later(0.1, switch.service.kill, "run:r-1")
            with pytest.raises(Killed):
                await run.asubprocess("sleep 300", shell=True)  # noqa: S604 - a shell is what this is about
            with pytest.raises(Killed):
                await run.asubprocess(["true"])

    asyncio.run(main())
    assert gone(mark)


def test_leaving_leaves_nothing_in_asyncio(switch: FakeSwitch, mark: str) -> None:
    """In asyncio, too, leaving the block ends what is left, also when it is cancelled by others."""

    async def main() -> None:
        async with switch.run("r-1") as run:
            async with run.asubprocess(SLEEP) as process:
                pass
            assert process.returncode == -15
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1), run.asubprocess(SLEEP):
                    await asyncio.sleep(60)
            run.check()

    asyncio.run(main())
    assert gone(mark)
