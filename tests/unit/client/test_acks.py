"""Acks: the position is told soon after a flip was applied, by a thread that is never in the lease's way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from haltline.acks import ACKS_PATH, Acks
from haltline.canonical import parse
from haltline.clocks import Clocks
from haltline.errors import ServiceError
from haltline.renewal import Reply
from haltline.testing import FakeService
from tests.support.lines import Line, connected

WITHIN_S = 0.05


class Desk:
    """Takes acks, or does not."""

    def __init__(self) -> None:
        self.told: list[bytes] = []
        self.deadlines: list[float] = []
        self.made = self.closed = self.rotated = 0
        self.status = 204
        self.broken: Exception | None = None
        self.open = threading.Event()
        self.open.set()

    def post(self, path: str, body: bytes, *, deadline_s: float, limit: int) -> Reply:  # noqa: ARG002  # the port's
        """Take an ack."""
        assert path == ACKS_PATH
        self.told.append(body)
        self.deadlines.append(deadline_s)
        self.open.wait(5)
        if self.broken is not None:
            raise self.broken
        return Reply(self.status, "", encoded=False, body=b"")

    def interrupt(self) -> None:
        """Let go of whoever waits."""
        self.broken = ServiceError("interrupted", sent=True)
        self.open.set()

    def rotate(self) -> None:
        """Count it."""
        self.rotated += 1

    def close(self) -> None:
        """Count it."""
        self.closed += 1

    def make(self) -> Desk:
        """Return itself as another connection."""
        self.made += 1
        return self


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition of another thread holds; fail after 5 s."""
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end, "it did not happen within 5 s"
        time.sleep(0.001)


def threads() -> list[threading.Thread]:
    """Return the threads that tell."""
    return [thread for thread in threading.enumerate() if thread.name == "haltline-acks"]


def test_what_was_applied_is_told() -> None:
    """Within a tenth of a second or two of the flip, in the name of this very process; a snapshot is not told."""
    service = FakeService(ttl_ms=5000)
    with connected(Line(service)) as switch:
        switch.ensure(5)
        assert threads() == []
        service.kill("run:r-1")
        until(lambda: service.acks == {("worker-1", switch._refresher._renewal.identity.instance): 2})  # noqa: SLF001
        service.note("token_created")
        until(lambda: set(service.acks.values()) == {3})
    assert threads() == []


def test_checks_see_what_is_told() -> None:
    """The lease is published first: an ack never claims what this process does not act on yet."""
    service = FakeService(ttl_ms=5000)
    behind: list[int] = []

    class Watched(Line):
        def post(self, path: str, body: bytes, **bounds: Any) -> Reply:
            if path == ACKS_PATH:
                behind.append(switch.position.seq - parse(body)["seq"])
            return super().post(path, body, **bounds)

    with connected(Watched(service)) as switch:
        switch.ensure(5)
        for number in range(20):
            service.kill(f"run:r-{number}")
            time.sleep(0.02)
        until(lambda: set(service.acks.values()) == {21})
    assert min(behind) >= 0


@pytest.mark.parametrize("fault", ["down", "503", "hang"])
def test_an_ack_that_fails_costs_no_lease(fault: str) -> None:
    """It is dropped, and the lease is renewed as ever."""
    service = FakeService(ttl_ms=400)
    hang = threading.Event()

    class Broken(Line):
        def post(self, path: str, body: bytes, **bounds: Any) -> Reply:  # noqa: ARG002
            if fault == "hang":
                hang.wait(1)
            if fault == "down":
                raise ServiceError("down", sent=False)
            return Reply(503, "application/problem+json", encoded=False, body=b"{}")

    line = Broken(service)
    with connected(line) as switch, switch.run("r-1") as run:
        service.kill("run:other")
        end = time.monotonic() + 0.8
        while time.monotonic() < end:
            run.check()
            time.sleep(0.002)
        hang.set()
        assert line.asked == 1


