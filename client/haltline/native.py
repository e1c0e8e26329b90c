"""The original threads, locks and sockets of a process that gevent has patched; the ordinary ones anywhere else.

A lease must be renewed while an event loop is blocked, by a thread that gevent knows nothing of and on a socket whose
SO_RCVTIMEO counts. What such a thread shares with greenlets must make neither wait on the other's scheduler: a native
lock is only ever held for moments, and a greenlet that waits for a notice looks again every few milliseconds, in the
patched ``time.sleep``, which lets the others run. gevent is never imported here.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Protocol

_LOOK_S: Final = 0.005
"""How long a greenlet that waits sleeps between two looks, seconds."""

_ours: Final[set[int]] = set()
"""The native ids of the running threads that were started here: they may block, for they are nobody's event loop."""


def _original(module: str, name: str) -> Any:
    """Return what gevent has replaced, or what stands there."""
    monkey = sys.modules.get("gevent.monkey")
    return getattr(sys.modules[module], name) if monkey is None else monkey.get_original(module, name)


def patched() -> bool:
    """Return whether gevent has replaced this process's threads."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def make_socket(family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
    """Return a socket that blocks its thread."""
    made: socket.socket = _original("socket", "socket")(family, kind)
    return made


def addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[object, ...]]]:
    """Return where TCP connections to a name may go.

    Raises:
        OSError: it has no address.
        UnicodeError: it cannot be a name.
    """
    found = _original("socket", "getaddrinfo")(host, port, type=socket.SOCK_STREAM)
    return [(info[0], info[4]) for info in found]


class Thread(Protocol):
    """A thread: threading's, or one that gevent knows nothing of."""

    def start(self) -> None:
        """Start; RuntimeError if there is no thread to be had."""

    def is_alive(self) -> bool:
        """Return whether it runs."""

    def join(self, timeout: float) -> None:
        """Wait for its end, at most so many seconds."""


class Condition(Protocol):
    """A condition whose lock lets its own holder in again, as threading's does."""

    def acquire(self, blocking: bool = True) -> bool:  # noqa: FBT001, FBT002  # threading's signature
        """Take the lock."""

    def release(self) -> None:
        """Give it back."""

    def __enter__(self) -> bool:
        """Take the lock."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Give it back."""

    def wait(self, timeout: float) -> bool:
        """Give the lock back until a notice or for so many seconds."""

    def notify_all(self) -> None:
        """Wake everybody who waits."""


def make_thread(target: Callable[[], None], *, name: str) -> Thread:
    """Return a native thread, not yet started, that does not keep the process from ending."""
    return _NativeThread(target) if patched() else threading.Thread(target=target, name=name, daemon=True)


def make_condition() -> Condition:
    """Return a condition that native threads and greenlets may share."""
    return _NativeCondition() if patched() else threading.Condition()


class _NativeThread:
    def __init__(self, target: Callable[[], None]) -> None:
        self._target = target
        self._running = False
        self._id = 0

    def start(self) -> None:
        begin = _original("_thread", "start_new_thread")
        self._running = True
        try:
            begin(self._run, ())
        except RuntimeError:
            self._running = False
            raise

    def _run(self) -> None:
        self._id = _original("_thread", "get_ident")()
        _ours.add(self._id)
        try:
            self._target()
        finally:
            _ours.discard(self._id)
            self._running = False

    def is_alive(self) -> bool:
        return self._running

    def join(self, timeout: float) -> None:
        if _original("_thread", "get_ident")() == self._id:
            raise RuntimeError("cannot join the current thread")
        end = time.monotonic() + timeout
        while self._running and time.monotonic() < end:
            time.sleep(_LOOK_S)


class _NativeCondition:
    def __init__(self) -> None:
        self._lock = _original("_thread", "RLock")()
        self._notices = 0
        self._bells: list[Any] = []

    def acquire(self, blocking: bool = True) -> bool:  # noqa: FBT001, FBT002  # threading's signature
        taken: bool = self._lock.acquire(blocking)
        return taken

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._lock.release()

    def wait(self, timeout: float) -> bool:
        blocks = _original("_thread", "get_ident")() in _ours
        heard = self._notices
        bell = _original("_thread", "allocate_lock")()
        if blocks:
            bell.acquire()
            self._bells.append(bell)
        held = self._lock._release_save()  # noqa: SLF001  # as threading.Condition does
        try:
            if blocks:
                bell.acquire(timeout=min(max(timeout, 0), threading.TIMEOUT_MAX))
            else:
                end = time.monotonic() + timeout
                while self._notices == heard and (left := end - time.monotonic()) > 0:
                    time.sleep(min(left, _LOOK_S))
        finally:
            self._lock._acquire_restore(held)  # noqa: SLF001
            if bell in self._bells:
                self._bells.remove(bell)
        return self._notices != heard

    def notify_all(self) -> None:
        self._notices += 1
        bells, self._bells = self._bells, []
        for bell in bells:
            bell.release()
