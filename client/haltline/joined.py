"""A run that goes on in another process than the one that armed it."""

from __future__ import annotations

from haltline import aio
from haltline.carried import Carried
from haltline.clocks import Clocks
from haltline.refresher import Refresher
from haltline.replica import Replica
from haltline.run import Run
from haltline.verdict import Reason, Stop, Verdict


class Joined(Run):
    """A run that was armed elsewhere, made by :meth:`haltline.KillSwitch.join`.

    It has the same id and path, and is armed at the same log position: what has hit it since has hit it here, revived
    or not. Entering it waits until this process has seen as much of the log as the one that armed it.
    """

    __slots__ = ("_carried",)

    def __init__(self, carried: Carried, *, refresher: Refresher, clocks: Clocks, timeout: float) -> None:
        super().__init__(carried.lineage, refresher=refresher, clocks=clocks, timeout=timeout)
        self._carried = carried

    @property
    def carried(self) -> Carried:
        """The run as it came, to be carried on."""
        return self._carried

    def arm(self, timeout: float | None = None) -> None:
        """Wait until this process has caught up with the run, and check it.

        Args:
            timeout: seconds; by default what ``switch.join(timeout=...)`` says.

        Raises:
            Killed: a target on its path was killed since it was armed.
            Unverified: no live lease in time, or this process has not caught up; entering it again may help. Or it
                belongs to another log.
            InvalidTarget: the run, or one above it, is at work in this process in another place.
        """
        self._refresher.wait(self._caught_up, self._timeout if timeout is None else timeout, urgent=True)
        self._arm()

    async def aarm(self, timeout: float | None = None) -> None:
        """As :meth:`arm`, for asyncio."""
        await aio.wait(self._refresher, self._caught_up, self._timeout if timeout is None else timeout)
        self._arm()

    def _caught_up(self) -> bool:
        """Return whether waiting is over: this process knows enough to judge the run, or never will."""
        replica = self._refresher.lease.replica
        if replica.epoch and replica.epoch != self._carried.epoch:
            return True
        return self._refresher.live() and replica.position.seq >= self._carried.armed_seq

    def _arm(self) -> None:
        place = self._refresher.places.take(self.lineage)
        # Armed even where the check fails: waiting longer may be all that is needed, and run.wait() does that.
        self._armed_seq = self._carried.armed_seq
        self.check()
        self._place = place

    def _judge(self, replica: Replica, capability: str | None = None) -> Verdict:
        ours = self._carried.epoch
        if replica.epoch != ours:
            return Stop(
                Reason.FOREIGN,
                detail=f"it was armed on the log with epoch {ours}, this process knows {replica.epoch or 'none yet'}: "
                f"it goes on only where that log is served",
            )
        return super()._judge(replica, capability)
