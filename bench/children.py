"""A process of a measurement that tells what it sees, one JSON object a line, and is never waited for without end."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
STOP_S: Final = 10.0


class Child:
    """One such process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        """Speak with a process whose standard input and output are pipes."""
        assert process.stdin is not None  # noqa: S101 - pipes were asked for
        assert process.stdout is not None  # noqa: S101
        self._process = process
        self._input = process.stdin
        self._output = process.stdout.fileno()
        self._rest = b""
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._output, selectors.EVENT_READ)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def tell(self, **told: Any) -> None:
        """Send it a line."""
        self._input.write(json.dumps(told).encode("ascii") + b"\n")
        self._input.flush()

    def hear(self, *, seconds: float) -> dict[str, Any]:
        """Return the next line that it says.

        Raises:
            TimeoutError: it said nothing within so many seconds.
            RuntimeError: it has ended.
        """
        until = time.monotonic() + seconds
        while b"\n" not in self._rest:
            if not self._selector.select(max(0.0, until - time.monotonic())):
                raise TimeoutError(f"{self._process.args!r} said nothing for {seconds:g} s")
            data = os.read(self._output, 1 << 16)
            if not data:
                raise RuntimeError(f"{self._process.args!r} ended with status {self._process.wait(STOP_S)}")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        heard: dict[str, Any] = json.loads(line)
        return heard

    def hear_of(self, name: str, *, seconds: float) -> dict[str, Any]:
        """Return the next line that has a member ``name``; those before it are dropped.

        Raises:
            TimeoutError: none came within so many seconds.
            RuntimeError: it has ended.
        """
        until = time.monotonic() + seconds
        while True:
            heard = self.hear(seconds=max(0.0, until - time.monotonic()))
            if name in heard:
                return heard

    def close(self) -> None:
        """End its input, which ends it."""
        self._selector.close()
        with suppress(BrokenPipeError):  # it has ended by itself
            self._input.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        self._process.stdout.close()


@contextmanager
def child(
    module: str, *, python: str = sys.executable, environment: Mapping[str, str] | None = None, **given: Any
) -> Iterator[Child]:
    """Start ``python -m module``, tell it what is given, and end it.

    Args:
        module: what it runs.
        python: the interpreter.
        environment: variables that it has beside this process's.
        given: its first line.
    """
    process = subprocess.Popen(
        [python, "-m", module],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "client"))), **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    running = Child(process)
    try:
        running.tell(**given)
        yield running
    finally:
        running.close()
