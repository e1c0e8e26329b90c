"""Chores: what a node does now and then, beside everything else, in a thread that nobody waits for."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog

EVERY_S: Final = 4.0
"""How often each chore is done, seconds.

A client that is given a new stamp key counts on all the others having it 15 s later: the nodes are the first 4 of them.
"""

_log: Final[Any] = structlog.get_logger(__name__)


class Chores:
    """The thread that does them, one after the other."""

    def __init__(self, chores: Sequence[Callable[[], None]], *, every_s: float = EVERY_S) -> None:
        """Set up, without starting.

        Args:
            chores: each returns soon, and is called again although it raised.
            every_s: how long to rest between two rounds, seconds.
        """
        self._chores = tuple(chores)
        self._every_s = every_s
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._process = 0

    def start(self) -> None:
        """Start the thread in this process, unless it was."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._thread = threading.Thread(target=self._run, name="haltline-chores", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread, once it has ended the chore at hand."""
        self._ended.set()
        if self._thread is not None and self._process == os.getpid():
            self._thread.join(timeout=2.0)

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            for chore in self._chores:
                try:
                    chore()
                except Exception:  # noqa: BLE001 - it decides nothing: the next round is another try
                    _log.exception("chore_failed")
