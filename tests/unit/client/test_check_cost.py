"""check() is a memory look-up: no system call, no lock, no wait, and no torn reading of state and deadline."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from haltline import Killed, KillSwitch, Unverified
from haltline.clocks import Clocks
from haltline.switch import Driver
from haltline.testing import FakeService, fake_switch
from tests.support.lines import Line, connected

STRACE = shutil.which("strace")
TRACED = textwrap.dedent(
    """
    import os
    from haltline import guarded
    from haltline.testing import FakeService
    from tests.support.lines import Line, quiet
    switch = quiet(Line(FakeService(ttl_ms=5000)))  # the machine's own clocks, and no thread of its own
    with switch.run("r-1") as run:
        guard = run.guard("send_email")
        send = guarded("send_email")(int)
        run.check("send_email"), run.check(), guard(), send()
        os.write(2, b"BEGIN")
        for _ in range(2000):
            run.check("send_email")
            run.check()
            guard()
            send()
        os.write(2, b"END")
    """
)


@pytest.mark.skipif(STRACE is None, reason="strace is not on PATH")
def test_check_makes_no_system_call(tmp_path: Path) -> None:
    """Between two marks that a traced process writes there is nothing else."""
    trace = tmp_path / "trace"
    done = subprocess.run(
        [STRACE or "strace", "-f", "-o", str(trace), sys.executable, "-c", TRACED],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        check=False,
        timeout=50,
    )
    if b"PTRACE" in done.stderr or b"not permitted" in done.stderr:
        pytest.skip("this sandbox does not let strace trace")
    assert done.returncode == 0, done.stderr
    # Where the kernel has no fast clock (some sandboxes), reading it is a call; anywhere else it is none.
    calls = [line for line in trace.read_text(encoding="utf-8").splitlines() if "clock_gettime(" not in line]
    (begin,) = [number for number, line in enumerate(calls) if 'write(2, "BEGIN' in line]
    (end,) = [number for number, line in enumerate(calls) if 'write(2, "END' in line]
    assert calls[begin + 1 : end] == []


@pytest.fixture
def alarms() -> Iterator[None]:
    """Take care that no timer outlives the test."""
    before = signal.getsignal(signal.SIGALRM)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("alarms")
def test_check_in_a_signal_handler() -> None:
    """Ten thousand times, in the middle of checks, waits and renewals: never a deadlock, never a wrong answer."""
    line = Line(FakeService(ttl_ms=200))
    counts = {"passed": 0, "stopped": 0}
    with connected(line) as switch, switch.run("r-1") as run:
        lapsed = switch.run("never-armed")

        def handler(number: int, frame: FrameType | None) -> None:
            for _ in range(10):
                run.check("send_email")
                counts["passed"] += 1
                try:
                    lapsed.check()
                except Unverified:
                    counts["stopped"] += 1

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        end = time.monotonic() + 20
        while counts["passed"] < 10_000:
            assert time.monotonic() < end, counts
            run.ensure()
            switch.ensure(0.001)
            run.check("read_inbox")
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert counts["stopped"] >= 10_000


@pytest.mark.usefixtures("alarms")
def test_a_handler_that_interrupts_the_start_starts_no_second_thread() -> None:
    """A check in a handler, while this very thread starts the refresher: the lock lets it in, the start does not."""
    for _ in range(30):
        others = set(threading.enumerate())  # of other tests, that may not have ended yet
        switch = connected(Line(FakeService()))
        run = switch.run("r-1")

        def handler(number: int, frame: FrameType | None) -> None:
            with pytest.raises(Unverified):
                run.check()  # noqa: B023  # used within the turn
            # One at a time: on a slow machine a handler may take longer than that, and nothing else would ever run.
            signal.setitimer(signal.ITIMER_REAL, 0.00005)

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.00005)
        switch.ensure(1)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)
        running = [thread for thread in set(threading.enumerate()) - others if thread.name == "haltline-refresher"]
        assert len(running) == 1
        switch.close()


def test_a_swap_in_the_middle_of_a_check_does_not_let_it_pass() -> None:
    """The kill arrives with a new deadline just when check() has read the clock: it decides on what it loaded first."""
    service = FakeService()
    swap: list[str] = []

    def gettime(clock: int) -> float:
        read = service.clock.clocks.gettime(clock)
        if swap:
            service.kill(swap.pop())
            switch.ensure()
        return read

    clocks = Clocks(gettime=gettime, gettime_ns=service.clock.clocks.gettime_ns)
    line = Line(service)
    driver = Driver(clocks, connect=lambda: line, background=False)
    switch = KillSwitch("https://h", token=service.token, driver=driver)
    for way in ("check", "guard"):
        run = switch.run(f"r-{way}")
        run.arm()
        check = run.guard("send_email") if way == "guard" else run.check
        check()
        service.clock.advance(2)
        swap.append(f"run:r-{way}")
        with pytest.raises((Killed, Unverified)):
            check()
        assert switch.live
        with pytest.raises(Killed):
            check()


def test_state_and_deadline_never_tear() -> None:
    """While renewals swap replicas as fast as they can, no check passes on an old replica and a new deadline.

    Each turn kills a run and only then grants a lease that has not lapsed: whoever passes on the new deadline has seen
    the old replica.
    """
    switch = fake_switch()
    service, clock = switch.service, switch.clock
    torn: list[str] = []
    passed: set[str] = set()
    stop = threading.Event()
    runs = [switch.run(f"r-{number}") for number in range(40)]
    for run in runs:
        run.arm()
    current = [runs[0]]
    dead: set[str] = set()

    def checker() -> None:
        while not stop.is_set():
            run = current[0]
            known_dead = run.id in dead
            try:
                run.check("send_email")
            except (Killed, Unverified):
                continue
            passed.add(run.id)
            if known_dead:
                torn.append(run.id)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=checker) for _ in range(3)]
    try:
        for thread in threads:
            thread.start()
        for run in runs:
            current[0] = run
            while run.id not in passed:  # the check has remembered its answer under this replica
                time.sleep(0)
            clock.advance(2)  # the lease has lapsed: from here on, only a new deadline lets anybody pass
            dead.add(run.id)
            service.kill(f"run:{run.id}")  # renews at once: replica and deadline are swapped
            for _ in range(20):
                switch.renew()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    assert torn == []


def test_check_never_waits_while_the_service_hangs() -> None:
    """The longest of many checks during an outage is bounded by the machine's own pauses."""
    line = Line(FakeService(ttl_ms=200))
    with connected(line) as switch, switch.run("r-1") as run:
        line.open.clear()
        longest, stopped = 0.0, 0
        end = time.monotonic() + 0.6
        while (begun := time.monotonic()) < end:
            try:
                run.check("send_email")
            except Unverified:
                stopped += 1
            longest = max(longest, time.monotonic() - begun)
        line.open.set()
    assert stopped
    assert longest < 0.3
