"""``make run``: a fleet that stays up, is stopped by the lines that it prints, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.support.ports import free_port

ROOT: Final = Path(__file__).resolve().parents[2]
PATIENCE_S: Final = 30.0


class Running:
    """A running ``python -m sample.run`` and what it says."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def until(self, *patterns: str) -> None:
        """Wait until each pattern has matched a line that comes from now on, in whatever order."""
        missing = set(patterns)
        ends = time.monotonic() + PATIENCE_S
        while missing:
            try:
                line = self._lines.get(timeout=max(0.0, ends - time.monotonic()))
            except queue.Empty:
                line = None
            assert line is not None, f"waited for {missing} in vain:\n" + "\n".join(self.said)
            self.said.append(line)
            missing = {pattern for pattern in missing if not re.search(pattern, line)}

    def type(self, beginning: str) -> str:
        """Type a line that was printed, the exports before it, in a shell that knows nothing; return what it said."""
        exports = [line.strip() for line in self.said if line.strip().startswith("export ")]
        wanted = next(line[line.index(beginning) :] for line in self.said if beginning in line)
        done = subprocess.run(
            ["/bin/sh", "-c", "\n".join([*exports, wanted])],
            cwd=ROOT,
            env={"PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, f"{wanted}\n{done.stdout}{done.stderr}"
        return done.stdout

    def children(self) -> list[psutil.Process]:
        """Return every process below it."""
        return psutil.Process(self.process.pid).children(recursive=True)


def command(folder: Path, port: int) -> list[str]:
    """Return the command that runs the fleet."""
    return [sys.executable, "-m", "sample.run", "--data", str(folder), "--port", str(port), "--rate", "50"]


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Running]:
    """Run the fleet, and end it whatever happens."""
    process = subprocess.Popen(
        command(folder, free_port()),
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("HALTLINE_")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield Running(process)
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(PATIENCE_S)
        if process.stdout is not None:
            process.stdout.close()


def test_stopped_by_what_it_prints(tmp_path: Path) -> None:
    """The printed lines kill, revive and watch; a revive alone starts nothing; Ctrl-C ends all; the log is kept."""
    with running(tmp_path) as fleet:
        fleet.until("^r-1 sending", "^r-2 sending", "^r-3 sending")
        assert "killed run:r-1" in fleet.type("haltline kill run r-1")
        fleet.until("^r-1 stopped: run:r-1 killed by admin: wrong list")
        assert "run:r-1" in fleet.type("haltline flags")
        fleet.type("haltline revive run r-1 --all")
        fleet.until("^r-1: revived. That starts nothing")
        fleet.until("^r-1 sending")
        children = fleet.children()
        assert len(children) >= 4
        fleet.process.send_signal(signal.SIGINT)
        fleet.until("^Everything has ended")
        assert fleet.process.wait(PATIENCE_S) == 0
        assert [child for child in children if child.is_running()] == []
    with running(tmp_path) as fleet:
        fleet.until("is an earlier one", "^r-1 sending", "^r-2 sending", "^r-3 sending")
        assert "list corrected" in fleet.type("haltline log")
        fleet.process.terminate()
        assert fleet.process.wait(PATIENCE_S) == 0


def test_nothing_outlives_it(tmp_path: Path) -> None:
    """Killed with SIGKILL, it still leaves no process behind."""
    if sys.platform != "linux":
        pytest.skip("only Linux ties a process to its parent")
    with running(tmp_path) as fleet:
        fleet.until("^r-1 sending", "^r-2 sending", "^r-3 sending")
        children = fleet.children()
        fleet.process.kill()
        fleet.process.wait(PATIENCE_S)
        _, alive = psutil.wait_procs(children, timeout=PATIENCE_S)
        assert alive == []


def test_port_in_use(tmp_path: Path) -> None:
    """A port that is taken is told in one line, with what to do."""
    port = free_port()
    with contextlib.closing(socket.create_server(("127.0.0.1", port))):
        done = subprocess.run(
            command(tmp_path, port), cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    assert done.returncode == 2
    assert done.stderr == (
        f"run: port {port} of 127.0.0.1 is in use: end what listens there, or choose another with --port\n"
    )
