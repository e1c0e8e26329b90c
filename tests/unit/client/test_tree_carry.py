"""Into which threads, tasks, greenlets and worker processes the current run goes, and how it is taken there."""

from __future__ import annotations

import asyncio
import functools
import multiprocessing
import pickle
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from haltline import CarryingExecutor, ConfigurationError, Killed, KillSwitch, Unverified, carry, current_run
from haltline.testing import FakeService, FakeSwitch, fake_switch
from tests.support.fault_server import FaultServer
from tests.support.pooled import switch_of_the_test, until_stopped, where

ROOT: Final = Path(__file__).parents[3]
TTL_MS: Final = 3000


@pytest.fixture
def switch() -> FakeSwitch:
    """Return a switch that renews after each flip."""
    return fake_switch()


def which() -> str:
    """Return the id of the current run, checked; "none" where none is current."""
    try:
        run = current_run()
    except Unverified:
        return "none"
    run.check("send_email")
    return run.id


def in_thread(function: Callable[[], str]) -> str:
    """Return what a function says in a thread that begins without a run."""
    said: list[str] = []
    thread = threading.Thread(target=lambda: said.append(function()))
    thread.start()
    thread.join()
    return said[0]


# -- threads ----------------------------------------------------------------------------------------------------------


def test_a_thread_begins_without_a_run(switch: FakeSwitch) -> None:
    """Which means stopped; a carried function has the run that was current where it was carried."""
    with switch.run("r-1"):
        assert in_thread(which) == "none"
        carried = carry(which)
        assert in_thread(carried) == "r-1"
        with switch.run("r-2"):
            assert carried() == "r-1"
            assert which() == "r-2"
    assert which() == "none"


def test_only_the_run_is_taken_along(switch: FakeSwitch) -> None:
    """No other context is; arguments, results and errors are the function's own, and so is its name."""

    def divide(one: int, two: int) -> float:
        """Divide."""
        return one / two

    with switch.run("r-1") as run:
        carried = carry(divide)
        assert carried(1, two=2) == 0.5
        with pytest.raises(ZeroDivisionError):
            carried(1, 0)
        assert current_run() is run
    assert (carried.__name__, carried.__doc__) == ("divide", "Divide.")
    assert "of run r-1" in repr(carried)


def test_what_waited_does_not_begin(switch: FakeSwitch) -> None:
    """A function whose run was stopped meanwhile does not begin, and its error says why."""
    begun: list[str] = []
    with switch.run("r-1"):
        carried = carry(begun.append)
        switch.service.kill("run:r-1")
        switch.service.revive("run:r-1")
        with pytest.raises(Killed):
            carried("mail")
    assert begun == []


def test_an_unarmed_run_is_not_carried(switch: FakeSwitch) -> None:
    """Nor none at all: a missing run is found where it is missing, not in the thread."""
    with pytest.raises(Unverified, match="no run is current"):
        carry(which)
    with pytest.raises(Unverified, match="not armed"):
        carry(which, run=switch.run("r-1"))
    with pytest.raises(Unverified, match="no run is current"), ThreadPoolExecutor(1) as pool:
        CarryingExecutor(pool).submit(which)


def test_a_thread_pool_carries(switch: FakeSwitch) -> None:
    """Each piece of work has the run that was current when it was submitted."""
    with CarryingExecutor(ThreadPoolExecutor(2)) as pool:
        with switch.run("r-1") as run:
            first = pool.submit(which)
            with run.child("a"):
                second = pool.submit(which)
                many = pool.map(lambda number: f"{which()}-{number}", range(3))
        assert (first.result(), second.result()) == ("r-1", "r-1.a")
        assert list(many) == ["r-1.a-0", "r-1.a-1", "r-1.a-2"]
        assert pool.executor.submit(which).result() == "none"


