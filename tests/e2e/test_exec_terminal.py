"""``haltline exec`` on a terminal: whose Ctrl-C and Ctrl-Z are, and job control in a shell."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import pytest

from tests.e2e.server import Server
from tests.support.cli import environment
from tests.support.ports import LOOPBACK
from tests.support.supervised import HALTLINE, MARK, marked, wait_for


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service, shared by this module: every test has a run of its own."""
    with Server(tmp_path_factory.mktemp("service"), {"HALTLINE_TTL_MS": "500"}) as server:
        yield server


@pytest.fixture(scope="module")
def worker(service: Server) -> str:
    """A worker token."""
    return str(service.call("POST", "/v1/tokens", {"subject": "agent", "role": "worker"}).members["token"])


@pytest.fixture(scope="module")
def url(service: Server) -> str:
    """The service's address."""
    return f"http://{LOOPBACK}:{service.port}"


class Terminal:
    """A terminal with a program in a session of its own, as a window has it; leaves nothing behind."""

    def __init__(self, words: Sequence[str], folder: Path, settings: dict[str, str]) -> None:
        self.mark = uuid.uuid4().hex
        self._ours, theirs = pty.openpty()
        begin = (
            "import os, sys, fcntl, termios\n"
            "os.setsid()\n"
            "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
            "os.execvp(sys.argv[1], sys.argv[1:])\n"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", begin, *words],
            env={**settings, MARK: self.mark},
            cwd=folder,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self.shown = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in marked(self.mark):
            with suppress(psutil.NoSuchProcess):
                each.kill()
        self.process.wait(30)
        os.close(self._ours)

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until something was shown so many times since this was last called."""

        def shown() -> bool:
            with suppress(OSError):
                while select.select([self._ours], (), (), 0.05)[0]:
                    self.shown += os.read(self._ours, 4096).decode("utf-8", "replace")
            return self.shown.count(text) >= times

        try:
            wait_for(shown)
        except AssertionError:
            raise AssertionError(f"{text!r} was not shown, but {self.shown!r}") from None
        self.shown = ""


def test_the_terminal_is_the_commands(url: str, worker: str, tmp_path: Path) -> None:
    """On a terminal the command reads and writes it, and Ctrl-C reaches the command."""
    settings = environment(HALTLINE_URL=url, HALTLINE_TOKEN=worker)
    ours = "import os; print('ready' if os.tcgetpgrp(0) == os.getpgrp() and os.isatty(1) else 'in the background')"
    (tmp_path / "ours.py").write_text(ours)
    work = f"trap 'echo interrupted; exit 9' INT; {sys.executable} ours.py; read x; echo got $x; sleep 300"
    words = (str(HALTLINE), "exec", "--run", "y-tty", "--", "sh", "-c", work)
    with Terminal(words, tmp_path, settings) as terminal:
        terminal.wait_for("ready")
        terminal.type("hello\n")
        terminal.wait_for("got hello")
        terminal.type("\x03")
        terminal.wait_for("interrupted")
        assert terminal.process.wait(30) == 9


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_job_control(url: str, worker: str, tmp_path: Path) -> None:
    """In a shell Ctrl-Z stops command and supervisor as one job, and ``fg`` has both go on."""
    settings = environment(
        HALTLINE_URL=url, HALTLINE_TOKEN=worker, SINK=str(tmp_path / "sink"), PS1="READY> ", TERM="dumb"
    )
    sink = tmp_path / "sink"
    # Not in sh: one that is stopped between vfork and exec hangs its parent, in every shell.
    ticks = "import os, time\nwhile True: print('main', file=open(os.environ['SINK'], 'a')); time.sleep(0.02)\n"
    (tmp_path / "ticks.py").write_text(ticks)

    def effects() -> int:
        return len(sink.read_text("utf-8").split()) if sink.exists() else 0

    with Terminal(("bash", "--norc", "-i"), tmp_path, settings) as terminal:
        terminal.wait_for("READY> ")
        terminal.type(f"{HALTLINE} exec --run y-job -- {sys.executable} ticks.py\n")
        wait_for(effects)
        terminal.type("\x1a")
        terminal.wait_for("Stopped")
        stopped = effects()
        time.sleep(0.5)
        assert effects() == stopped
        terminal.type("fg\n")
        wait_for(lambda: effects() > stopped)
        terminal.type("\x03")
        terminal.wait_for("READY> ")
        terminal.type("echo code-$?\n")
        terminal.wait_for("code-130")
