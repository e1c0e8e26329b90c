"""A process that is stopped while the kill happens does nothing when it is resumed (SIGSTOP, for real)."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from haltline.testing import FakeService
from tests.support.counts import NIGHTLY
from tests.support.fault_server import FaultServer, Mode

TTL_S: Final = 0.3
TRIALS: Final = 20 if NIGHTLY else 3


class Agent:
    """An agent process and the lines that it tells."""

    def __init__(self, server: FaultServer) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.agent"],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "HALTLINE_URL": server.url, "HALTLINE_TOKEN": server.service.token},
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.strip())

    def told(self) -> list[str]:
        """Return what it told since the last time."""
        lines = []
        while not self._lines.empty():
            lines.append(self._lines.get())
        return lines

    def until(self, start: str) -> list[str]:
        """Return its lines up to the first that begins so; fail after 20 s of silence."""
        lines = [self._lines.get(timeout=20)]
        while not lines[-1].startswith(start):
            lines.append(self._lines.get(timeout=20))
        return lines

    def end(self) -> None:
        """End it, stopped or not."""
        self.process.kill()
        self.process.wait(5)
        self._reader.join(5)
        if self.process.stdout is not None:
            self.process.stdout.close()


@contextmanager
def at_work(server: FaultServer) -> Iterator[Agent]:
    """Return an agent that has begun to do things."""
    agent = Agent(server)
    try:
        agent.until("effect")
        yield agent
    finally:
        agent.end()


def now() -> int:
    """Return the clock that agents tell, nanoseconds."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("then", ["reachable", "unreachable", "with a buffered reply"])
def test_nothing_happens_after_a_pause(then: str) -> None:
    """Stopped for longer than ttl; killed meanwhile; resumed, with the service there, gone, or its old reply waiting.

    The old reply was made before the kill and lies in the socket's buffer: it is the news that arrives late.
    """
    for trial in range(TRIALS if NIGHTLY else 1):
        with FaultServer(FakeService(ttl_ms=int(TTL_S * 1000))) as server, at_work(server) as agent:
            time.sleep(0.02 * (trial % 10))
            if then == "with a buffered reply":
                server.mode = Mode.HOLD
                assert server.held.wait(5)
            os.kill(agent.process.pid, signal.SIGSTOP)
            server.release.set()
            time.sleep(0.05)
            server.service.kill("run:r-1")
            effective_at = now() + int(TTL_S * 1e9)
            server.mode = Mode.BLACK_HOLE if then != "reachable" else Mode.NORMAL
            time.sleep(TTL_S + 0.1)
            agent.told()
            resumed = now()
            os.kill(agent.process.pid, signal.SIGCONT)
            lines = agent.until("stop")
            time.sleep(0.4)
            lines += agent.told()
            effects = [int(line.split()[1]) for line in lines if line.startswith("effect")]
            # One check may have read its clock before the stop and told of it after.
            assert [moment for moment in effects if moment > effective_at] == []
            assert [moment for moment in effects if moment > resumed] == []
            if then == "reachable":
                assert lines[-1] == "stop killed"


def test_a_resumed_process_goes_on_where_nobody_killed() -> None:
    """It was never latched: its lease had lapsed, and is granted anew."""
    with FaultServer(FakeService(ttl_ms=int(TTL_S * 1000))) as server, at_work(server) as agent:
        os.kill(agent.process.pid, signal.SIGSTOP)
        time.sleep(TTL_S + 0.1)
        agent.told()
        resumed = now()
        os.kill(agent.process.pid, signal.SIGCONT)
        # It may say "stop" once before that: whether its check or its renewal comes first is a race.
        while int(agent.until("effect")[-1].split()[1]) < resumed:
            pass