def test_what_waits_in_a_pool_does_not_begin(switch: FakeSwitch) -> None:
    """One kill of the root, and none of the queue of a busy pool runs."""
    begun: list[int] = []
    busy = threading.Event()
    with CarryingExecutor(ThreadPoolExecutor(1)) as pool, switch.run("r-1") as run:
        pool.submit(busy.wait)
        with run.child("a"):
            waiting = [pool.submit(begun.append, number) for number in range(20)]
        switch.service.kill("run:r-1")
        busy.set()
        assert all(isinstance(each.exception(), Killed) for each in waiting)
    assert begun == []


def test_what_cannot_be_carried_is_refused(switch: FakeSwitch) -> None:
    """A generator would run wherever somebody iterates over it, and a switch has to be found by its name."""

    def numbers() -> Generator[int, None, None]:
        yield 1

    async def later() -> Any:
        yield 1

    with switch.run("r-1"):
        for function in (numbers, later):
            with pytest.raises(TypeError, match="generator function"):
                carry(function)
        with pytest.raises(TypeError, match="not a module's function or class"):
            carry(which, switch=functools.partial(KillSwitch, "https://x"))


# -- asyncio ----------------------------------------------------------------------------------------------------------


def test_tasks_have_the_run_by_themselves(switch: FakeSwitch) -> None:
    """A task, a gathered one, a callback and ``to_thread`` begin with a copy of the context; an executor does not."""

    async def say() -> str:
        return which()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with switch.run("r-1"):
            task = asyncio.create_task(say())
            said = await asyncio.gather(say(), task, asyncio.to_thread(which))
            assert list(said) == ["r-1"] * 3
            called: asyncio.Future[str] = loop.create_future()
            loop.call_later(0, lambda: called.set_result(which()))
            assert await called == "r-1"
            async with asyncio.TaskGroup() as group:
                grouped = group.create_task(say())
            assert grouped.result() == "r-1"
            assert await loop.run_in_executor(None, which) == "none"
            assert await loop.run_in_executor(None, carry(which)) == "r-1"
            with ThreadPoolExecutor(1) as pool:
                carrying: Any = CarryingExecutor(pool)
                assert await loop.run_in_executor(carrying, which) == "r-1"

    asyncio.run(main())


def test_a_task_keeps_its_run(switch: FakeSwitch) -> None:
    """Tasks of several runs take turns without mixing them up."""

    async def work(run_id: str) -> set[str]:
        async with switch.run(run_id) as run, run.child("a"):
            said = set()
            for _ in range(5):
                said.add(which())
                await asyncio.sleep(0)
            return said

    async def main() -> None:
        said = await asyncio.gather(*(work(f"r-{number}") for number in range(10)))
        assert said == [{f"r-{number}.a"} for number in range(10)]

    asyncio.run(main())


def test_a_coroutine_is_carried_to_who_awaits_it(switch: FakeSwitch) -> None:
    """A coroutine function that another task awaits has the run it was given, and begins no stopped one.

    What a thread hands to a loop has the thread's run by itself.
    """
    begun: list[str] = []

    async def say() -> str:
        begun.append("begun")
        await asyncio.sleep(0)
        return which()

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def thread() -> str:
            with switch.run("r-1"):
                return asyncio.run_coroutine_threadsafe(say(), loop).result(20)

        assert await loop.run_in_executor(None, thread) == "r-1"
        async with switch.run("r-2"):
            carried = carry(say)
        assert await say() == "none"
        assert await carried() == "r-2"
        switch.service.kill("run:r-2")
        with pytest.raises(Killed):
            await carried()

    asyncio.run(main())
    assert begun == ["begun"] * 3


# -- processes --------------------------------------------------------------------------------------------------------


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    """Return a service on a port, with its address and token in the environment of this process's children."""
    with FaultServer(FakeService(ttl_ms=TTL_MS)) as server:
        monkeypatch.setenv("HALTLINE_URL", server.url)
        monkeypatch.setenv("HALTLINE_TOKEN", server.service.token)
        yield server


