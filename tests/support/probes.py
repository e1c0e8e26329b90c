"""Probes: processes that check without pause (tests/support/prober.py), and what they told of each run."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

ROOT: Final = Path(__file__).parents[2]

_Found = TypeVar("_Found")


def now() -> int:
    """Return the lease clock, nanoseconds: the one that probes tell, and that leases are dated on."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _offset() -> int:
    """Return how far the wall clock is ahead of the lease clock, nanoseconds, at most so much."""
    # The wall clock read last: a pause between the two makes what is promised later on the lease clock earlier.
    boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return time.clock_gettime_ns(time.CLOCK_REALTIME) - boot


def on_lease_clock(moment: str) -> int:
    """Return an RFC 3339 moment of this machine's wall clock on its lease clock, nanoseconds.

    Exact to the microsecond that the moment is told in, and never later for what this process was paused meanwhile.
    """
    from datetime import datetime

    wall = datetime.fromisoformat(moment)
    offset = min(_offset() for _ in range(20))
    return int(wall.timestamp() * 1_000_000) * 1_000 + 1_000 - offset


@dataclass(frozen=True, slots=True)
class Stretch:
    """Checks of one run that came out alike: their first and last time, how many, and the reason; empty for go."""

    first: int
    last: int
    count: int
    reason: str


@dataclass
class Told:
    """What a probe told of one run, in order."""

    armed: int = 0
    refused: str = ""
    stretches: list[Stretch] = field(default_factory=list)

    def passes_after(self, moment: int, *, until: int | None = None) -> list[Stretch]:
        """Return the stretches of passed checks that reach beyond a moment, and do not begin after another."""
        return [
            each
            for each in self.stretches
            if not each.reason and each.last > moment and (until is None or each.first < until)
        ]

    def stops(self, *, since: int = 0, until: int | None = None) -> list[Stretch]:
        """Return the stretches of stopped checks that begin in a span of time."""
        return [
            each
            for each in self.stretches
            if each.reason and each.first >= since and (until is None or each.first < until)
        ]

    def stopped_between(self, since: int, until: int) -> int:
        """Return for how long checks were stopped in a span of time, nanoseconds."""
        down = 0
        for each, after in pairwise(self.stretches):
            if each.reason:
                down += max(0, min(after.first, until) - max(each.first, since))
        return down

    def goes(self, *, since: int) -> Stretch | None:
        """Return the first stretch of passed checks that begins at a moment or later."""
        return next((each for each in self.stretches if not each.reason and each.first >= since), None)


class Probe:
    """One such process; a context manager that leaves nothing behind.

    Attributes:
        cost: how many checks were made, and in how many of them the thread gave up the processor by itself.
    """

    def __init__(self, url: str, token: str, **more: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.prober"],
            cwd=ROOT,
            env={**os.environ, "HALTLINE_URL": url, "HALTLINE_TOKEN": token, **more},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.cost = (0, 0)
        self._told: dict[str, Told] = {}
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it, stopped or not."""
        self.process.kill()
        self.process.wait(5)
        self._reader.join(5)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if not line.endswith("\n"):
                break  # it was killed in the middle
            self._hear(line.split())

    def _hear(self, words: list[str]) -> None:
        with self._news:
            if words[0] == "cost":
                self.cost = (int(words[1]), int(words[2]))
            else:
                told = self._told.setdefault(words[1], Told())
                if words[0] == "armed":
                    told.armed = int(words[2])
                elif words[0] == "unarmed":
                    told.refused = words[2]
                else:
                    first, last, count = map(int, words[2:5])
                    told.stretches.append(Stretch(first, last, count, words[5] if words[0] == "stop" else ""))
            self._news.notify_all()

    def order(self, *words: str) -> None:
        """Give an order."""
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()

    def arm(self, run: str, tenant: str = "", *, patience_s: float = 20) -> int:
        """Have it arm a run and check it from then on; return when it was armed."""
        self.order("arm", run, *([tenant] if tenant else []))
        told = self.until(lambda: self.of(run) if self.of(run).armed or self.of(run).refused else None, patience_s)
        assert not told.refused, f"{run} was not armed: {told.refused}"
        return told.armed

    def of(self, run: str) -> Told:
        """Return what it told of a run so far: a copy."""
        with self._news:
            told = self._told.get(run, Told())
            return Told(told.armed, told.refused, list(told.stretches))

    def until(self, ready: Callable[[], _Found | None], patience_s: float = 20) -> _Found:
        """Wait until ``ready()`` returns something, and return it; fail if nothing comes in time."""
        end = time.monotonic() + patience_s
        while True:
            found = ready()
            if found:
                return found
            with self._news:
                left = end - time.monotonic()
                assert left > 0, f"not told in {patience_s:g} s: {dict(list(self._told.items())[-1:])}"
                self._news.wait(min(left, 0.1))

    def told_until(self, run: str, moment: int, patience_s: float = 20) -> Told:
        """Return what it told of a run, once that reaches beyond a moment."""

        def reached() -> Told | None:
            told = self.of(run)
            return told if told.stretches and told.stretches[-1].last >= moment else None

        return self.until(reached, patience_s)

    def went_on(self, run: str, since: int, patience_s: float = 20) -> int:
        """Return when a check of a run passed, at a moment or later; wait for it."""
        return self.until(lambda: self.of(run).goes(since=since), patience_s).first

    def killed(self, run: str, patience_s: float = 20) -> Told:
        """Return what it told of a run, once that is halted for good."""

        def halted() -> Told | None:
            told = self.of(run)
            return told if told.stretches and told.stretches[-1].reason == "killed" else None

        return self.until(halted, patience_s)

    def end(self) -> None:
        """Have it end in order, and tell what checks cost."""
        self.order("end")
        self.process.wait(10)
        self._reader.join(5)
