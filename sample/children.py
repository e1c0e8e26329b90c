"""Child processes: each in a session of its own, its output read line by line, ended with everything it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

TELL_S: Final = 5.0
"""How long a child may take to end after SIGTERM before it is killed, seconds."""


class Child:
    """One child process.

    It leads a session of its own, so that Ctrl-C in the terminal reaches only the process that started it, which then
    ends its children in order. Start it from the main thread: the tie of :mod:`sample.tether` is to a thread.

    Args:
        command: what to run.
        environment: all of its environment.
        on_output: called with each line of its standard output, from a thread of its own.
        on_errors: the same for its standard error.
        on_end: called when its standard output has ended.

    Raises:
        OSError: it could not be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        on_output: Callable[[str], None],
        on_errors: Callable[[str], None],
        on_end: Callable[[], None],
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sample.tether", *command],
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )

        def read_output() -> None:
            for line in self._process.stdout or ():
                on_output(line)
            on_end()

        def read_errors() -> None:
            for line in self._process.stderr or ():
                on_errors(line)

        self._readers = [threading.Thread(target=task, daemon=True) for task in (read_output, read_errors)]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Return its exit status, or None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float) -> int | None:
        """Wait up to ``timeout`` seconds for it to end; return its exit status, or None if it has not."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def write(self, line: str) -> None:
        """Write a line to its standard input; nothing happens if it has ended."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(f"{line}\n")
                self._process.stdin.flush()

    def tell(self) -> None:
        """Tell it to end (SIGTERM), and do not wait."""
        if self.status is None:
            self._process.terminate()

    def end(self) -> int:
        """Tell it to end, wait, kill what is left of its session, and return its exit status."""
        self.tell()
        self.wait(TELL_S)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        status = self._process.wait()
        for reader in self._readers:
            reader.join(TELL_S)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        return status
