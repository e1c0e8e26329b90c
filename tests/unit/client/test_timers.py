"""Sleeping and timers: a kill wakes a sleeper at once, and what it discards never fires."""

from __future__ import annotations

import asyncio
import logging
import resource
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from haltline import CapabilityFrozen, Killed, Refusal, Unverified, check, current_run
from haltline.flips import InFlight, Queued
from haltline.testing import FakeService, FakeSwitch, fake_switch
from tests.support.lines import Line, connected

SOON_S = 0.05


@pytest.fixture
def switch() -> Iterator[FakeSwitch]:
    """Return a switch with its background thread on the machine's clocks."""
    made = fake_switch(background=True)
    yield made
    made.close()


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition of another thread holds; fail after 10 s."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it did not happen within 10 s"
        time.sleep(0.002)


# -- sleeping ----------------------------------------------------------------------------------------------------------


def test_a_sleep_lasts_as_long_as_it_should(switch: FakeSwitch) -> None:
    """Not shorter, in a thread and in a task; a time that is none is refused."""
    with switch.run("r-1") as run:
        begun = time.monotonic()
        run.sleep(SOON_S)
        asyncio.run(run.asleep(SOON_S))
        assert time.monotonic() - begun >= 2 * SOON_S
        for wrong in (-1.0, float("nan")):
            with pytest.raises(ValueError, match="0 or more"):
                run.sleep(wrong)


@pytest.mark.parametrize(("in_flight", "queued"), [("abort", "discard"), ("finish", "discard"), ("abort", "drain")])
def test_a_kill_wakes_a_sleeper(switch: FakeSwitch, in_flight: InFlight, queued: Queued) -> None:
    """Whatever it says of calls in flight and of planned work: a sleeping run has neither."""
    with switch.run("r-1") as run:
        watched = len(run.calls)
        timer = threading.Timer(SOON_S, switch.service.kill, ("run:r-1",), {"in_flight": in_flight, "queued": queued})
        timer.start()
        begun = time.monotonic()
        with pytest.raises(Killed):
            run.sleep(60)
        assert time.monotonic() - begun < 20
        with pytest.raises(Killed):
            run.sleep(60)  # nor does a stopped run fall asleep
        assert len(run.calls) == watched
        timer.join()


def test_a_kill_wakes_a_sleeping_task(switch: FakeSwitch) -> None:
    """So for asyncio, and no cancellation is left behind."""

    async def main() -> None:
        async with switch.run("r-1") as run:
            watched = len(run.calls)
            sleepers = [asyncio.create_task(run.asleep(60)) for _ in range(50)]
            await asyncio.sleep(SOON_S)
            await asyncio.to_thread(switch.service.kill, "run:r-1")
            done = await asyncio.wait_for(asyncio.gather(*sleepers, return_exceptions=True), 20)
            assert all(isinstance(each, Killed) for each in done)
            assert len(run.calls) == watched

    asyncio.run(main())


def test_a_blip_wakes_a_sleeper(switch: FakeSwitch) -> None:
    """A kill that is revived at once is a stop, also where both come in one frame."""
    with switch.run("r-1") as run:
        woken: list[type[BaseException]] = []

        def work() -> None:
            try:
                run.sleep(60)
            except Killed as killed:
                woken.append(type(killed))

        watched = len(run.calls)
        thread = threading.Thread(target=work)
        thread.start()
        until(lambda: len(run.calls) > watched)
        switch.service.kill("global")
        switch.service.revive("global")
        thread.join(20)
        assert woken == [Killed]


def test_a_lapse_wakes_nobody(switch: FakeSwitch) -> None:
    """Sleeping is no effect: it needs no lease, and the check after it says what there is to say."""
    with switch.run("r-1") as run:
        switch.service.refuse()
        until(lambda: not switch.live)
        run.sleep(SOON_S)
        with pytest.raises(Unverified):
            run.check()
    with pytest.raises(Unverified):
        switch.run("r-2").sleep(0)


def test_a_sleep_does_not_look_again_and_again(switch: FakeSwitch) -> None:
    """It waits for a notice: the thread is woken a few times at most, not once a millisecond."""
    with switch.run("r-1") as run:
        woken = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        run.sleep(1)
        assert resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - woken < 50


def test_planned_work_sleeps_through_a_drain(switch: FakeSwitch) -> None:
    """Redeemed work that a kill lets drain sleeps on; one that discards wakes it."""
    with switch.run("r-1") as run:
        stamp = run.plan("send_email")
    with switch.redeem(stamp) as work:
        threading.Timer(SOON_S, switch.service.kill, ("tenant:acme",), {"queued": "drain"}).start()
        switch.service.kill("run:r-1", queued="drain")
        work.sleep(4 * SOON_S)
        switch.service.kill("capability:send_email")
        with pytest.raises(CapabilityFrozen):
            work.sleep(60)


# -- timers ------------------------------------------------------------------------------------------------------------


