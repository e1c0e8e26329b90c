"""What tests of aborted calls share."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from haltline.run import Run
from haltline.testing import FakeSwitch

SOON_S: Final = 1.0
"""How soon after an abort a call has ended, here and at the server: what is promised."""

ABORTS: Final = 100


def calls(run: Run) -> int:
    """Return how many calls of a process with one run are in flight; the run's own block is watched, too."""
    return len(run.calls) - 1


def descriptors() -> int:
    """Return how many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def killed_after(switch: FakeSwitch, wait: Callable[[], object], target: str = "run:r-1") -> Callable[[], float]:
    """Kill in a thread of its own once ``wait`` has returned; the result waits for that, and says when it was."""
    at: list[float] = []

    def kill() -> None:
        wait()
        at.append(time.monotonic())
        switch.service.kill(target)

    thread = threading.Thread(target=kill)
    thread.start()

    def ended() -> float:
        thread.join()
        return at[0]

    return ended


def greeted(server: socket.socket) -> socket.socket:
    """Return a connection on which TLS was begun."""
    connection, _ = server.accept()
    connection.recv(1)
    return connection
