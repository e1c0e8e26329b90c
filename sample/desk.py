"""A worker's desk: the orders that reach it, and the reports that leave it.

Orders are lines on standard input: ``restart``. Its end means that whoever ran the fleet is gone, and ends the worker:
nothing outlives its fleet. SIGTERM and SIGINT end it too. Reports are lines on standard output.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

from sample.reports import Report, State, encode

RESTART: Final = "restart"

_ENDING: Final = ""
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_EVERY_S: Final = 0.2


class Desk:
    """Orders and reports of one worker process. Make it before any other thread: it blocks the signals it waits for.

    Args:
        describe: returns how the worker stands, given its state and why.
    """

    def __init__(self, describe: Callable[[State, str], Report]) -> None:
        self._describe = describe
        self._state = State.STARTING
        self._reported_at = 0.0
        self._orders: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._ending = threading.Event()
        # Blocked here and taken by a thread that does nothing else: a Python signal handler would run in the middle of
        # whatever the main thread does, a lock in its hands or not.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        for task in (self._take_signals, self._take_orders):
            threading.Thread(target=task, daemon=True).start()

    def told_to_end(self) -> bool:
        """Return whether the worker was told to end."""
        return self._ending.is_set()

    def pause(self, seconds: float) -> None:
        """Wait, for less if the worker is told to end."""
        if seconds > 0:
            self._ending.wait(seconds)

    def drop_orders(self) -> None:
        """Forget the orders that came so far: a restart that was ordered before a kill is none after it."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._orders.get_nowait()
        if self.told_to_end():
            self._orders.put(_ENDING)

    def wait_for_restart(self) -> bool:
        """Wait for the order to restart; return False where the worker was told to end instead."""
        return self._orders.get() == RESTART and not self.told_to_end()

    def report(self, state: State, why: str = "") -> None:
        """Say how the worker stands: at once if its state has changed, else a few times a second."""
        now = time.monotonic()
        if state is self._state and now - self._reported_at < _EVERY_S:
            return
        self._state, self._reported_at = state, now
        try:
            print(encode(self._describe(state, why)), flush=True)
        except BrokenPipeError:
            # Nobody reads any more. The descriptor is replaced, or the interpreter complains again at its exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self._end()

    def _end(self) -> None:
        self._ending.set()
        self._orders.put(_ENDING)

    def _take_signals(self) -> None:
        signal.sigwait(_SIGNALS)
        self._end()

    def _take_orders(self) -> None:
        for line in sys.stdin:
            self._orders.put(line.strip())
        self._end()
