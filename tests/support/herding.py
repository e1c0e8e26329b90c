"""The other end of a herd (tests/support/herd.py), or of a few real switches in one process: what it told."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

ROOT: Final = Path(__file__).parents[2]

TICK_S: Final = 0.05
"""How often a herd tells how it is, seconds."""


@dataclass(frozen=True, slots=True)
class Tick:
    """How a herd was at one moment.

    Attributes:
        at: when, lease clock, nanoseconds; read before all else.
        live: how many held a lease that had not ended then.
        until: when the last of their leases ends, lease clock, seconds.
        asked: how many requests were begun so far.
        opened: how many connections were tried so far.
        refused: how many replies were no stream so far.
        late_ms: how late this tick was, milliseconds: the herd itself had too much to do, or no processor.
    """

    at: int
    live: int
    until: float
    asked: int
    opened: int
    refused: int
    late_ms: int


class Herding:
    """One herd process; a context manager that leaves nothing behind.

    Args:
        module: what is run: ``herd`` or ``herd_switches``.
        size: how many clients.
        told: more of what it is told to be.
    """

    def __init__(self, module: str, *, size: int, **told: Any) -> None:
        self.size = size
        self._ticks: list[Tick] = []
        self._news = threading.Condition()
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"tests.support.{module}"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"size": size, **told}) + "\n")
        self._process.stdin.flush()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self._process.kill()
        self._process.wait(5)
        self._reader.join(5)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith("\n"):
                tick = Tick(**json.loads(line))
                with self._news:
                    self._ticks.append(tick)
                    self._news.notify_all()

    @property
    def ticks(self) -> Sequence[Tick]:
        """What it told so far."""
        with self._news:
            return list(self._ticks)

    def between(self, since: int, until: int) -> Sequence[Tick]:
        """Return what it told of a span of time."""
        return [each for each in self.ticks if since <= each.at < until]

    def reached(self, live: int, *, since: int) -> int | None:
        """Return when so many were live for the first time since a moment; None if they were not."""
        return next((each.at for each in self.ticks if each.at >= since and each.live >= live), None)

    def wait(self, live: int, *, since: int = 0, seconds: float) -> int | None:
        """Wait until so many are live, and return when they were; None if they are not in time."""
        end = time.monotonic() + seconds
        while (at := self.reached(live, since=since)) is None:
            left = end - time.monotonic()
            if left <= 0 or self._process.poll() is not None:
                return None
            with self._news:
                self._news.wait(min(left, 0.2))
        return at
