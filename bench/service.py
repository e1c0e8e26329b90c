"""A real service in processes of its own, for as long as a measurement needs it, and what it costs there."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from tests.support.ports import LOOPBACK, free_port

ROOT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = ROOT / "bench" / "results"
"""Where databases are made: on the disk of the checkout, not in a folder that may lie in memory."""

_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 10.0


@contextmanager
def folder() -> Iterator[Path]:
    """Lend a folder on the disk of the checkout, and remove it."""
    RESULTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=RESULTS) as name:
        yield Path(name)


def program(name: str) -> str:
    """Return a program of the environment that this interpreter belongs to."""
    return str(Path(sys.executable).with_name(name))


def server_command(*arguments: str, url: str) -> list[str]:
    """Return the command line of ``haltline-server`` on a database."""
    return [program("haltline-server"), *arguments, "--database-url", url]


def token(url: str, role: str) -> str:
    """Make a token straight on the database, which no service may have open if it is SQLite."""
    command = server_command("token", "create", "--subject", f"bench-{role}", "--role", role, url=url)
    made = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    return made.stdout.strip()


@dataclass(frozen=True, slots=True)
class Service:
    """A running service.

    Attributes:
        port: where it listens on the loopback address.
        processes: its processes, the one that was started first.
    """

    port: int
    processes: tuple[psutil.Process, ...]

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{LOOPBACK}:{self.port}"

    def cpu_s(self) -> float:
        """Return the processor time that its processes have used so far, seconds."""
        times = [process.cpu_times() for process in self.processes]
        return sum(each.user + each.system for each in times)

    def rss(self) -> int:
        """Return the memory that its worker holds, bytes."""
        return max(int(process.memory_info().rss) for process in self.processes)


@contextmanager
def served(
    command: list[str], port: int, *, path: str = "/readyz", environment: Mapping[str, str] | None = None
) -> Iterator[Service]:
    """Start a command that serves HTTP, lend it once ``path`` answers 200, and stop it.

    Args:
        command: the command line.
        port: where it will listen.
        path: what answers 200 once it is ready.
        environment: variables that it has beside this process's.

    Raises:
        RuntimeError: it did not start.
    """
    quiet = {"HALTLINE_LOG_LEVEL": "error", "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "client")))}
    variables = {**os.environ, **quiet, **(environment or {})}
    process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + _START_SECONDS
        while not answers(port, path):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{command[0]} did not start")
            time.sleep(0.05)
        started = psutil.Process(process.pid)
        yield Service(port, (started, *started.children(recursive=True)))
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def service(url: str, *options: str) -> Iterator[Service]:
    """Serve the log of a database that has its schema already.

    Args:
        url: the database.
        options: of ``haltline-server serve``.
    """
    port = free_port()
    command = server_command("serve", "--bind", f"{LOOPBACK}:{port}", *options, url=url)
    with served(command, port) as running:
        yield running


def answers(port: int, path: str) -> bool:
    """Return whether a GET of ``path`` is answered 200."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=2)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", path)
        return connection.getresponse().status == 200
    return False
