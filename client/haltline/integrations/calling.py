"""One HTTP call in flight, whatever library makes it: asked for last thing, its socket cut by an abort."""

from __future__ import annotations

import os
import time
from _socket import SHUT_RDWR
from _socket import socket as _socket
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Final, Protocol, TypeAlias, TypeVar

from haltline.current import current_run
from haltline.native import make_condition
from haltline.run import Run
from haltline.scopes import check_capability

Q = TypeVar("Q")

Capability: TypeAlias = str | Callable[[Q], str | None] | None
"""The capability that a call uses: one for all, or what a function says of the request."""


RawSocket: TypeAlias = _socket
"""The type below those of gevent and ssl, which any thread may use."""


class HasFileno(Protocol):
    """A socket, of whatever kind."""

    def fileno(self) -> int:
        """Return its descriptor; -1 when it is closed."""


serving: Final[ContextVar[Call | None]] = ContextVar("haltline_http_call", default=None)
"""The call that this thread or task is carrying out: connections ask it for whom they read and write."""


class Call:
    """One call of a run, from before it is sent until its response is closed.

    An abort shuts its socket down, which wakes whoever reads from it: closing it would not. The library then takes the
    connection for broken and closes it; it is never used again.
    """

    __slots__ = ("_block", "_cut", "_ended", "_guard", "_owned", "_sock", "capability", "run")

    def __init__(self, run: Run, capability: str | None) -> None:
        self.run = run
        self.capability = capability
        self._block = run.abortable(capability)
        self._guard = make_condition()  # held for moments, by the caller's threads and by the one that runs callbacks
        self._sock: HasFileno | None = None
        self._owned: RawSocket | None = None
        self._cut = False
        self._ended = False

    def begin(self, via: Callable[[Callable[[], None]], object] | None = None) -> None:
        """Ask, and watch the call.

        Args:
            via: given what cuts the socket, has it done in another thread, such as the event loop's.

        Raises:
            Killed: the run is stopped; likewise Unverified and CapabilityFrozen.
        """
        self._block.__enter__()
        self._block.on_abort(self.cut if via is None else lambda: via(self.cut))

    def ask(self) -> None:
        """Ask once more: connecting, or waiting for a connection, may have taken long. Nothing was sent yet.

        Raises:
            Killed: the run is stopped; likewise Unverified and CapabilityFrozen.
        """
        self.surface()
        self.run.check(self.capability)

    def surface(self, cause: BaseException | None = None) -> None:
        """Return if no kill has ended this call.

        Args:
            cause: what broke. Only an ordinary error can have come of the kill.

        Raises:
            Killed: a kill has; CapabilityFrozen where only its capability was killed.
        """
        stop = self._block.stop
        if stop is not None and (cause is None or isinstance(cause, Exception)):
            raise self.run.stopped_by(stop, self.capability) from cause

    def uses(self, sock: HasFileno | None) -> None:
        """Take ``sock`` for the one that the call waits on."""
        with self._guard:
            if self._ended:
                return
            self._sock = sock
            if self._cut:
                shut_down(sock)

    def keeps(self, sock: RawSocket) -> None:
        """Take a socket of one's own, which is closed with the call."""
        with self._guard:
            self._close_owned()
            self._owned = sock
        self.uses(sock)

    def leaves(self, sock: HasFileno | None = None) -> None:
        """Leave ``sock``, or any, alone from here on: it is about to be closed, or to serve another call."""
        with self._guard:
            if sock is None or sock is self._sock:
                self._sock = None

    def cut(self) -> None:
        """Shut the socket down, now or as soon as there is one."""
        with self._guard:
            self._cut = True
            if not self._ended:
                shut_down(self._sock)
            self._guard.notify_all()

    def pause(self, seconds: float) -> None:
        """Wait before another try to connect.

        Raises:
            Killed: a kill has ended the call; CapabilityFrozen where only its capability was killed.
        """
        until = time.monotonic() + seconds
        with self._guard:
            while not self._cut and (left := until - time.monotonic()) > 0:
                self._guard.wait(left)
        self.surface()

    def end(self) -> None:
        """Watch the call no longer; to be called before its connection goes back to a pool."""
        with self._guard:
            if self._ended:
                return
            self._ended, self._sock = True, None
            self._close_owned()
        self._block.__exit__(None, None, None)

    def _close_owned(self) -> None:
        owned, self._owned = self._owned, None
        if owned is not None:
            if owned is self._sock:
                self._sock = None
            owned.close()

    @contextmanager
    def served(self) -> Iterator[None]:
        """Let connections know that what this thread does inside the block is this call."""
        token = serving.set(self)
        try:
            yield
        finally:
            serving.reset(token)


class Policy:
    """What is asked for each request, and where the run is carried.

    Args:
        capability: the capability that calls use, one for all or by request.
        carry_to: the hosts whose requests carry the run in their headers; others never get it.
    """

    __slots__ = ("_capability", "_carry_to")

    def __init__(self, capability: Capability[Q], carry_to: Collection[str]) -> None:
        if isinstance(carry_to, str):
            raise TypeError("carry_to is a collection of host names, not one text")
        self._capability = check_capability(capability) if isinstance(capability, str) else capability
        self._carry_to = frozenset(host.lower() for host in carry_to)

    def call(self, request: object) -> Call:
        """Return the call of the current run that a request is.

        Raises:
            Unverified: no run is current, which means stopped.
            InvalidTarget: what names the capability gave no valid id.
        """
        capability: object = self._capability
        if callable(capability):
            capability = capability(request)
        return Call(current_run(), None if capability is None else check_capability(str(capability)))

    def carries_to(self, host: str | None) -> bool:
        """Return whether requests to a host carry the run."""
        return host is not None and host.lower() in self._carry_to


def spare(sock: HasFileno) -> RawSocket:
    """Return another descriptor of the same connection.

    It is the caller's to close. While TLS is begun, the socket itself belongs to nobody.
    """
    return RawSocket(fileno=os.dup(sock.fileno()))


def shut_down(sock: HasFileno | None) -> None:
    """End a connection from any thread, both ways and at once; whoever waits on it wakes."""
    if sock is None:
        return
    with suppress(OSError):  # closed meanwhile, or never connected
        # By a descriptor of its own: SSLSocket.shutdown() pulls the state from under a reader, gevent's asks the hub.
        other = spare(sock)
        try:
            other.shutdown(SHUT_RDWR)
        finally:
            other.close()
