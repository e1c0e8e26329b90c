"""The background thread on streams: every frame counts at once, whoever cannot wait is served, nothing is hammered."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from haltline import CapabilityFrozen, Killed, KillSwitch, Unverified
from haltline.clocks import LEASE_CLOCK, Clocks
from haltline.refresher import Refresher
from haltline.switch import Driver
from haltline.testing import FakeService
from haltline.testing.streams import FakeStream
from haltline.verdict import Reason
from tests.support.lines import Held, Line, connected


@pytest.fixture
def service() -> FakeService:
    """Return a service with the longest ttl: without a flip a frame comes every 1.25 s only."""
    return FakeService(ttl_ms=5000)


@pytest.fixture
def line(service: FakeService) -> Line:
    """Return a line to it."""
    return Line(service)


@pytest.fixture
def switch(line: Line) -> Iterator[KillSwitch]:
    """Return a switch that holds a stream."""
    with connected(line) as made:
        assert made.ensure(5)
        yield made


def until(condition: Callable[[], bool]) -> float:
    """Wait until a condition of another thread holds, and return how long that took; fail after 5 s."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() < begun + 5, "it did not happen within 5 s"
        time.sleep(0.001)
    return time.monotonic() - begun


def test_a_flip_arrives_at_once_and_by_itself(switch: KillSwitch, line: Line, service: FakeService) -> None:
    """Nobody asks, no beat is due, and no request is made."""
    with switch.run("r-1") as run:
        hold = service.kill("run:r-1")
        assert until(lambda: switch.position.seq == hold.seq) < 1
        with pytest.raises(Killed):
            run.check()
    assert line.asked == 1


def test_a_frame_wakes_whoever_waits(switch: KillSwitch, service: FakeService) -> None:
    """In threads and in tasks."""
    service.kill("capability:send_email")
    run = switch.run("r-1")
    run.arm()
    until(lambda: "capability:send_email" in switch._refresher.lease.replica.holds)  # noqa: SLF001
    with pytest.raises(CapabilityFrozen):
        run.check("send_email")

    async def main() -> None:
        in_task = asyncio.create_task(run.async_wait("send_email", timeout=5))
        in_thread = asyncio.create_task(asyncio.to_thread(run.wait, "send_email", timeout=5))
        await asyncio.sleep(0.05)
        assert not in_task.done()
        begun = time.monotonic()
        service.revive("capability:send_email")
        await asyncio.gather(in_task, in_thread)
        assert time.monotonic() - begun < 0.4, "woken by the frame, not by looking twice a second"

    asyncio.run(main())


def test_after_an_orderly_end_the_next_stream_follows_and_no_check_stops(service: FakeService) -> None:
    """Again and again, on the same line: the running lease covers the gap, and the service is not given up."""
    service = FakeService(ttl_ms=400)
    line = Line(service)
    with connected(line) as switch, switch.run("r-1") as run:
        for streams in range(2, 6):
            service.end_streams()
            while line.asked < streams:
                run.check()
                time.sleep(0.002)
        assert (line.rotated, line.interrupted) == (0, 0)


def test_a_node_that_ends_streams_at_once_is_asked_four_times_a_ttl_at_most(switch: KillSwitch, line: Line) -> None:
    """However fast it ends them."""
    service, begun, asked = line.service, time.monotonic(), line.asked
    while time.monotonic() < begun + 1:
        service.end_streams()
        time.sleep(0.002)
    assert line.asked - asked <= 2


def test_a_broken_stream_is_given_up_and_the_next_service_tried(
    switch: KillSwitch, line: Line, service: FakeService
) -> None:
    """After a pause of 50 to 150 ms; the lease goes on meanwhile."""
    service.down()
    until(lambda: line.rotated == 1)
    assert switch.live
    service.up()
    asked = line.asked
    until(lambda: line.asked == asked + 1)
    assert switch.live


@pytest.mark.parametrize(("status", "live"), [(503, True), (500, True), (401, False), (403, False)])
def test_a_refusal_gives_the_service_up(
    switch: KillSwitch, line: Line, service: FakeService, status: int, *, live: bool
) -> None:
    """A 5xx leaves the lease as it is, a 401 or 403 ends it."""
    service.refuse(status)
    until(lambda: line.rotated >= 1)
    assert switch.live is live


def test_who_cannot_wait_gets_a_stream_of_its_own_time(line: Line, service: FakeService) -> None:
    """While one is open but keeps no lease, as after the machine slept: it is left, and the next one asked for."""
    slept = 0

    def gettime_ns(clock: int) -> int:
        return time.clock_gettime_ns(clock) + (slept if clock in (LEASE_CLOCK, time.CLOCK_REALTIME) else 0)

    clocks = Clocks(gettime=lambda clock: gettime_ns(clock) / 1e9, gettime_ns=gettime_ns)
    driver = Driver(clocks, connect=lambda: line)
    with KillSwitch("https://fake.invalid", token=service.token, driver=driver) as switch:
        run = switch.run("r-1")
        run.arm()
        slept = 6_000_000_000
        with pytest.raises(Unverified):
            run.check()
        begun = time.monotonic()
        run.ensure(3)
        assert time.monotonic() - begun < 0.5
        assert (line.asked, line.interrupted, line.rotated) == (2, 1, 0)


