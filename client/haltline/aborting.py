"""Calls in flight: which there are in this process, and how a kill ends them.

Each is watched by a scope, which is judged anew whenever the replica has moved on, in the thread that renews the lease.
What ends a call at once, such as the cancellation of a task, is done in that very thread. Callbacks, which are other
people's code, run in a thread of their own: one that raises or hangs keeps neither the lease nor other calls.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from haltline.lease import NEVER
from haltline.native import make_condition, make_thread
from haltline.replica import Replica
from haltline.verdict import Stop

if TYPE_CHECKING:
    from haltline.lease import Lease

HANG_S: Final = 0.5
"""After how long a callback that has not returned is left alone, and another thread goes on, seconds."""

_IDLE_S: Final = 5.0

Callback = Callable[[], object]


class Scope:
    """One call in flight.

    Attributes:
        stop: the verdict that ended it; None while it may go on.
    """

    __slots__ = ("__weakref__", "_armed", "_callbacks", "_calls", "_judge", "_signal", "stop")

    def __init__(
        self, calls: Calls, judge: Callable[[Replica], Stop | None], signal: Callable[[], None] | None = None
    ) -> None:
        """Set up, without being watched.

        Args:
            calls: the calls of this process.
            judge: returns what ends the call under a replica, if anything does.
            signal: called once when the call ends, in the thread that renews the lease: it must neither wait nor raise.
        """
        self._calls = calls
        self._judge = judge
        self._signal = signal
        self._armed = [True]
        self._callbacks: deque[Callback] = deque()
        self.stop: Stop | None = None

    def open(self) -> None:
        """Have it watched. Whoever opens it judges once more then: a kill before that has been heard of already."""
        self._calls.add(self)

    def close(self) -> None:
        """Have it watched no longer: the call is over. Callbacks that have not begun are forgotten."""
        self._calls.remove(self)
        if self.stop is None:
            self._callbacks.clear()

    def on_abort(self, callback: Callback) -> Callback:
        """Have ``callback`` called once if a kill ends the call, at once if one has; return what forgets it."""
        self._callbacks.append(callback)
        if self.stop is not None:
            self._calls.run(self)

        def forget() -> None:
            with suppress(ValueError):
                self._callbacks.remove(callback)

        return forget

    def disown(self) -> None:
        """Have nothing done to the call, in a forked child: its sockets and statements are the parent's, too."""
        self._callbacks.clear()
        self._signal = None

    def judge(self, replica: Replica) -> None:
        """End the call if a kill is on its path, once."""
        stop = self._judge(replica)
        if stop is None:
            return
        try:
            self._armed.pop()
        except IndexError:
            return
        self.stop = stop
        if self._signal is not None:
            self._signal()
        if self._callbacks:
            self._calls.run(self)

    def next_callback(self) -> Callback | None:
        """Return a callback that has not run, the newest first, which is the caller's to run; None if there is none."""
        try:
            return self._callbacks.pop()
        except IndexError:
            return None


class Calls:
    """The calls in flight of one switch in this process."""

    def __init__(self) -> None:
        self._open: dict[Scope, None] = {}
        self._seen: Replica = NEVER.replica
        self._begin_life()

    def _begin_life(self) -> None:
        self._changed = make_condition()
        self._ended: deque[Scope] = deque()
        self._runner = 0
        self._idle = False
        self._busy_since: float | None = None

    def begin_anew(self) -> None:
        """Become those of a forked child: the parent's thread is not here, and what its calls use is the parent's."""
        self._seen = NEVER.replica  # the parent may have been in the middle of judging them
        for scope in list(self._open):
            scope.disown()
        self._begin_life()

    def __len__(self) -> int:
        """Return how many are watched."""
        return len(self._open)

    def add(self, scope: Scope) -> None:
        """Watch a call."""
        self._open[scope] = None

    def remove(self, scope: Scope) -> None:
        """Watch a call no longer."""
        self._open.pop(scope, None)

    def heed(self, lease: Lease) -> None:
        """Judge every call, if the replica has moved on; called after each renewal by the thread that renews."""
        self._tend()
        if lease.replica is self._seen:
            return
        self._seen = lease.replica
        for scope in list(self._open):
            scope.judge(lease.replica)

    def run(self, scope: Scope) -> None:
        """Have the callbacks of a scope that has ended run, in a thread that may wait."""
        with self._changed:
            self._ended.append(scope)
            if self._idle:
                self._changed.notify_all()
            else:
                self._start_if_free()

    def _tend(self) -> None:
        if self._ended:
            with self._changed:
                self._start_if_free()

    def _start_if_free(self) -> None:
        """Start a thread, if there is none, or if the last one has been with one callback for too long."""
        busy_since = self._busy_since
        if self._runner and (busy_since is None or time.monotonic() - busy_since < HANG_S):
            return
        self._runner += 1
        self._busy_since = None
        number = self._runner
        # No thread to be had: the next renewal tries again.
        try:
            make_thread(lambda: self._serve(number), name="haltline-abort").start()
        except RuntimeError:
            self._runner -= 1

    def _serve(self, number: int) -> None:
        while True:
            with self._changed:
                if self._runner != number:
                    return  # another one has taken over while a callback hung
                if not self._ended:
                    self._idle = True
                    self._changed.wait(_IDLE_S)
                    self._idle = False
                if not self._ended:
                    self._runner = 0
                    return
                scope = self._ended[0]
                callback = scope.next_callback()
                if callback is None:
                    self._ended.popleft()
                    continue
                self._busy_since = time.monotonic()
            try:
                callback()
            except BaseException as error:  # noqa: BLE001 - other people's code: said, and the stop goes on
                _say(error)
            with self._changed:
                if self._runner == number:
                    self._busy_since = None


def _say(error: BaseException) -> None:
    import logging  # 5 ms that importing the client need not cost

    logging.getLogger("haltline").error("an abort callback failed; the stop goes on", exc_info=error)
