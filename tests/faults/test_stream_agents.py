"""What an agent's own process does to its lease stream: a hogged interpreter, signals, dead threads, an event loop."""

from __future__ import annotations

import asyncio
import ctypes
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Final

import pytest

from haltline import Halt, KillSwitch, Run, Unverified
from tests.e2e.server import Server
from tests.support.fault_modes import Mode
from tests.support.fault_proxy import FaultProxy
from tests.support.fleet import url
from tests.support.probes import now, on_lease_clock

TTL_S: Final = 0.6
HOG_S: Final = 3
IN_HANDLERS: Final = 10_000

KILLER: Final = """
import http.client, json, sys, time
time.sleep(0.5)
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=10)
headers = {"Authorization": f"Bearer {sys.argv[2]}", "Content-Type": "application/json"}
connection.request("POST", "/v1/kills", json.dumps({"target": sys.argv[3], "reason": "why"}), headers)
print(json.loads(connection.getresponse().read())["effective_at"])
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a node."""
    with Server(tmp_path_factory.mktemp("node"), more={"HALTLINE_TTL_MS": str(int(TTL_S * 1000))}) as running:
        yield running


@pytest.fixture
def switch(node: Server) -> Iterator[KillSwitch]:
    """Return a switch in this very process."""
    with KillSwitch(url(node), token=node.token) as made:
        yield made


def passed(run: Run) -> tuple[int, bool]:
    """Check, and return the clock before it and whether it passed."""
    before = now()
    try:
        run.check("send_email")
    except Halt:
        return before, False
    return before, True


def hog(seconds: float) -> None:
    """Sleep without giving up the interpreter: no other thread of this process runs meanwhile."""
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


def test_a_hogged_interpreter_lets_nothing_pass(node: Server, switch: KillSwitch) -> None:
    """Three seconds in C, five ttl; killed meanwhile: no check passes later than effective_at, from the first one on.

    A run that nobody killed goes on within two seconds.
    """
    with switch.run("r-hog", timeout=5) as run, switch.run("r-alive") as alive:
        killer = subprocess.Popen(
            [sys.executable, "-c", KILLER, str(node.port), node.token, "run:r-hog"], stdout=subprocess.PIPE, text=True
        )
        hog(HOG_S)
        over = now()
        seen = [passed(run) for _ in range(2_000)]
        told, _ = killer.communicate(timeout=10)
        effective_at = on_lease_clock(told.strip())
        assert effective_at < over, "the kill took longer than the hog"
        assert [before for before, went in seen if went and before > effective_at] == []
        alive.wait(timeout=5)
        assert now() - over < 2_000_000_000


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_refresher_that_is_killed_is_replaced(switch: KillSwitch) -> None:
    """In the middle of a stream: the run stops within ttl if nobody sees it, and goes on within two seconds."""
    with switch.run("r-1", timeout=5) as run:
        (thread,) = [each for each in threading.enumerate() if each.name == "haltline-refresher"]
        assert thread.ident is not None
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
        thread.join(5)
        assert not thread.is_alive()
        died = now()
        while passed(run)[1]:
            time.sleep(0.001)
        assert now() - died < 2_000_000_000
        stopped = now()
        while not passed(run)[1]:
            assert now() - stopped < 2_000_000_000
            time.sleep(0.001)
        (replaced,) = [each for each in threading.enumerate() if each.name == "haltline-refresher"]
        assert replaced is not thread


def test_checks_in_signal_handlers(node: Server, switch: KillSwitch) -> None:
    """Ten thousand of them, while a stream runs and the interrupted code waits, checks and renews: none hangs."""
    done = stopped = 0
    with switch.run("r-signals", timeout=5) as run:

        def handler(_number: int, _frame: FrameType | None) -> None:
            nonlocal done, stopped
            done += 1
            try:
                run.check("send_email")
            except Unverified:
                stopped += 1

        before = signal.signal(signal.SIGALRM, handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
            end = time.monotonic() + 30
            while done < IN_HANDLERS:
                assert time.monotonic() < end, f"only {done} in 30 s"
                run.ensure(1)
                run.wait(timeout=1)
                run.check()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert stopped == 0
        reply = node.kill("run:r-signals")
        effective_at = on_lease_clock(reply.members["effective_at"])
        while now() < effective_at:
            time.sleep(0.01)
        assert not passed(run)[1]


def test_an_event_loop_does_not_wait_for_a_dead_node(node: Server) -> None:
    """With the node in a black hole, tasks that check and wait for a lease hold up nobody else in the loop."""

    async def main(path: FaultProxy) -> list[float]:
        lags: list[float] = []

        async def tick() -> None:
            while True:
                began = time.monotonic()
                await asyncio.sleep(0.005)
                lags.append(time.monotonic() - began - 0.005)

        with KillSwitch(path.url, token=node.token) as switch:
            async with switch.run("r-1", timeout=5) as run:
                ticking = asyncio.create_task(tick())
                path.set(Mode.LOSE)
                waiting = [asyncio.create_task(run.async_wait(timeout=2.5 * TTL_S)) for _ in range(10)]
                end = time.monotonic() + 2.5 * TTL_S
                stops = 0
                while time.monotonic() < end:
                    try:
                        await run.aensure(0.05)
                    except Unverified:
                        stops += 1
                    await asyncio.sleep(0.002)
                assert stops > 5
                await asyncio.gather(*waiting, return_exceptions=True)
                ticking.cancel()
                path.heal()
                await run.async_wait(timeout=5)
        return lags

    with FaultProxy(node.port) as path:
        lags = asyncio.run(main(path))
    assert len(lags) > 50
    assert statistics.median(lags) < 0.02
    assert max(lags) < 0.25, "the shortest time-out of any exchange: the loop waited for one"
