"""The background thread that keeps a process's lease fresh, for threads and asyncio alike.

It reads one lease stream after another, and publishes the lease after each frame as one immutable object in one
attribute. A check loads that object and reads the clock; if this thread dies, hangs or is starved, the lease runs out
and every check stops.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from haltline.aborting import Calls
from haltline.acks import Acks
from haltline.clocks import LEASE_CLOCK, Clocks
from haltline.exchanges import LEASE_PATH, Exchanges
from haltline.keys import StampKey
from haltline.lease import NEVER, Lease
from haltline.loud import Loud
from haltline.native import Thread, make_condition, make_thread
from haltline.places import Places
from haltline.plans import Plans
from haltline.ports import LeaseStream, LeaseTransport
from haltline.renewal import Identity, Renewal, unlive
from haltline.verdict import Reason, Stop
from haltline.watchdog import DEFAULT, Grace, Watchdog

__all__ = ["LEASE_PATH", "LeaseStream", "LeaseTransport", "Refresher"]

_URGENT_GAP_S: Final = 0.02
"""The shortest pause between two exchanges that succeed, however many callers cannot wait, seconds."""


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
            then renewed by whoever waits for it, in the waiting thread, a frame at a time.
        stream: whether the thread reads streams of frames; False asks for one frame every third of the ttl.
        grace: how long a killed run has to leave its block, and what comes then.

    Attributes:
        lease: the lease as it stands. Read it once per decision.
        calls: the calls in flight, which a kill may end.
        watchdog: the blocks of runs, which are cleaned up behind.
        places: where in the tree the runs of this process stand.
        plans: what this process remembers of planned work.
    """

    def __init__(
        self,
        transport: Callable[[], LeaseTransport],
        *,
        worker: Callable[[], str],
        namespace: str,
        clocks: Clocks,
        background: bool = True,
        stream: bool = True,
        grace: Grace = DEFAULT,
    ) -> None:
        self.lease: Lease = NEVER
        self._make_transport = transport
        self._worker = worker
        self._namespace = namespace
        self._clocks = clocks
        self.background = background
        self.closed = False
        self._streams = stream and background
        self._acks = Acks(transport, clocks)
        self.calls = Calls()
        self.places = Places()
        outcomes = None
        if background:
            from haltline.outcomes import Outcomes  # milliseconds that importing the client need not cost

            outcomes = Outcomes(transport, lambda: self._renewal.identity)
        self.watchdog = Watchdog(grace, self.calls, lambda: self.lease.replica, outcomes)
        self.plans = Plans()
        self._begin_life(NEVER)
        _living.add(self)

    def _begin_life(self, lease: Lease, keys: tuple[StampKey, ...] = ()) -> None:
        """Set up what belongs to one process and must not be shared with a forked child."""
        self._changed = make_condition()
        self._thread: Thread | None = None
        self._starting = False
        self._started = 0
        self._urgent = False
        self._begun = self._ended = 0
        self._truth = -1
        self._loud = Loud()
        self._listeners: tuple[Callable[[], None], ...] = ()
        identity = Identity(self._worker(), os.urandom(8).hex(), self._namespace)
        self._renewal = Renewal(identity, random=_random)
        self._renewal.lease = self.lease = lease
        self._renewal.stamp_keys = keys
        self._exchanges = Exchanges(
            self._renewal,
            self._make_transport,
            self._clocks,
            stream=self._streams,
            lock=self._changed,
            publish=self._publish,
        )

    @property
    def renewals(self) -> int:
        """How many leases this process was granted."""
        return self._renewal.renewals

    @property
    def stamp_keys(self) -> tuple[StampKey, ...]:
        """What planned work is sealed with, the newest first; empty before the service has given any."""
        return self._renewal.stamp_keys

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

        Any number of callers share one exchange: the one under way, or the next one that may begin. However often it is
        called, there are no more of them than the pauses after failures allow.
        """
        self.wait(self.live, timeout, urgent=True)
        return self.lease

    def wait(self, ready: Callable[[], bool], timeout: float | None, *, urgent: bool) -> bool:
        """Wait until ``ready()``, which is asked after each renewal, and return whether it was.

        Args:
            ready: the condition; it must be quick and must not raise.
            timeout: seconds; None for no end.
            urgent: whether to ask for a renewal as soon as one may be asked for, instead of when it is due.
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
                if gettime(LEASE_CLOCK) >= self._renewal.earliest / 1e9:
                    self._renew()
                return ready()
            with self._changed:
                if ready():  # asked again under the lock: the renewal that made it so has already woken everybody
                    return True
                self._start()
                if urgent:
                    urgent = False  # once: the thread knows by now
                    self._hurry()
                # Woken by each renewal; the bound only guards against a thread that died between two.
                self._changed.wait(0.5 if left is None else min(left, 0.5))
        return True

    def newer(self) -> Callable[[], bool]:
        """Return a condition for :meth:`wait`: the lease rests on a read of the log that began after this call.

        It also holds once an exchange that began after this call has come to nothing.
        """
        begun, called = self._begun, self._clocks.gettime_ns(LEASE_CLOCK)
        return lambda: self._truth > called or self._ended > begun

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` from the refresher's thread after each renewal; return what ends that.

        Asks for a renewal at once. For asyncio, which must not wait in a thread.
        """
        with self._changed:
            self._listeners = (*self._listeners, listener)
            self._start()
            self._hurry()

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
            listeners = self._listeners
        for listener in listeners:
            listener()
        self._acks.close()
        self.watchdog.close()
        if thread is not None:
            self._exchanges.interrupt()
            with suppress(RuntimeError):  # it is this very thread, or it was never started
                thread.join(self._renewal.deadline_s + 1)
        if thread is None or not thread.is_alive():
            self._exchanges.close()

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

    def _hurry(self) -> None:
        """Have the next exchange begin as soon as it may, giving up a stream that keeps no lease but could.

        The pause after a failure and the patience with a poor stream hold all the same, or many callers would hammer a
        service that is down or has too much to do. The caller holds the lock.
        """
        self._urgent = True
        if not self.live():
            self._exchanges.leave()
        self._changed.notify_all()

    def _run(self, number: int) -> None:
        while self._goes_on(number):
            self._renew(number)
            with self._changed:
                begun = self._clocks.gettime(LEASE_CLOCK)
                while self._goes_on(number):
                    now = self._clocks.gettime(LEASE_CLOCK)
                    left = self._renewal.due / 1e9 - now
                    if self._urgent:
                        left = min(left, max(begun + _URGENT_GAP_S, self._renewal.earliest / 1e9) - now)
                    if left <= 0:
                        break
                    self._changed.wait(left)
                self._urgent = False
        if self._started == number:
            self._exchanges.close()

    def _renew(self, number: int = 0) -> None:
        """Do one exchange and publish what it came to; a stream after each of its frames."""
        self._begun += 1
        self._exchanges.once(lambda: self._goes_on(number))

    def _publish(self) -> None:
        """Show the lease as it stands to checks, wake whoever waits, and tell the service of what was applied."""
        renewal = self._renewal
        with self._changed:
            self._ended = self._begun
            if not self.closed:
                self.lease = renewal.lease
                self._truth = renewal.truth
            if self.live():
                self._urgent = False  # whoever asked during this exchange has what was asked for
            self._changed.notify_all()
            listeners = self._listeners
        self.calls.heed(self.lease)
        for listener in listeners:
            listener()
        if renewal.news and self._streams:
            self._acks.tell(renewal.ack(), within_s=renewal.ack_within_s)
        self._loud.heard(renewal.lease.stop)

    def begin_anew(self) -> None:
        """Become a process of its own, in a forked child: what is known of kills stays, every permission is gone."""
        lease = self.lease
        self._exchanges.close()  # this process's end of the connection: the parent goes on using its own
        self._acks.begin_anew()
        self.calls.begin_anew()
        self.places.begin_anew()
        self.watchdog.begin_anew()
        self._begin_life(unlive(lease) if lease is not NEVER else NEVER, self.stamp_keys)


_living: weakref.WeakSet[Refresher] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for refresher in list(_living):
        refresher.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
