"""Planned work that is carried out: a stamp is redeemed, and what it then does is judged by the stamp."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from haltline import aio
from haltline.clocks import LEASE_CLOCK, Clocks
from haltline.draining import discarded, held, judge_planned
from haltline.errors import CapabilityFrozen, Halt, StampRefused, Unverified
from haltline.planning import Planning
from haltline.plans import discarded_of, say
from haltline.refresher import Refresher
from haltline.replica import Replica
from haltline.run import Run
from haltline.stamps import PLAN_MAX_AGE_S, Stamp, check_payload_hash, open_stamp, seal
from haltline.verdict import Go, Reason, Refusal, Stop, Verdict

if TYPE_CHECKING:
    from haltline.keys import StampKey

_NO_KEYS = Stop(Reason.NOT_READY, detail="the service has given this process no stamp keys yet")


class Redeemed(Run):
    """Planned work that may be carried out, to be entered with ``with`` or ``async with``; it is the current run then.

    It is checked like any run, and judged by its stamp: a kill that discards stops it for good, a kill that drains lets
    it go on. ``check()`` without a capability asks for the one that the stamp names. Its children are judged alike.

    Attributes:
        stamp: what was planned, and when.
    """

    __slots__ = ("_host", "stamp")

    def __init__(
        self,
        stamp: Stamp,
        *,
        refresher: Refresher,
        clocks: Clocks,
        timeout: float,
        host: Planning | None = None,
    ) -> None:
        """Set up.

        Args:
            stamp: what was planned.
            refresher: renews the lease.
            clocks: the machine's clocks.
            timeout: how long its children's entering waits, seconds.
            host: the run that carries it out, where that is not in the stamp's line: what stops it stops this too.
        """
        super().__init__(stamp.lineage, refresher=refresher, clocks=clocks, timeout=timeout, armed_seq=stamp.seq)
        self.stamp = stamp
        self._host = host

    def __repr__(self) -> str:
        """Return the run's id, the capability and the position; never the stamp's text."""
        return f"<Redeemed {self.id} {self.stamp.capability} planned at {self.stamp.seq}>"

    def child(
        self, name: str, *, tenant: str | None = None, feature: str | None = None, timeout: float | None = None
    ) -> Run:
        """Return a run below this one, judged by the same stamp; see :meth:`haltline.run.Run.child`."""
        return Redeemed(
            replace(self.stamp, lineage=self.lineage.child(name, tenant=tenant, feature=feature)),
            refresher=self._refresher,
            clocks=self._clocks,
            timeout=self._timeout if timeout is None else timeout,
            host=self._host,
        )

    def halted_by_host(self, replica: Replica) -> Stop | None:
        """Return what stops the run that carries this work out."""
        return None if self._host is None else self._host.halted_under(replica)

    def redeemed(self, stamp: Stamp) -> Redeemed:
        """Return the work of a stamp of this process, carried out by the run that carries this work out."""
        return Redeemed(stamp, refresher=self._refresher, clocks=self._clocks, timeout=self._timeout, host=self._host)

    def _judge(self, replica: Replica, capability: str | None = None) -> Verdict:
        stop = self.halted_by_host(replica)
        if stop is not None:
            return stop
        return judge_planned(replica, self._path, self.stamp.seq, self._named(capability))

    def _named(self, capability: str | None) -> str | None:
        return self.stamp.capability if capability is None else capability

    def _settled(self, capability: str | None) -> bool:
        """As for any run; and a capability whose planned work is discarded is never waited for."""
        replica = self._refresher.lease.replica
        return super()._settled(capability) or discarded(replica, self._path, self.stamp.seq, self._named(capability))

    def _error(self, stop: Stop, capability: str | None) -> Halt | CapabilityFrozen:
        if self._host is not None and stop is self._host.halted:
            return self._host.stopped_by(stop)  # it is that run which is stopped, with all that it carries out
        return super()._error(stop, self._named(capability))

    def _planned_under(self, replica: Replica, capability: str | None) -> Stamp:
        """What drained work plans is part of what is drained: it has this work's position, and its age."""
        name = self._named(capability)
        fresh = super()._planned_under(replica, name)
        if not held(replica, self._path, name):
            return fresh
        return replace(fresh, seq=self.stamp.seq, made_at=self.stamp.made_at)

    def _followed(self, capability: str) -> Stamp:
        return replace(self.stamp, capability=capability, payload_hash=None)


def plan(stamp: Stamp, refresher: Refresher, clocks: Clocks) -> str:
    """Return a stamp sealed as text.

    Raises:
        Unverified: the service has given this process no stamp keys yet.
    """
    keys = refresher.stamp_keys
    if not keys:
        who = stamp.lineage.id
        raise Unverified(f"run {who} cannot plan: {_NO_KEYS.detail}", verdict=_NO_KEYS, run=who)
    return seal(stamp, refresher.plans.key(keys, clocks.gettime(LEASE_CLOCK)))


