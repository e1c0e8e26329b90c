"""Acks: telling the service how far this process has applied the log, soon after a flip.

A measurement, never a proof, and never in the lease's way: a thread and a connection of its own, made at the first flip
and gone when there is nothing more to tell. What cannot be told is dropped; the next lease request says the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from haltline.clocks import LEASE_CLOCK, Clocks
from haltline.errors import ServiceError
from haltline.native import Thread, make_condition, make_thread
from haltline.renewal import Reply

ACKS_PATH: Final = "/v1/acks"

_DEADLINE_S: Final = 1.0
_REPLY_MAX_BYTES: Final = 16 * 1024


class AckTransport(Protocol):
    """What carries acks."""

    def post(self, path: str, body: bytes, *, deadline_s: float, limit: int) -> Reply:
        """Send JSON and return the whole reply, or raise ServiceError."""

    def interrupt(self) -> None:
        """Wake whoever is blocked in this transport; from any thread."""

    def rotate(self) -> object:
        """Give up this address."""

    def close(self) -> None:
        """Give back the connection."""


class Acks:
    """Tells the service the newest position, soon, from a thread of its own.

    Args:
        transport: makes the transport, each time there is something to tell after a quiet time.
        clocks: the machine's clocks.
        idle_s: after how long without anything to tell the thread and its connection are given back, seconds.
    """

    def __init__(self, transport: Callable[[], AckTransport], clocks: Clocks, *, idle_s: float = 5.0) -> None:
        self._make_transport = transport
        self._clocks = clocks
        self._idle_s = idle_s
        self._closed = False
        self._transport: AckTransport | None = None
        self.begin_anew()

    def begin_anew(self) -> None:
        """Set up what belongs to one process and must not be shared with a forked child."""
        if self._transport is not None:
            self._transport.close()  # this process's end of it: the parent goes on using its own
        self._changed = make_condition()
        self._thread: Thread | None = None
        self._transport = None
        self._body: bytes | None = None
        self._within_s = 0.0

    def tell(self, body: bytes, *, within_s: float) -> None:
        """Have an ack sent soon, in place of one that still waits; return at once.

        Args:
            body: the ack's body.
            within_s: how long it may wait at most, seconds; it waits for a random part of that, because all workers
                hear of a kill at the same moment and must not answer in one.
        """
        with self._changed:
            self._body, self._within_s = body, within_s
            self._changed.notify_all()
            if self._closed or (self._thread is not None and self._thread.is_alive()):
                return
            self._thread = make_thread(self._run, name="haltline-acks")
            # No thread to be had (a limit, or the interpreter is ending): then nothing is told.
            with suppress(RuntimeError):
                self._thread.start()

    def close(self) -> None:
        """End the thread; what still waits is not told."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread, transport = self._thread, self._transport
        if transport is not None:
            transport.interrupt()
        if thread is not None:
            with suppress(RuntimeError):  # it was never started
                thread.join(_DEADLINE_S + 0.5)

    def _run(self) -> None:
        transport = self._make_transport()
        self._transport = transport
        try:
            while (body := self._next()) is not None:
                try:
                    # Whatever it is answered: a node that has too much to do is not helped by asking another.
                    transport.post(ACKS_PATH, body, deadline_s=_DEADLINE_S, limit=_REPLY_MAX_BYTES)
                except ServiceError:
                    transport.rotate()
        finally:
            transport.close()
            with self._changed:
                if self._transport is transport:  # it was not by its own leave that this thread ends
                    self._thread = self._transport = None

    def _next(self) -> bytes | None:
        """Return the next ack to send, the newest there is; None if the thread is to end."""
        with self._changed:
            self._wait(self._idle_s, lambda: self._body is not None)
            if self._body is not None:
                self._wait(int.from_bytes(os.urandom(2), "big") / 2**16 * self._within_s, lambda: False)
            body, self._body = self._body, None
            if body is None or self._closed:
                # Under the lock: whoever has something to tell from here on starts another thread.
                self._thread = self._transport = None
                return None
            return body

    def _wait(self, seconds: float, ready: Callable[[], bool]) -> None:
        gettime = self._clocks.gettime
        end = gettime(LEASE_CLOCK) + seconds
        while not self._closed and not ready() and (left := end - gettime(LEASE_CLOCK)) > 0:
            self._changed.wait(left)