def test_closing_does_not_wait_for_the_next_frame(switch: KillSwitch, line: Line) -> None:
    """Whoever reads is woken at once."""
    begun = time.monotonic()
    switch.close()
    assert time.monotonic() - begun < 0.6
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("haltline")]


def test_without_streams_one_frame_is_asked_for_at_a_time() -> None:
    """The polling fallback, every third of the ttl; it needs no acks, each request is one."""
    service = FakeService(ttl_ms=200)
    line = Line(service)
    refresher = Refresher(
        lambda: line, worker=lambda: "w", namespace="default", clocks=Clocks(), background=True, stream=False
    )
    refresher.ensure(5)
    service.kill("run:r-1")
    until(lambda: line.posted >= 4)
    refresher.close()
    assert line.posted == line.asked
    assert service.acks == {}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_died_in_a_stream_leaves_nothing_open() -> None:
    """Its successor begins on a fresh connection."""
    line = Line(FakeService(ttl_ms=200))
    with connected(line) as switch:
        switch.ensure(5)
        line.broken = ZeroDivisionError("a bug in the transport")
        until(lambda: not [thread for thread in threading.enumerate() if thread.name == "haltline-refresher"])
        line.broken = None
        until(lambda: not switch.live)
        assert line.closed == 0
        assert switch.ensure(5)
        assert (line.asked, line.closed) == (2, 1)


# -- what is newer than a moment -------------------------------------------------------------------------------------


class Scripted(Line):
    """A line on which frames go out when the test says so, as they were when they were made."""

    def __init__(self, service: FakeService) -> None:
        super().__init__(service)
        self.go = threading.Semaphore(1)  # for the first frame
        self.made: list[bytes] = []

    def stream(self, path: str, body: bytes, *, deadline_s: float) -> Held:
        """Return the service's stream."""
        super().stream(path, body, deadline_s=deadline_s)
        assert self.reading is not None
        return Sent(self, self.reading)

    def make(self) -> None:
        """Make the next frame, which is read only later."""
        assert self.reading is not None
        self.made.append(self.reading.beat())


class Sent(Held):
    """The stream of a scripted line."""

    def __init__(self, line: Scripted, stream: FakeStream) -> None:
        super().__init__(line, stream)
        self._script = line

    def line(self, *, deadline_s: float, limit: int) -> bytes | None:
        """Return the next frame, once it may go."""
        if not self._script.go.acquire(timeout=deadline_s):
            return super().line(deadline_s=0, limit=limit)
        return self._script.made.pop(0) if self._script.made else self._stream.beat()


def test_a_frame_that_was_read_before_a_moment_is_not_newer() -> None:
    """Whenever it arrives: an arming that waits for the truth of now never takes an older one for it."""
    service = FakeService(ttl_ms=5000)
    line = Scripted(service)
    refresher = Refresher(lambda: line, worker=lambda: "w", namespace="default", clocks=Clocks())
    refresher.ensure(5)
    line.make()
    time.sleep(0.02)
    ready = refresher.newer()
    line.go.release()
    until(lambda: refresher.renewals == 2)
    time.sleep(0.02)
    assert not ready()
    line.go.release()
    until(lambda: refresher.renewals == 3)
    until(ready)
    assert line.asked == 1
    line.go.release(5)
    refresher.close()


def test_a_run_that_seems_killed_is_armed_once_its_revive_has_come(
    switch: KillSwitch, line: Line, service: FakeService
) -> None:
    """Though the revive is younger than the last frame: the arming waits for a truth of now."""
    service.kill("run:r-1")
    until(lambda: bool(switch._refresher.lease.replica.holds))  # noqa: SLF001
    line.open.clear()
    service.revive("run:r-1")
    threading.Timer(0.1, line.open.set).start()
    run = switch.run("r-1")
    run.arm(5)
    run.check()
    assert run.armed_seq == service.position.seq


# -- said loudly ------------------------------------------------------------------------------------------------------


def test_another_log_is_said_loudly_once_and_never_by_a_check(
    switch: KillSwitch, line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    """One line at level ERROR from the refresher's thread, however long it lasts; checks only raise."""
    caplog.set_level(logging.DEBUG)
    run = switch.run("r-1")
    run.arm()
    other = FakeService()
    line.service.down()
    line.service = other
    until(lambda: not switch.live)
    until(lambda: other.requests >= 3)
    with pytest.raises(Unverified) as caught:
        run.check()
    assert caught.value.verdict.reason is Reason.FOREIGN
    (said,) = caplog.records
    assert (said.name, said.levelname, said.threadName) == ("haltline", "ERROR", "haltline-refresher")
    assert said.getMessage().startswith("no run may go on (foreign): the service answered 409")


def test_an_outage_is_not_said_loudly(
    switch: KillSwitch, line: Line, service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    """It is no news to anybody, and may last."""
    caplog.set_level(logging.DEBUG)
    service.down()
    until(lambda: line.rotated >= 3)
    assert caplog.records == []
