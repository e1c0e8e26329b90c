"""An agent that gevent has patched: deadlines count, a blocked event loop costs no lease, waiting stops nobody else."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from haltline.testing import FakeService
from tests.support.fault_server import FaultServer, Mode

BEGIN = """
from gevent import monkey
monkey.patch_all()
import sys, threading, time
import gevent
from gevent.monkey import get_original
from haltline import KillSwitch, Unverified
block = get_original("time", "sleep")
switch = KillSwitch(sys.argv[1], token=sys.argv[2])
run = switch.run("r-1")
"""


def agent(server: FaultServer, text: str) -> None:
    """Run an agent to its end; it may not fail or print."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BEGIN + textwrap.dedent(text), server.url, server.service.token],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def _fault(server: FaultServer, mode: Mode) -> None:
    """Break for 1.5 s, half a second after the first request."""
    while not server.connections:
        time.sleep(0.01)
    time.sleep(0.5)
    server.mode = mode
    time.sleep(1.5)
    server.mode = Mode.NORMAL


def test_a_blocked_event_loop_costs_no_lease() -> None:
    """A call into C that lets no greenlet run for five ttl: each check after it passes, and the lease was renewed."""
    with FaultServer(FakeService(ttl_ms=400)) as server:
        agent(
            server,
            """
            run.arm()
            run.check("send_email")
            before = switch._refresher.renewals
            for _ in range(10):
                block(0.2)
                run.check("send_email")
            assert switch._refresher.renewals > before + 5
            switch.close()
            """,
        )


def test_one_greenlet_that_waits_stops_no_other() -> None:
    """While one waits for a lease that does not come, another goes on; the wait ends in time."""
    with FaultServer(FakeService(ttl_ms=400)) as server:
        server.mode = Mode.BLACK_HOLE
        agent(
            server,
            """
            ticks, longest = 0, 0.0
            def tick():
                global ticks, longest
                while True:
                    begun = time.monotonic()
                    gevent.sleep(0.005)
                    longest = max(longest, time.monotonic() - begun)
                    ticks += 1
            ticking = gevent.spawn(tick)
            begun = time.monotonic()
            waiting = [gevent.spawn(switch.ensure, 1) for _ in range(20)]
            assert [each.get() for each in waiting] == [False] * 20
            assert 0.9 < time.monotonic() - begun < 2
            assert ticks > 30 and longest < 0.3, (ticks, longest)
            begun = time.monotonic()
            switch.close()
            assert time.monotonic() - begun < 3
            """,
        )


@pytest.mark.parametrize("mode", [Mode.BLACK_HOLE, Mode.DRIP_BODY])
def test_an_exchange_ends_by_its_deadline(mode: Mode) -> None:
    """A service that stops answering stops a run within ttl; when it answers again the run goes on within 2 s."""
    with FaultServer(FakeService(ttl_ms=400)) as server:
        threading.Thread(target=_fault, args=(server, mode), daemon=True).start()
        agent(
            server,
            """
            run.arm()
            run.check()
            begun, stopped, passed = time.monotonic(), 0.0, 0.0
            while time.monotonic() < begun + 8 and not passed:
                gevent.sleep(0.01)
                try:
                    run.check()
                except Unverified:
                    stopped = stopped or time.monotonic()
                else:
                    passed = time.monotonic() if stopped else 0.0
            assert 0 < stopped < begun + 1.5, "nothing stopped it"
            assert 0.5 < passed - stopped < 3.2, passed - stopped  # the fault lasts for 1.1 s of it or more
            switch.close()
            """,
        )


def test_a_flip_reaches_a_patched_agent_at_once_and_is_acked() -> None:
    """Over the stream, while a greenlet hogs the loop; nobody asks for it."""
    with FaultServer(FakeService(ttl_ms=5_000)) as server:

        def kill() -> None:
            _asked(server)
            time.sleep(1)
            server.service.kill("run:r-1")

        threading.Thread(target=kill, daemon=True).start()
        agent(
            server,
            """
            run.arm()
            applied = 0.0
            begun = time.monotonic()
            while time.monotonic() < begun + 10 and not applied:
                block(0.05)
                if switch.position.seq > run.armed_seq:
                    applied = time.monotonic()
            assert applied, "the kill never came"
            gevent.sleep(0.5)
            begun = time.monotonic()
            switch.close()
            assert time.monotonic() - begun < 1, "closing waited for the next frame"
            """,
        )
        assert set(server.service.acks.values()) == {2}


def _asked(server: FaultServer) -> None:
    while not server.service.requests:
        time.sleep(0.01)


def test_a_patched_agent_gets_a_stream_of_its_own_time() -> None:
    """A greenlet that cannot wait has the open stream, which keeps no lease any more, given up."""
    with FaultServer(FakeService(ttl_ms=5_000)) as server:
        agent(
            server,
            """
            import time as clocks
            from haltline.clocks import LEASE_CLOCK, Clocks
            from haltline.switch import Driver
            slept = 0
            def gettime_ns(clock):
                return clocks.clock_gettime_ns(clock) + (slept if clock in (LEASE_CLOCK, clocks.CLOCK_REALTIME) else 0)
            moved = Clocks(gettime=lambda clock: gettime_ns(clock) / 1e9, gettime_ns=gettime_ns)
            switch = KillSwitch(sys.argv[1], token=sys.argv[2], driver=Driver(moved))
            run = switch.run("r-1")
            run.arm()
            slept = 6_000_000_000
            begun = time.monotonic()
            run.ensure(3)
            assert time.monotonic() - begun < 0.8
            switch.close()
            """,
        )


def test_another_log_is_said_loudly_without_the_loop() -> None:
    """One line on the log, though a greenlet holds the handler's lock while the loop is blocked; then it goes on."""
    with FaultServer(FakeService(ttl_ms=400)) as server:
        original = server.service
        foreign = FakeService(ttl_ms=400)
        foreign.token = original.token

        def swap() -> None:
            _asked(server)
            time.sleep(0.7)
            server.service = foreign
            original.end_streams()
            time.sleep(1.2)
            server.service = original
            foreign.end_streams()

        threading.Thread(target=swap, daemon=True).start()
        agent(
            server,
            """
            import io, logging
            told = io.StringIO()
            handler = logging.StreamHandler(told)
            logging.getLogger("haltline").addHandler(handler)
            logging.getLogger("haltline").propagate = False
            run.arm()
            with handler.lock:
                until = time.monotonic() + 10
                while switch.live and time.monotonic() < until:
                    block(0.02)
                assert not switch.live, "the foreign log was never met"
                while not switch.live and time.monotonic() < until:
                    block(0.02)
                assert switch.live, "the thread that renews waits for a log handler"
                assert told.getvalue() == ""
            while not told.getvalue() and time.monotonic() < until:
                gevent.sleep(0.02)
            assert told.getvalue().count("no run may go on (foreign)") == 1, told.getvalue()
            switch.close()
            """,
        )
