"""The background bell: whoever rings never waits, and a doorbell that fails is told once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from structlog.testing import capture_logs

from app.service.doorbell import BackgroundBell, DoorbellUnavailable


class Bell:
    """A doorbell that does what it is told: fail for some positions, hang until the gate opens."""

    def __init__(self, *, fails: frozenset[int] = frozenset(), hangs: bool = False) -> None:
        self.gate = threading.Event()
        self.reached = threading.Event()
        self.rung: list[int] = []
        self.calls: list[str] = []
        self._fails = fails
        self._more = threading.Condition()
        if not hangs:
            self.gate.set()

    def ring(self, seq: int) -> None:
        self.reached.set()
        self.gate.wait(5)
        with self._more:
            self.rung.append(seq)
            self._more.notify_all()
        if seq in self._fails:
            raise DoorbellUnavailable("nobody is there")

    def listen(self, heard: Callable[[int], None]) -> None:  # noqa: ARG002 - the port's
        self.calls.append("listen")

    def start(self) -> None:
        self.calls.append("start")

    def close(self) -> None:
        self.calls.append("close")

    def has_rung(self, seq: int) -> bool:
        """Wait until it was rung with ``seq``."""
        with self._more:
            return self._more.wait_for(lambda: seq in self.rung, 5)


def test_a_frozen_doorbell_costs_a_kill_nothing() -> None:
    """Ring returns while the doorbell hangs; what could not be rung meanwhile is covered by one later ring."""
    bell = Bell(hangs=True)
    background = BackgroundBell(bell)
    for seq in range(1, 101):
        background.ring(seq)
    assert bell.rung == []
    bell.gate.set()
    assert bell.has_rung(100)
    background.close()
    assert len(bell.rung) <= 2


def test_an_older_position_never_replaces_a_newer_one() -> None:
    """Two flips whose commits overtake each other on the way here ring with the newer position."""
    bell = Bell(hangs=True)
    background = BackgroundBell(bell)
    for seq in (1, 9, 8):
        background.ring(seq)
    bell.gate.set()
    assert bell.has_rung(9)
    background.close()
    assert 8 not in bell.rung


def test_an_unavailable_doorbell_is_survived() -> None:
    """After a doorbell failed, the next flip rings again."""
    bell = Bell(fails=frozenset({1}))
    background = BackgroundBell(bell)
    background.ring(1)
    assert bell.has_rung(1)
    background.ring(2)
    assert bell.has_rung(2)
    background.close()


def test_a_doorbell_that_goes_on_failing_is_told_once() -> None:
    """The journal says once that the doorbell is silent and once that it rings again, however many flips there are."""
    bell = Bell(fails=frozenset(range(1, 6)))
    with capture_logs() as journal:
        background = BackgroundBell(bell)
        for seq in range(1, 9):
            background.ring(seq)
            assert bell.has_rung(seq)
        background.close()
    assert [each["event"] for each in journal] == ["doorbell_silent", "doorbell_rings_again"]
    assert "nobody is there" in journal[0]["detail"]


def test_closing_ends_the_doorbell_and_does_not_wait_for_it() -> None:
    """Close closes the doorbell it rings, returns while that hangs, and nothing is rung afterwards."""
    bell = Bell(hangs=True)
    background = BackgroundBell(bell)
    background.ring(1)
    assert bell.reached.wait(5)
    began = time.monotonic()
    background.close()
    assert time.monotonic() - began < 2
    assert bell.calls == ["close"]
    background.ring(2)
    bell.gate.set()
    assert bell.has_rung(1)
    assert bell.rung == [1]


def test_it_listens_and_starts_what_it_rings() -> None:
    """Listening and starting are the doorbell's own."""
    bell = Bell()
    background = BackgroundBell(bell)
    background.listen(lambda _seq: None)
    background.start()
    assert bell.calls == ["listen", "start"]
