"""The fleet: the worker processes, how each of them stands, and the order to restart."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from sample.children import Child
from sample.crew import Assignment
from sample.desk import RESTART
from sample.reports import Report, State, decode
from sample.watch import Watch


def clean_environment() -> dict[str, str]:
    """Return this process's environment without its Haltline settings, which are not the sample's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HALTLINE_")}


class WorkerProcess:
    """One worker process.

    Args:
        assignment: what it does.
        command: how to start it.
        environment: all of its environment: the service's address and its token are there, never in the command.
        watch: told of each report.
        on_change: called from another thread with each report whose state differs from the one before.

    Attributes:
        latest: its newest report.
        since_ns: when the state of that report was first heard of, monotonic nanoseconds.
        changes: the reports whose state differed from the one before, the oldest first.
    """

    def __init__(
        self,
        assignment: Assignment,
        *,
        command: Sequence[str],
        environment: Mapping[str, str],
        watch: Watch,
        on_change: Callable[[Assignment, Report], None],
    ) -> None:
        self.assignment = assignment
        self.latest = Report(assignment.run, State.STARTING)
        self.since_ns = time.monotonic_ns()
        self.changes: list[Report] = []
        self._last_words = ""
        self._watch = watch
        self._on_change = on_change
        self._child = Child(
            command, environment=environment, on_output=self._hear, on_errors=self._hear_errors, on_end=watch.changed
        )

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self._child.pid

    @property
    def gone(self) -> str:
        """Return why the process is no more, in one line; an empty text while it runs."""
        status = self._child.status
        if status is None:
            return ""
        said = f": {self._last_words}" if self._last_words else ""
        return f"the worker of {self.assignment.run} ended with status {status}{said}"

    def restart(self) -> None:
        """Order it to enter a fresh run. It refuses by itself if its run is still killed."""
        self._child.write(RESTART)

    def tell(self) -> None:
        """Tell it to end, and do not wait."""
        self._child.tell()

    def end(self) -> int:
        """End it and return its exit status."""
        return self._child.end()

    def _hear(self, line: str) -> None:
        try:
            report = decode(line)
        except ValueError:
            self._hear_errors(line)
            return
        changed = report.state is not self.latest.state
        if changed:
            self.since_ns = time.monotonic_ns()  # before the report itself: who sees the one finds the other
        self.latest = report
        if changed:
            self.changes.append(report)
            self._on_change(self.assignment, report)
        self._watch.changed()

    def _hear_errors(self, line: str) -> None:
        self._last_words = line.strip() or self._last_words  # told as the reason if the process ends


@dataclass(frozen=True, slots=True)
class Equipment:
    """What the workers are given.

    Attributes:
        url: the service's address; several are separated by commas.
        tokens: each run's worker token.
        contacts: each run's file of recipients.
        smtp_port: the mail server's port on 127.0.0.1.
        rate: mails a second and worker at most.
    """

    url: str
    tokens: Mapping[str, str] = field(repr=False)
    contacts: Mapping[str, Path]
    smtp_port: int
    rate: float


class Fleet:
    """The workers, from entering to leaving.

    Args:
        crew: who does what.
        equipment: what they are given.
        watch: told of each report.
        on_change: called from another thread when a worker's state changes.
    """

    def __init__(
        self,
        crew: Sequence[Assignment],
        equipment: Equipment,
        *,
        watch: Watch,
        on_change: Callable[[Assignment, Report], None],
    ) -> None:
        self._crew = crew
        self._equipment = equipment
        self._watch = watch
        self._on_change = on_change
        self._workers: dict[str, WorkerProcess] = {}

    def __enter__(self) -> Self:
        """Start every worker."""
        try:
            for assignment in self._crew:
                self._workers[assignment.run] = self._start(assignment)
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every worker."""
        self.end()

    def __iter__(self) -> Iterator[WorkerProcess]:
        """Yield the workers in the crew's order."""
        return iter(self._workers.values())

    def __getitem__(self, run: str) -> WorkerProcess:
        """Return the worker of a run."""
        return self._workers[run]

    def gone(self) -> str:
        """Return why a worker's process is no more, in one line; an empty text while all run."""
        return next((worker.gone for worker in self if worker.gone), "")

    def states(self, runs: Sequence[str]) -> set[State]:
        """Return the states that these runs' workers are in."""
        return {self[run].latest.state for run in runs}

    def end(self) -> list[int]:
        """End every worker, all at once, and return their exit statuses."""
        for worker in self:
            worker.tell()
        return [worker.end() for worker in self]

    def _start(self, assignment: Assignment) -> WorkerProcess:
        given = self._equipment
        command = [
            *(sys.executable, "-m", "sample.worker"),
            *("--worker", assignment.worker, "--run", assignment.run),
            *("--tenant", assignment.tenant, "--feature", assignment.feature),
            *("--contacts", str(given.contacts[assignment.run])),
            *("--smtp-port", str(given.smtp_port), "--rate", f"{given.rate:g}"),
        ]
        settings = {"HALTLINE_URL": given.url, "HALTLINE_TOKEN": given.tokens[assignment.run]}
        return WorkerProcess(
            assignment,
            command=command,
            environment=clean_environment() | settings,
            watch=self._watch,
            on_change=self._on_change,
        )
