"""The planned work of a run: what it does later, elsewhere or again."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from haltline.clocks import Clocks
from haltline.lease import Lease
from haltline.lineage import Lineage
from haltline.plans import Plans
from haltline.refresher import Refresher
from haltline.replica import Replica
from haltline.scopes import check_capability
from haltline.verdict import Stop, Verdict

if TYPE_CHECKING:
    from haltline.aborting import Calls
    from haltline.carried import Carried
    from haltline.errors import CapabilityFrozen, Halt
    from haltline.planned import Redeemed, Redeeming
    from haltline.retrying import On, Retrying
    from haltline.stamps import Stamp
    from haltline.timers import Timer


class Planning:
    """What :class:`haltline.run.Run` can do besides going on now. The machinery is imported when it is asked for."""

    __slots__ = ()

    id: str
    lineage: Lineage
    _clocks: Clocks
    _gettime: Callable[[int], float]
    _refresher: Refresher
    _timeout: float

    if TYPE_CHECKING:  # what the run itself brings

        @property
        def calls(self) -> Calls:
            """The calls in flight in this process."""

        @property
        def halted(self) -> Stop | None:
            """The verdict that halted the run for ever."""

        def check(self, capability: str | None = None) -> None:
            """Return if the next side effect may happen, else raise."""

        def halted_under(self, replica: Replica) -> Stop | None:
            """Return what stops this run under ``replica``."""

        def stopped_by(self, stop: Stop, capability: str | None = None) -> Halt | CapabilityFrozen:
            """Return the error that tells of a stop."""

        @property
        def carried(self) -> Carried:
            """The run as it is carried to another process."""

        def _decide(self, lease: Lease, capability: str | None) -> Verdict: ...
        def _error(self, stop: Stop, capability: str | None) -> Halt | CapabilityFrozen: ...

    def plan(self, capability: str, *, payload_hash: str | None = None) -> str:
        """Return a stamp for work that is done later or elsewhere: a small text to be stored with it, and redeemed.

        No call is made. A kill that discards, on the path of this run or of the capability, voids the stamp for ever.

        Args:
            capability: the capability that the work will use.
            payload_hash: a hash of what is to be done, 1 to 255 printable ASCII characters, compared on redeeming.

        Raises:
            Killed: as for :meth:`check`; likewise Unverified, CapabilityFrozen and InvalidTarget.
            Unverified: also where the service has given this process no stamp keys.
            ValueError: ``payload_hash`` is malformed.
        """
        from haltline import planned

        stamp = self.planned_now(check_capability(capability), payload_hash)
        return planned.plan(stamp, self._refresher, self._clocks)

    def plan_after(self, capability: str, *, payload_hash: str | None = None) -> str:
        """As :meth:`plan`, for what follows this run's work: it has the run's own position, and is not checked here.

        So it can be made when the run's block was left, or was stopped: redeeming it is then refused.
        """
        from haltline import planned
        from haltline.stamps import check_payload_hash

        stamp = self._followed(check_capability(capability))
        if payload_hash is not None:
            stamp = replace(stamp, payload_hash=check_payload_hash(payload_hash))
        return planned.plan(stamp, self._refresher, self._clocks)

    def redeem(self, stamp: str, *, payload_hash: str | None = None, timeout: float | None = None) -> Redeemed:
        """Return planned work that may be carried out; see :meth:`haltline.KillSwitch.redeem`.

        What stops this run stops the work as well, unless this run planned it, or stands above the run that did: then
        only the stamp counts.
        """
        return self._redeeming(stamp, payload_hash, timeout).redeem()

    async def aredeem(self, stamp: str, *, payload_hash: str | None = None, timeout: float | None = None) -> Redeemed:
        """As :meth:`redeem`, for asyncio."""
        return await self._redeeming(stamp, payload_hash, timeout).aredeem()

    def sleep(self, seconds: float) -> None:
        """Sleep, unless a kill stops the run: then wake at once. A lease that lapses meanwhile does not matter.

        Raises:
            Killed: the run is stopped.
            Unverified: the run was never armed.
            ValueError: ``seconds`` is below 0.
        """
        from haltline import timers

        timers.sleep(self, seconds)

    async def asleep(self, seconds: float) -> None:
        """As :meth:`sleep`, for asyncio."""
        from haltline import timers

        await timers.asleep(self, seconds)

    def call_later(
        self, delay: float, function: Callable[..., object], *args: object, capability: str | None = None
    ) -> Timer:
        """Have ``function(*args)`` called after ``delay`` seconds, in a thread of its own, and return the timer.

        It is planned work, which never leaves this process: a kill that discards voids it for ever, and it does fire
        under one that drains. While no lease is live it waits. Inside, the work is the current run.

        Args:
            delay: seconds, 0 or more.
            function: what to call. What it raises is logged.
            args: its arguments.
            capability: the capability that it will use, if it is one.

        Raises:
            Killed: as for :meth:`check`; likewise Unverified, CapabilityFrozen and InvalidTarget.
            ValueError: ``delay`` is below 0.
        """
        from haltline import timers

        what = getattr(function, "__qualname__", type(function).__qualname__)
        return timers.call_later(self, self.planned_now(capability), delay, functools.partial(function, *args), what)

    def retrying(
        self,
        on: On,
        *,
        attempts: int | None = 10,
        timeout: float | None = 45.0,
        wait_initial: float = 0.1,
        wait_max: float = 5.0,
        wait_jitter: float = 1.0,
    ) -> Retrying:
        """Return what repeats a block or a call that failed, and never repeats a halt.

        ``for attempt in run.retrying(on=OSError): with attempt: ...``, ``async for`` likewise, or
        ``run.retrying(on=OSError)(function, *args)``. The run is checked before each attempt, and a kill ends the pause
        before the next one at once. Needs ``pip install haltline[retry]``.

        Args:
            on: the exceptions to try again after: one, several, or a function that tells.
            attempts: how many there are at most, the first included; None for no end.
            timeout: seconds after which there is no further attempt; None for no end.
            wait_initial: the first pause, seconds; each later one is twice as long.
            wait_max: the longest pause, seconds.
            wait_jitter: up to how much is added to a pause at random, seconds.
        """
        from haltline.retrying import Retrying

        return Retrying(
            self,
            on,
            attempts=attempts,
            timeout=timeout,
            pauses=(wait_initial, wait_max, wait_jitter),
        )

    @property
    def plans(self) -> Plans:
        """What this process remembers of planned work."""
        return self._refresher.plans

    @property
    def replica(self) -> Replica:
        """The fold as it stands, whether or not a lease is live."""
        return self._refresher.lease.replica

    def planned_now(self, capability: str | None, payload_hash: str | None = None) -> Stamp:
        """Return what work planned now is stamped with, unsealed; raises what :meth:`check` raises."""
        # One lease for both: a position newer than the check's could be that of a kill which it has not seen.
        lease = self._refresher.lease
        verdict = self._decide(lease, capability)
        if isinstance(verdict, Stop):
            raise self._error(verdict, capability)
        stamp = self._planned_under(lease.replica, capability)
        if payload_hash is None:
            return stamp
        from haltline.stamps import check_payload_hash

        return replace(stamp, payload_hash=check_payload_hash(payload_hash))

    def halted_by_host(self, replica: Replica) -> Stop | None:  # noqa: ARG002 - those that have one ask it
        """Return what stops the run that carries this one out, if there is such a run and anything does."""
        return None

    def redeemed(self, stamp: Stamp) -> Redeemed:
        """Return the work of a stamp of this process."""
        from haltline.planned import Redeemed

        return Redeemed(stamp, refresher=self._refresher, clocks=self._clocks, timeout=self._timeout)

    def _planned_under(self, replica: Replica, capability: str | None) -> Stamp:
        from haltline.stamps import Stamp

        now = int(self._gettime(time.CLOCK_REALTIME))
        return Stamp(replica.namespace, replica.epoch, replica.position.seq, now, self.lineage, capability)

    def _followed(self, capability: str) -> Stamp:
        """Return the stamp of what follows this run's work, unsealed."""
        carried = self.carried
        return replace(self._planned_under(self.replica, capability), epoch=carried.epoch, seq=carried.armed_seq)

    def _redeeming(self, stamp: str, payload_hash: str | None, timeout: float | None) -> Redeeming:
        from haltline.planned import Redeeming

        patience = self._timeout if timeout is None else timeout
        return Redeeming(
            stamp,
            refresher=self._refresher,
            clocks=self._clocks,
            timeout=patience,
            host=self,
            payload_hash=payload_hash,
        )