def test_many_flips_are_told_as_one() -> None:
    """Only the newest position; whoever has told it once says no more."""
    desk = Desk()
    acks = Acks(desk.make, Clocks())
    desk.open.clear()
    acks.tell(b"1", within_s=WITHIN_S)
    until(lambda: desk.told == [b"1"])
    for number in range(2, 50):
        acks.tell(b"%d" % number, within_s=WITHIN_S)
    desk.open.set()
    until(lambda: desk.told == [b"1", b"49"])
    time.sleep(0.1)
    assert (desk.told, desk.made) == ([b"1", b"49"], 1)
    acks.close()


def test_an_ack_is_tried_once_and_for_a_second_at_most() -> None:
    """An address that fails is given up for the next ack, one that is busy is not; nothing is told twice."""
    desk = Desk()
    acks = Acks(desk.make, Clocks())
    desk.status = 503
    acks.tell(b"1", within_s=WITHIN_S)
    until(lambda: desk.told == [b"1"])
    desk.broken = ServiceError("reset", sent=True)
    acks.tell(b"2", within_s=WITHIN_S)
    until(lambda: desk.rotated == 1)
    assert desk.told == [b"1", b"2"]
    assert max(desk.deadlines) <= 1
    acks.close()


def test_acks_are_spread() -> None:
    """Over the time that the service names, so that a fleet that hears of one kill does not answer in one moment."""
    pauses = []
    for _ in range(20):
        desk = Desk()
        acks = Acks(desk.make, Clocks())
        begun = time.monotonic()
        acks.tell(b"1", within_s=WITHIN_S)
        until(lambda: desk.told == [b"1"])  # noqa: B023  # within the turn
        pauses.append(time.monotonic() - begun)
        acks.close()
    assert max(pauses) - min(pauses) > 0.01


def test_the_thread_ends_when_there_is_nothing_to_tell() -> None:
    """And gives its connection back; the next flip makes another."""
    desk = Desk()
    acks = Acks(desk.make, Clocks(), idle_s=0.05)
    for number in (1, 2):
        acks.tell(b"%d" % number, within_s=WITHIN_S)
        until(lambda: desk.closed == number)  # noqa: B023  # within the turn
        until(lambda: threads() == [])
    assert (desk.told, desk.made) == ([b"1", b"2"], 2)


def test_closing_ends_the_thread_at_once() -> None:
    """Also in the middle of an ack; afterwards nothing is told."""
    desk = Desk()
    acks = Acks(desk.make, Clocks())
    desk.open.clear()
    acks.tell(b"1", within_s=WITHIN_S)
    until(lambda: desk.told == [b"1"])
    begun = time.monotonic()
    acks.close()
    assert time.monotonic() - begun < 0.5
    acks.tell(b"2", within_s=WITHIN_S)
    time.sleep(0.1)
    assert (desk.told, desk.closed, threads()) == ([b"1"], 1, [])


def test_a_forked_child_begins_with_nothing_to_tell() -> None:
    """Its end of the parent's connection is closed, and its own acks go over another."""
    desk = Desk()
    acks = Acks(desk.make, Clocks())
    desk.open.clear()
    acks.tell(b"1", within_s=WITHIN_S)
    until(lambda: desk.told == [b"1"])
    acks.begin_anew()  # as the child does, which has this one thread
    assert desk.closed == 1
    acks.tell(b"2", within_s=WITHIN_S)
    until(lambda: desk.told == [b"1", b"2"])
    assert desk.made == 2
    desk.open.set()
    acks.close()
    until(lambda: threads() == [])


def test_a_switch_on_a_manual_clock_tells_nothing() -> None:
    """Nothing happens there by itself."""
    service = FakeService()
    switch = service.switch()
    switch.ensure()
    service.kill("run:r-1")
    assert switch.position == service.position
    assert (service.acks, threads()) == ({}, [])
