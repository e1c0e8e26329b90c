"""Who runs the fleet: restarts what was stopped, but only after its revive, and never at the revive's own bidding."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from sample.api import stands_in_the_way
from sample.fleet import WorkerProcess
from sample.reports import State
from sample.stage import Stage
from sample.troubles import Trouble

PAUSE_S: Final = 3.0
"""How long after a revive a run is restarted, seconds: long enough to see that the revive itself starts nothing."""

_AGAIN_S: Final = 5.0
"""After how long an order to restart that had no effect is given again, seconds."""


class Supervisor:
    """Restarts stopped runs that may run again, and a service that has ended.

    Args:
        stage: what there is.
        say: tells whoever watches.
        now: a monotonic clock, seconds.
    """

    def __init__(self, stage: Stage, say: Callable[[str], None], *, now: Callable[[], float] = time.monotonic) -> None:
        self._stage = stage
        self._say = say
        self._now = now
        self._due: dict[str, float] = {}

    def look(self) -> None:
        """Look after everything once.

        Raises:
            Trouble: a worker has ended by itself, or the service does not start again.
        """
        if gone := self._stage.fleet.gone():
            raise Trouble(gone)
        if gone := self._stage.service.gone:
            self._restart_service(gone)
        stopped = [worker for worker in self._stage.fleet if worker.latest.state is State.STOPPED]
        for run in self._due.keys() - {worker.assignment.run for worker in stopped}:
            del self._due[run]
        if stopped:
            self._restart(stopped)

    def _restart(self, stopped: list[WorkerProcess]) -> None:
        try:
            killed = self._stage.api.killed()
        except Trouble:
            return  # not known whether they may run: nothing is started
        for worker in stopped:
            run = worker.assignment.run
            if stands_in_the_way(killed, worker.assignment):
                self._due.pop(run, None)
            elif run not in self._due:
                self._due[run] = self._now() + PAUSE_S
                self._say(f"{run}: revived. That starts nothing; whoever runs the fleet does, in {PAUSE_S:g} s.")
            elif self._now() >= self._due[run]:
                self._due[run] = self._now() + _AGAIN_S
                worker.restart()

    def _restart_service(self, gone: str) -> None:
        self._say(f"{gone}. Every worker stops within ttl. Starting it again in {PAUSE_S:g} s.")
        self._stage.watch.until(lambda: bool(self._stage.fleet.gone()), PAUSE_S)
        self._stage.service.stop()
        self._stage.service.start()
        self._say("The service is back.")