class Redeeming:
    """One stamp on its way to being redeemed.

    Args:
        text: the stamp.
        refresher: renews the lease.
        clocks: the machine's clocks.
        timeout: how long to wait for a live lease, and for the replica to reach the stamp, seconds each.
        host: the run that it is redeemed in, if any.
        payload_hash: the hash of what is to be done; None not to compare it.
    """

    def __init__(
        self,
        text: str,
        *,
        refresher: Refresher,
        clocks: Clocks,
        timeout: float,
        host: Planning | None = None,
        payload_hash: str | None = None,
    ) -> None:
        self._text = text
        self._refresher = refresher
        self._clocks = clocks
        self._timeout = timeout
        self._host = host
        self._hash = payload_hash if payload_hash is None else check_payload_hash(payload_hash)

    def redeem(self) -> Redeemed:
        """Return the work, waiting where nothing is proven yet; see :meth:`haltline.KillSwitch.redeem`."""
        self._refresher.wait(self._refresher.live, self._timeout, urgent=True)
        stamp = self._opened()
        self._refresher.wait(lambda: self._reached(stamp), self._timeout, urgent=True)
        return self._judged(stamp)

    async def aredeem(self) -> Redeemed:
        """As :meth:`redeem`, for asyncio."""
        await aio.wait(self._refresher, self._refresher.live, self._timeout)
        stamp = self._opened()
        await aio.wait(self._refresher, lambda: self._reached(stamp), self._timeout)
        return self._judged(stamp)

    def _opened(self) -> Stamp:
        """Return the stamp, known to be one of this log's that is not too old.

        Raises:
            StampRefused: it is not.
            Unverified: without a lease and its keys nothing can be said of it.
        """
        lease = self._refresher.lease
        keys = self._refresher.stamp_keys
        replica = lease.replica
        if not keys or not replica.epoch:
            raise self._unverified(_NO_KEYS if self._refresher.live() else lease.stop)
        try:
            stamp, key = open_stamp(self._text, keys, namespace=replica.namespace, epoch=replica.epoch)
        except StampRefused as refused:
            if refused.reason is Refusal.FORGED and not self._refresher.live():
                # The key may be one of the frames that this process has missed.
                raise self._unverified(lease.stop) from refused
            raise
        self._refuse_old(stamp, key)
        if self._hash is not None and stamp.payload_hash != self._hash:
            raise StampRefused(
                f"the stamp of run {stamp.lineage.id} is refused (mismatch): it was not planned for this payload",
                reason=Refusal.MISMATCH,
            )
        return stamp

    def _refuse_old(self, stamp: Stamp, key: StampKey) -> None:
        now = self._clocks.gettime(time.CLOCK_REALTIME)
        if now - stamp.made_at > PLAN_MAX_AGE_S or now > key.until:
            raise self._refused(stamp, Refusal.EXPIRED, "it was planned more than 30 days ago: plan it anew", None)

    def _reached(self, stamp: Stamp) -> bool:
        return self._refresher.lease.replica.position.seq >= stamp.seq

    def _judged(self, stamp: Stamp) -> Redeemed:
        # One lease for all of it: a kill that comes meanwhile stops the work once it is entered, and never the worker.
        lease = self._refresher.lease
        host = None if self._host is None or self._host.id in stamp.lineage.ids else self._host
        work = Redeemed(stamp, refresher=self._refresher, clocks=self._clocks, timeout=self._timeout, host=host)
        path = stamp.lineage.path()
        verdict = judge_planned(lease.replica, path, stamp.seq, stamp.capability)
        if isinstance(verdict, Stop) and verdict.reason in (Reason.KILLED, Reason.FROZEN):
            if discarded(lease.replica, path, stamp.seq, stamp.capability):
                raise self._refused(stamp, Refusal.DISCARDED, verdict.detail, verdict)
            raise StampRefused(
                f"the stamp of run {stamp.lineage.id} is refused (held): {verdict.detail}. It was planned after that "
                f"kill, and may be redeemed once it is revived.",
                reason=Refusal.HELD,
                verdict=verdict,
            )
        if isinstance(verdict, Go) and host is not None:
            stop = host.halted_under(lease.replica)  # a Stop is false: `or` would pass it over
            verdict = verdict if stop is None else stop
        if isinstance(verdict, Go) and self._clocks.gettime(LEASE_CLOCK) >= lease.until:
            verdict = lease.stop
        if isinstance(verdict, Stop):
            raise work.stopped_by(verdict, stamp.capability)
        return work

    def _refused(self, stamp: Stamp, reason: Refusal, why: str, verdict: Stop | None) -> StampRefused:
        """Return the error of a stamp that is dead for ever, which is remembered and logged."""
        at = self._clocks.gettime(time.CLOCK_REALTIME)
        record = discarded_of(stamp, reason, why, at=at, text=self._text)
        self._refresher.plans.note(record)
        say(record)
        return StampRefused(
            f"the stamp of run {stamp.lineage.id} for {stamp.capability} is refused ({reason.value}): {why}",
            reason=reason,
            verdict=verdict,
        )

    @staticmethod
    def _unverified(stop: Stop) -> Unverified:
        return Unverified(
            f"the stamp cannot be redeemed yet ({stop.reason.value}): {stop.detail}. Ask again once a lease is fresh.",
            verdict=stop,
        )
