"""What is known of kills of a run that is supervised from outside, and whether its command is to be ended for one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from haltline.aborting import Scope
from haltline.verdict import Reason, Stop
from haltline.watchdog import flip_of

if TYPE_CHECKING:
    from haltline.replica import Replica
    from haltline.run import Run


@dataclass(frozen=True, slots=True)
class Watch:
    """What a supervisor ends its command for, besides a kill.

    Attributes:
        strict: whether the command ends when the lease lapses; else it goes on until a kill is known.
        finish_s: how long a kill with ``in_flight: finish`` lets it go on, seconds; None for as long as it takes.
    """

    strict: bool = False
    finish_s: float | None = None


class Kills:
    """The kills of one run, watched in the thread that renews the lease.

    Args:
        run: the run; armed.
        watch: what else its command is ended for.
        ring: called in that thread when there is news; it must neither wait nor raise.

    Attributes:
        flip: the position in the log of the kill that stops the run, if there is one and it is known.
        ordered: whether the command is to be ended for it.
    """

    def __init__(self, run: Run, watch: Watch, ring: Callable[[], None]) -> None:
        self.run = run
        self.watch = watch
        self.flip: int | None = None
        self._aborting = Scope(run.calls, self._ends, ring)
        self._finishing = Scope(run.calls, self._stops, ring)
        self._finish_at: float | None = None
        self._told: set[str] = set()
        self.ordered = False

    def open(self) -> None:
        """Have them watched. Whoever opens it asks once more then: a kill before that has been heard of already."""
        self._aborting.open()
        self._finishing.open()

    def close(self) -> None:
        """Have them watched no longer."""
        self._aborting.close()
        self._finishing.close()

    @property
    def stop(self) -> Stop | None:
        """The kill, also if it lets the command finish."""
        return self._aborting.stop or self._finishing.stop

    def news(self) -> list[tuple[str, Stop]]:
        """Return what is to be said of a kill that was not said yet."""
        said = []
        if self._aborting.stop is not None:
            said.append(("stopping the command", self._aborting.stop))
        elif self._finishing.stop is not None:
            said.append(("the run is stopped, its command may finish", self._finishing.stop))
        news = [each for each in said if each[0] not in self._told]
        self._told.update(what for what, _ in news)
        return news

    def due(self) -> bool:
        """Return whether the command is to be ended from now on; once."""
        if self.ordered:
            return False
        if self._finishing.stop is not None and self._finish_at is None:
            longest = self.watch.finish_s
            self._finish_at = math.inf if longest is None else time.monotonic() + longest
        late = self._finish_at is not None and time.monotonic() >= self._finish_at
        self.ordered = late or self._aborting.stop is not None
        return self.ordered

    def pause(self) -> float:
        """Return for how long nothing is due, seconds."""
        if self.ordered or self._finish_at is None:
            return math.inf
        return max(0.0, self._finish_at - time.monotonic())

    def _ends(self, replica: Replica) -> Stop | None:
        return self._noted(self.run.ends_call(replica, None), replica)

    def _stops(self, replica: Replica) -> Stop | None:
        stop = self.run.stopped_under(replica)
        return self._noted(stop, replica) if stop is not None and stop.reason is Reason.KILLED else None

    def _noted(self, stop: Stop | None, replica: Replica) -> Stop | None:
        if stop is not None and self.flip is None:
            self.flip = flip_of(stop, replica, self.run.armed_seq or 0)
        return stop
