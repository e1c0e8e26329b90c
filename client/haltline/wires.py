"""The line between a supervisor and its guard: one JSON object a line, and an end that is seen when either dies."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from contextlib import suppress
from typing import Any, Final

_CHUNK: Final = 65536


class Wire:
    """One end of the line; closed by the system itself when the process that holds it ends."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._buffer = b""
        self._open = True

    def alive(self) -> bool:
        """Return whether the other end was still there when last looked."""
        return self._open

    def fileno(self) -> int:
        """Return what to wait on."""
        return self._end.fileno()

    def send(self, **members: Any) -> None:
        """Send; nothing if the other end is gone, which receiving shows."""
        with suppress(OSError):
            self._end.sendall(json.dumps(members).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]]:
        """Return what has come, without waiting."""
        with suppress(BlockingIOError):
            try:
                came = self._end.recv(_CHUNK, socket.MSG_DONTWAIT)
            except ConnectionError:
                came = b""
            self._open = bool(came)
            self._buffer += came
        *lines, self._buffer = self._buffer.split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """End the line."""
        self._open = False
        self._end.close()


class Bell:
    """What wakes one thread of a process: signals by their numbers, and :meth:`ring`, which is 0."""

    def __init__(self) -> None:
        self._out, self._in = os.pipe()
        os.set_blocking(self._out, False)
        os.set_blocking(self._in, False)

    def hear(self, *numbers: int) -> None:
        """Have these signals ring instead of doing what they do, but those that are ignored; main thread only."""
        signal.set_wakeup_fd(self._in, warn_on_full_buffer=False)
        for number in numbers:
            if number == signal.SIGCHLD or signal.getsignal(number) is not signal.SIG_IGN:
                # A handler, and not SIG_IGN: what is ignored would stay ignored in every program started from here.
                signal.signal(number, _nothing)

    def ring(self) -> None:
        """Wake; from any thread, and without waiting."""
        with suppress(OSError):  # full: it is going to wake anyway
            os.write(self._in, b"\0")

    def wait(self, wire: Wire, timeout: float | None) -> bytes:
        """Wait for the bell, for something to receive, or for so many seconds; return what has rung."""
        waited = [self._out, wire.fileno()] if wire.alive() else [self._out]
        select.select(waited, (), (), timeout)
        with suppress(BlockingIOError):
            return os.read(self._out, _CHUNK)
        return b""

    def close(self) -> None:
        """Ring no more; main thread only."""
        signal.set_wakeup_fd(-1)
        os.close(self._out)
        os.close(self._in)


def _nothing(number: int, frame: object) -> None:
    """Have a signal do nothing but ring."""
