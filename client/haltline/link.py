"""One TCP connection whose every wait is bounded by a deadline, and which another thread may interrupt."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from haltline.clocks import LEASE_CLOCK, Clocks
from haltline.native import make_socket

_CHUNK: Final = 64 * 1024


class Deadline:
    """When an exchange has to be over.

    Args:
        seconds: how much time there is from now on.
        clocks: the clocks that it is read on.
    """

    __slots__ = ("_gettime", "_seconds", "_until")

    def __init__(self, seconds: float, clocks: Clocks) -> None:
        self._gettime: Callable[[int], float] = clocks.gettime
        self._seconds = seconds
        self._until = clocks.gettime(LEASE_CLOCK) + seconds

    def left(self) -> float:
        """Return how much time is left, seconds, always more than 0.

        Raises:
            TimeoutError: none.
        """
        rest = self._until - self._gettime(LEASE_CLOCK)
        if rest <= 0:
            raise TimeoutError(f"no whole reply within {self._seconds:g} s")
        return rest

    def share(self, parts: int) -> Deadline:
        """Return an earlier deadline, which leaves as much time to each of ``parts`` attempts.

        Raises:
            TimeoutError: no time is left.
        """
        made = Deadline.__new__(Deadline)
        made._gettime = self._gettime  # noqa: SLF001  # the same class
        made._seconds = self.left() / parts  # noqa: SLF001
        made._until = self._gettime(LEASE_CLOCK) + made._seconds  # noqa: SLF001
        return made


class Channel(Protocol):
    """What bytes go through: a connection, or TLS on it."""

    def send(self, data: bytes, deadline: Deadline) -> None:
        """Send all of ``data``; TimeoutError or another OSError if it cannot be."""

    def recv(self, deadline: Deadline) -> bytes:
        """Return what comes next, empty at the orderly end; TimeoutError or another OSError if nothing does."""


class Link:
    """One TCP connection, not yet made.

    Only :meth:`interrupt` may be called from another thread.

    Args:
        family: of the address that it will go to.
    """

    def __init__(self, family: socket.AddressFamily) -> None:
        self._socket = make_socket(family, socket.SOCK_STREAM)
        self._grip: _Grip | None = None
        try:
            self._grip = _Grip(self._socket)
        except OSError:
            self._socket.close()
            raise

    def connect(self, where: tuple[object, ...], deadline: Deadline) -> None:
        """Connect.

        Raises:
            OSError: it cannot be, or not in time.
        """
        try:
            self._socket.settimeout(deadline.left())
            self._socket.connect(where)
            self._socket.settimeout(None)
        except TimeoutError:
            raise TimeoutError("no connection in time") from None
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes, deadline: Deadline) -> None:
        """Send all of ``data``.

        Raises:
            OSError: it cannot be, or not in time.
        """
        rest = memoryview(data)
        while rest:
            self._bound(socket.SO_SNDTIMEO, deadline)
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                raise TimeoutError("the request could not be sent in time") from None

    def recv(self, deadline: Deadline) -> bytes:
        """Return what comes next, empty at the end.

        Raises:
            OSError: nothing comes, or not in time.
        """
        self._bound(socket.SO_RCVTIMEO, deadline)
        try:
            return self._socket.recv(_CHUNK)
        except BlockingIOError:
            raise TimeoutError("no whole reply in time") from None

    def interrupt(self) -> None:
        """Wake whoever waits in this connection, from any thread and at any time; it is of no use after that."""
        grip = self._grip
        if grip is not None:
            grip.shutdown()

    def close(self) -> None:
        """Give the connection back."""
        self._grip = None
        self._socket.close()

    def _bound(self, option: int, deadline: Deadline) -> None:
        """Bound the next blocking call.

        SO_RCVTIMEO keeps the socket in blocking mode, so that one system call waits and reads: beside a busy Python
        thread that halves the wake-ups, and the latency, of a socket time-out, which polls first (measured 6 ms
        against 13).
        """
        seconds = deadline.left()
        whole = int(seconds)
        micros = max(int((seconds - whole) * 1e6), 1)
        self._socket.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", whole, micros))


class _Grip:
    """A second descriptor of a connection, to shut it down by.

    It is closed when nobody holds this object any more. So the number that one thread is about to use cannot be closed
    by another one meanwhile, and given to a file that has nothing to do with it; and no lock is needed, which a fork
    could copy while it is held.
    """

    __slots__ = ("_socket",)

    def __init__(self, of: socket.socket) -> None:
        self._socket = of.dup()

    def shutdown(self) -> None:
        with suppress(OSError):  # it was not connected yet, or is not any more
            self._socket.shutdown(socket.SHUT_RDWR)

    def __del__(self) -> None:
        if hasattr(self, "_socket"):
            self._socket.close()