# Of Python 3.12 and later, wherever a process with threads forks; what was forked joins on a switch of its own.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_process_pool_carries(served: FaultServer, method: str) -> None:
    """The run travels as text and is joined there, armed where it was, on one switch a process; a kill ends it."""
    pool = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method))
    with KillSwitch() as switch, CarryingExecutor(pool, timeout=20) as carrying:  # noqa: SIM117 - it outlives the run
        with switch.run("r-1", timeout=20) as run, run.child("a") as child:
            served.service.note("later than the run")
            seen = list(carrying.map(where, range(6), chunksize=2))
            assert seen == [(number, "r-1.a", child.armed_seq, 1) for number in range(6)]
            working = [carrying.submit(until_stopped) for _ in range(2)]
            served.service.kill("run:r-1")
            for each in working:
                error = each.exception(timeout=25)
                assert isinstance(error, Killed)
                assert [str(target) for target in error.verdict.killed] == ["run:r-1"]
            late = carrying.submit(where, 1)
            assert isinstance(late.exception(timeout=25), Killed)


def test_a_worker_process_may_have_a_switch_of_its_own(served: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a function of a module, called once in each process; without any address the work fails and says so."""
    monkeypatch.setenv("TEST_URL", served.url)
    monkeypatch.setenv("TEST_TOKEN", served.service.token)
    with KillSwitch() as switch, switch.run("r-1", timeout=20):
        monkeypatch.delenv("HALTLINE_URL")
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            given = CarryingExecutor(pool, switch=switch_of_the_test, timeout=20)
            assert given.submit(where, 1).result(25)[1] == "r-1"
            assert given.submit(where, 2).result(25)[3] == 1
            error = CarryingExecutor(pool).submit(where, 1).exception(25)
            assert isinstance(error, ConfigurationError)


def test_what_is_pickled_names_no_switch(switch: FakeSwitch) -> None:
    """A carried function holds the run as text and no secret, and survives being pickled twice."""
    with switch.run("r-1") as run:
        data = pickle.dumps(carry(where))
        assert run.carried.text.encode() in data
        assert switch.service.token.encode() not in data
        assert pickle.dumps(pickle.loads(data)) == data  # noqa: S301 - what this test wrote itself


# -- greenlets --------------------------------------------------------------------------------------------------------

GREENLETS: Final = """
    import sys
    from gevent import monkey
    {patch}
    import gevent, gevent.pool, gevent.threadpool
    import haltline
    from haltline import Killed, Unverified
    from haltline.testing import fake_switch

    def which():
        try:
            run = haltline.current_run()
        except Unverified:
            return "none"
        gevent.sleep(0)
        run.check("send_email")
        return run.id

    switch = fake_switch()
    with switch.run("r-1") as run:
        first = gevent.spawn(haltline.carry(which))
        pooled = gevent.pool.Pool(2).spawn(haltline.carry(which))
        native = gevent.threadpool.ThreadPool(1).spawn(haltline.carry(which))
        with run.child("a"):
            second = gevent.spawn(haltline.carry(which))
            third = gevent.spawn(which)
            assert second.get() == "r-1.a", second.get()
        assert first.get() == "r-1" and pooled.get() == "r-1" and native.get() == "r-1"
        # gevent copies the context at spawn: a plain greenlet has the run that was current where it was made.
        assert third.get() in ("r-1.a", "none"), third.get()
        late = gevent.spawn(haltline.carry(which))
        switch.service.kill("run:r-1")
        try:
            late.get()
        except Killed:
            pass
        else:
            sys.exit("a greenlet of a stopped run began")
    assert gevent.spawn(which).get() == "none"
"""


@pytest.mark.parametrize("patch", ["pass", "monkey.patch_all()"])
def test_greenlets_carry(patch: str) -> None:
    """A greenlet has the run that it was given, patched or not, and none that was stopped begins."""
    pytest.importorskip("gevent")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(GREENLETS).format(patch=patch)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=40,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
