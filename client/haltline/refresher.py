"""The background thread that keeps a process's lease fresh, for threads and asyncio alike.

It publishes the lease as one immutable object in one attribute. A check loads that object and reads the clock; if this
thread dies, hangs or is starved, the lease runs out and every check stops.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, Protocol

from haltline.clocks import LEASE_CLOCK, Clocks
from haltline.errors import ServiceError
from haltline.lease import NEVER, Lease
from haltline.native import Thread, make_condition, make_thread
from haltline.renewal import FRAME_MAX_BYTES, Identity, Renewal, Reply, unlive
from haltline.verdict import Reason, Stop

LEASE_PATH: Final = "/v1/lease"

_URGENT_GAP_S: Final = 0.02
"""The shortest pause between two exchanges, however many callers cannot wait, seconds."""


class LeaseTransport(Protocol):
    """What carries a lease request: the HTTP transport, or a fake service in a test."""

    def post(self, path: str, body: bytes, *, deadline_s: float, limit: int) -> Reply:
        """Send JSON and return the whole reply, or raise ServiceError."""

    def close(self) -> None:
        """Give back the connection."""


def _random() -> float:
    return int.from_bytes(os.urandom(4), "big") / 2**32


class Refresher:
    """Keeps one lease for one process.

    Args:
        transport: makes the transport; called once in this process and once in each forked child that asks.
        worker: returns the process's name in reports; asked once in each process.
        namespace: the namespace that the token is of.
        clocks: the machine's clocks, or a test's.
        background: whether a thread of its own renews the lease. A test with a manual clock says False: the lease is
            then renewed by whoever waits for it, in the waiting thread.

    Attributes:
        lease: the lease as it stands. Read it once per decision.
    """

    def __init__(
        self,
        transport: Callable[[], LeaseTransport],
        *,
        worker: Callable[[], str],
        namespace: str,
        clocks: Clocks,
        background: bool = True,
    ) -> None:
        self.lease: Lease = NEVER
        self._make_transport = transport
        self._worker = worker
        self._namespace = namespace
        self._clocks = clocks
        self.background = background
        self.closed = False
        self._begin_life(NEVER)
        _living.add(self)

    def _begin_life(self, lease: Lease) -> None:
        """Set up what belongs to one process and must not be shared with a forked child."""
        self._changed = make_condition()
        self._thread: Thread | None = None
        self._starting = False
        self._started = 0
        self._transport: LeaseTransport | None = None
        self._urgent = False
        self._begun = self._ended = 0
        self._listeners: tuple[Callable[[], None], ...] = ()
        identity = Identity(self._worker(), os.urandom(8).hex(), self._namespace)
        self._renewal = Renewal(identity, random=_random)
        self._renewal.lease = self.lease = lease

    @property
    def renewals(self) -> int:
        """How many leases this process was granted."""
        return self._renewal.renewals

    def live(self) -> bool:
        """Return whether the lease, as it stands, has not ended yet."""
        return self._clocks.gettime(LEASE_CLOCK) < self.lease.until

    def kick(self) -> None:
        """See to it that the thread runs, without ever waiting: also from a signal handler, or after a fork."""
        thread = self._thread
        if (thread is not None and thread.is_alive()) or self.closed or not self.background:
            return
        if self._changed.acquire(blocking=False):
            try:
                # No thread to be had (a limit, or the interpreter is ending): the check that kicks says Unverified.
                with suppress(RuntimeError):
                    self._start()
            finally:
                self._changed.release()

    def ensure(self, timeout: float) -> Lease:
        """Return the lease, waiting up to ``timeout`` seconds for a live one; the caller looks whether it is.

        Any number of callers share one exchange.
        """
        self.wait(self.live, timeout, urgent=True)
        return self.lease

    def wait(self, ready: Callable[[], bool], timeout: float | None, *, urgent: bool) -> bool:
        """Wait until ``ready()``, which is asked after each renewal, and return whether it was.

        Args:
            ready: the condition; it must be quick and must not raise.
            timeout: seconds; None for no end.
            urgent: whether to ask for a renewal at once instead of when it is due.
        """
        gettime = self._clocks.gettime
        until = None if timeout is None else gettime(LEASE_CLOCK) + timeout
        while not ready():
            if self.closed:
                return False
            left = None if until is None else until - gettime(LEASE_CLOCK)
            if left is not None and left <= 0:
                return False
            if not self.background:
                self._renew()
                return ready()
            with self._changed:
                if ready():  # asked again under the lock: the renewal that made it so has already woken everybody
                    return True
                self._start()
                if urgent:
                    # Once: after a failure the backoff holds, or many waiters would hammer a service that is down.
                    urgent, self._urgent = False, True
                    self._changed.notify_all()
                # Woken by each renewal; the bound only guards against a thread that died between two.
                self._changed.wait(0.5 if left is None else min(left, 0.5))
        return True

    def newer(self) -> Callable[[], bool]:
        """Return a condition for :meth:`wait`: an exchange that begins after this call has ended."""
        begun = self._begun
        return lambda: self._ended > begun

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` from the refresher's thread after each renewal; return what ends that.

        Asks for a renewal at once. For asyncio, which must not wait in a thread.
        """
        with self._changed:
            self._listeners = (*self._listeners, listener)
            self._start()
            self._urgent = True
            self._changed.notify_all()

        def forget() -> None:
            with self._changed:
                self._listeners = tuple(each for each in self._listeners if each is not listener)

        return forget

    def renew(self) -> Lease:
        """Renew now, in the calling thread, and return the lease; only without a background thread."""
        if self.background:
            raise RuntimeError("the background thread renews this lease")
        self._renew()
        return self.lease

    def close(self) -> None:
        """End the lease and the thread; every later check is Unverified."""
        self.closed = True
        thread = self._thread
        with self._changed:
            self.lease = self._renewal.drop(Stop(Reason.CLOSED, detail="the switch was closed"))
            self._changed.notify_all()
            listeners, transport = self._listeners, self._transport
        for listener in listeners:
            listener()
        if thread is not None:
            with suppress(RuntimeError):  # it is this very thread, or it was never started
                thread.join(self._renewal.deadline_s + 1)
        if transport is not None and (thread is None or not thread.is_alive()):
            transport.close()

    def _start(self) -> None:
        """Start the thread if it does not run; the caller holds the lock."""
        # The lock lets its own holder in again: a signal handler that checks a run while this thread stands between
        # these lines must not start a second refresher, which could put an older replica beside a newer deadline. So
        # whether one runs is asked only once no handler can get past the first line.
        if self._starting or self.closed or not self.background:
            return
        self._starting = True
        try:
            if self._thread is not None and self._thread.is_alive():
                return
            self._started += 1
            self._thread = make_thread(partial(self._run, self._started), name="haltline-refresher")
            self._thread.start()
        finally:
            self._starting = False

    def _goes_on(self, number: int) -> bool:
        # Of two threads the one that was started last goes on: an exception in a handler may cut a start short between
        # the thread's beginning and its word that it is alive.
        return self._started == number and not self.closed

    def _run(self, number: int) -> None:
        while self._goes_on(number):
            self._renew()
            with self._changed:
                if self.live():
                    self._urgent = False  # whoever asked during this exchange has what was asked for
                self._changed.notify_all()
                listeners = self._listeners
            for listener in listeners:
                listener()
            with self._changed:
                begun = self._clocks.gettime(LEASE_CLOCK)
                while self._goes_on(number):
                    now = self._clocks.gettime(LEASE_CLOCK)
                    left = self._renewal.due / 1e9 - now
                    if self._urgent:
                        left = min(left, begun + _URGENT_GAP_S - now)
                    if left <= 0:
                        break
                    self._changed.wait(left)
                self._urgent = False
        if self._transport is not None and self._started == number:
            self._transport.close()

    def _renew(self) -> None:
        """Do one exchange and publish what it came to."""
        renewal = self._renewal
        if self._transport is None:
            self._transport = self._make_transport()
        self._begun += 1
        ask = renewal.begin(self._clocks.read(), nonce=os.urandom(16).hex())
        try:
            reply = self._transport.post(LEASE_PATH, ask.body, deadline_s=renewal.deadline_s, limit=FRAME_MAX_BYTES)
        except ServiceError as error:
            lease = renewal.unanswered(str(error), self._clocks.read())
        else:
            lease = renewal.answered(ask, reply, self._clocks.read())
        with self._changed:
            self._ended = self._begun
            if not self.closed:
                self.lease = lease

    def begin_anew(self) -> None:
        """Become a process of its own, in a forked child: what is known of kills stays, every permission is gone."""
        lease, inherited = self.lease, self._transport
        if inherited is not None:
            inherited.close()  # this process's end of it: the parent goes on using its own
        self._begin_life(unlive(lease) if lease is not NEVER else NEVER)


_living: weakref.WeakSet[Refresher] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for refresher in list(_living):
        refresher.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