def test_a_timer_fires_once_and_in_order(switch: FakeSwitch) -> None:
    """When it is due, with its arguments, as work of the run that planned it."""
    fired: list[tuple[str, str]] = []

    def note(what: str) -> None:
        check("send_email")
        fired.append((what, current_run().id))

    with switch.run("r-1") as run:
        timers = [
            run.call_later(0.3, note, "late", capability="send_email"),
            run.call_later(0.0, note, "soon", capability="send_email"),
            run.call_later(0.15, note, "cancelled", capability="send_email"),
        ]
        assert timers[2].cancel()
        assert not timers[2].cancel()
        until(lambda: len(fired) == 2)
        run.sleep(SOON_S)
    assert fired == [("soon", "r-1"), ("late", "r-1")]
    assert [timer.state for timer in timers] == ["fired", "fired", "cancelled"]
    assert len(run.calls) == 0


@pytest.mark.parametrize("target", ["run:r-1", "global", "capability:send_email"])
def test_a_discarded_timer_never_fires(switch: FakeSwitch, target: str) -> None:
    """Nor after the revive; it is kept with what planning it anew takes, and a sibling's fires."""
    fired: list[str] = []
    with switch.run("r-1") as run, switch.run("r-2") as sibling:
        timers = [run.call_later(0.3, fired.append, "r-1", capability="send_email") for _ in range(100)]
        other = sibling.call_later(0.3, fired.append, "r-2", capability="read")
        switch.service.kill(target)
        switch.service.revive(target)
        assert {timer.state for timer in timers} == {"discarded"}
        until(lambda: other.left < -0.2)
        until(lambda: other.state != "waiting")
    assert fired == ([] if target == "global" else ["r-2"])
    records = [each for each in switch.discarded() if each.run == "r-1"]
    assert len(records) == 100
    assert (records[0].capability, records[0].stamp, records[0].reason) == ("send_email", None, Refusal.DISCARDED)
    assert records[0].what == "list.append"


def test_a_drained_timer_fires(switch: FakeSwitch) -> None:
    """Under the kill, though the run itself is halted; what it does inside passes its checks."""
    fired: list[str] = []

    def note() -> None:
        check("send_email")
        with current_run().child("part") as part:
            part.check("send_email")
        fired.append("fired")

    with switch.run("r-1") as run:
        for _ in range(100):
            run.call_later(0.2, note)
        switch.service.kill("run:r-1", queued="drain")
        with pytest.raises(Killed):
            run.check()
        with pytest.raises(Killed):
            run.call_later(0, note)
        until(lambda: len(fired) == 100)


def test_a_timer_that_is_due_without_a_lease_waits() -> None:
    """Not proven is not dead: it fires once the lease is back, or never, if a kill came meanwhile."""
    fired: list[str] = []
    switch = fake_switch(background=True, ttl_ms=200)
    with switch, switch.run("r-1") as run, switch.run("r-2") as other:
        switch.service.down()
        until(lambda: not switch.live)
        switch.service.up()
        run.ensure(5)
        timer = run.call_later(0.2, fired.append, "r-1")
        dead = other.call_later(0.2, fired.append, "r-2")
        switch.service.down()
        until(lambda: timer.left < -0.5 and not switch.live)
        assert (fired, timer.state) == ([], "waiting")
        switch.service._log.kill("run:r-2", reason="stop", actor="operator")  # noqa: SLF001 - nobody hears of it yet
        switch.service.up()
        until(lambda: timer.state == "fired" and dead.state == "discarded")
        time.sleep(SOON_S)
    assert fired == ["r-1"]


def test_a_timer_that_fails_is_said(switch: FakeSwitch, caplog: pytest.LogCaptureFixture) -> None:
    """It breaks neither the next one nor the process."""
    fired: list[str] = []
    with switch.run("r-1") as run, caplog.at_level(logging.ERROR, "haltline"):
        run.call_later(0, int, "no number")
        run.call_later(SOON_S, fired.append, "next")
        until(lambda: bool(fired) and "no number" in caplog.text)


def test_a_closed_switch_fires_nothing(switch: FakeSwitch) -> None:
    """Its timers are dropped when they are due."""
    fired: list[str] = []
    with switch.run("r-1") as run:
        timer = run.call_later(SOON_S, fired.append, "r-1")
        switch.close()
        until(lambda: timer.state == "dropped")
    assert fired == []


FORKING = textwrap.dedent(
    """
    import os, time
    from haltline.testing import fake_switch
    with fake_switch(background=True) as switch, switch.run("r-1") as run:
        timer = run.call_later(0.5, os.write, 1, b"parent ")
        child = os.fork()
        if child == 0:
            run.ensure(5)
            state = timer.state
            run.call_later(0.0, os.write, 1, f"child {state} ".encode())
            time.sleep(1.5)
            os._exit(0)
        os.waitpid(child, 0)
    """
)


def test_a_forked_child_has_timers_of_its_own() -> None:
    """What the parent planned fires in the parent alone, and the child may plan anew."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORKING], capture_output=True, check=True, timeout=30)
    assert sorted(done.stdout.split()) == [b"child", b"dropped", b"parent"]


def test_a_sleeper_wakes_as_soon_as_the_frame_is_there() -> None:
    """It waits for no renewal that is due later: with a ttl of 5 s that would be more than a second."""
    line = Line(FakeService(ttl_ms=5000))
    with connected(line) as switch, switch.run("r-1") as run:
        took: list[float] = []

        def kill() -> None:
            took.append(time.monotonic())
            line.service.kill("run:r-1")

        threading.Timer(SOON_S, kill).start()
        with pytest.raises(Killed):
            run.sleep(60)
        assert time.monotonic() - took[0] < 1
