"""``haltline exec`` in a process of its own, what it has started, and a sink that counts effects."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from tests.support.cli import BIN, environment

HALTLINE: Final = BIN / "haltline"
PATIENCE_S: Final = 30.0
MARK: Final = "SUPERVISED_MARK"

TICK: Final = 'while :; do echo {who} >> "$SINK"; sleep 0.02; done'
"""A loop of the shell that has an effect fifty times a second."""


def wait_for(what: Callable[[], object], seconds: float = PATIENCE_S) -> None:
    """Wait until something holds; other processes cannot be told the time."""
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it never came to that"
        time.sleep(0.02)


def marked(mark: str) -> list[psutil.Process]:
    """Return every process that has inherited this mark and has not ended, wherever it stands in the tree."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@dataclass
class Supervised:
    """One ``haltline exec``.

    Attributes:
        folder: where its files are.
        mark: what is in the environment of everything that it has started.
        process: the supervisor.
    """

    folder: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def sink(self) -> Path:
        """Where effects are counted, a line each."""
        return self.folder / "sink"

    @property
    def err(self) -> str:
        """What it wrote to standard error."""
        return (self.folder / "err").read_text("utf-8")

    @property
    def out(self) -> str:
        """What it wrote to standard output."""
        return (self.folder / "out").read_text("utf-8")

    @property
    def told(self) -> dict[str, Any]:
        """The JSON object in which ``--json`` says how it ended."""
        members = json.loads(self.err.splitlines()[-1])
        assert isinstance(members, dict)
        return members

    def effects(self) -> list[str]:
        """Return every effect so far."""
        return self.sink.read_text("utf-8").split() if self.sink.exists() else []

    def below(self) -> list[psutil.Process]:
        """Return what is running of all that it has started, the guard and itself aside."""
        ours = {self.process.pid, *(each.pid for each in self.guards())}
        return [each for each in marked(self.mark) if each.pid not in ours]

    def guards(self) -> list[psutil.Process]:
        """Return its guard."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children()
        return []

    def end(self) -> int:
        """Wait for its end, and return its exit code."""
        return self.process.wait(PATIENCE_S)

    def wait_for(self, *who: str) -> None:
        """Wait until each of these has had an effect."""
        wait_for(lambda: set(who) <= set(self.effects()) or self.process.poll() is not None)
        assert set(who) <= set(self.effects()), self.err

    def is_still(self) -> bool:
        """Return whether effects have stopped: of loops that have one every 20 ms there is none in half a second."""
        before = len(self.effects())
        time.sleep(0.5)
        return len(self.effects()) == before


@contextmanager
def supervised(
    folder: Path,
    url: str,
    token: str,
    *command: str,
    options: Sequence[str] = ("--run", "r-42"),
    before: Sequence[str] = (),
    **more: str,
) -> Iterator[Supervised]:
    """Start ``haltline exec``, and leave nothing of it behind, whatever state it is in.

    Args:
        folder: where its files are to be; made if it is not there.
        url: where the service answers.
        token: a worker token.
        command: the command and its arguments.
        options: the options of ``haltline exec``.
        before: words before ``haltline``, such as ``unshare``.
        more: more variables of the environment.
    """
    folder.mkdir(exist_ok=True)
    made = Supervised(folder)
    ours = {"HALTLINE_URL": url, "HALTLINE_TOKEN": token, "SINK": str(made.sink), "PYTHON": sys.executable}
    settings = environment(**{**ours, MARK: made.mark, **more})
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        made.process = subprocess.Popen(
            [*before, HALTLINE, "exec", "--json", *options, "--", *command],
            env=settings,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    try:
        yield made
    finally:
        for each in marked(made.mark):
            with suppress(psutil.NoSuchProcess):
                each.send_signal(signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.killpg(made.process.pid, signal.SIGKILL)
        made.process.wait(PATIENCE_S)
