"""A run: one agent's work under one id, and the check before each of its side effects."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from haltline import aio, context
from haltline.clocks import LEASE_CLOCK, Clocks
from haltline.errors import CapabilityFrozen, Halt, Killed, Unverified
from haltline.lease import Lease
from haltline.refresher import Refresher
from haltline.scopes import Path, check_capability
from haltline.verdict import Go, Reason, Stop, Verdict

_CLEARED_MAX: Final = 1024

_FOR_GOOD: Final = frozenset({Reason.KILLED, Reason.UNSEEN})
"""The stops that no waiting ends."""


class _Cleared(set[str | None]):
    """The capabilities that one lease lets one run use. Lease and set are one object, so that they never tear."""

    __slots__ = ("lease",)

    def __init__(self, lease: Lease | None) -> None:
        super().__init__()
        self.lease = lease


class Run:
    """One run, made by :meth:`haltline.KillSwitch.run`.

    Use it as a context manager: entering arms it, which waits for a live lease, and makes it the current run of this
    thread or task. All methods may be called from any thread and from asyncio.

    A kill on its path halts it for ever, also if the kill is revived a moment later: a revive starts nothing. The
    restart that a revive permits is a new run object, made by calling ``switch.run(...)`` anew.
    """

    __slots__ = (
        "__weakref__",
        "_armed_seq",
        "_cleared",
        "_gettime",
        "_halted",
        "_path",
        "_refresher",
        "_timeout",
        "feature",
        "id",
        "tenant",
    )

    def __init__(
        self,
        run_id: str,
        *,
        path: Path,
        tenant: str | None,
        feature: str | None,
        refresher: Refresher,
        clocks: Clocks,
        timeout: float,
    ) -> None:
        self.id = run_id
        self.tenant = tenant
        self.feature = feature
        self._path = path
        self._refresher = refresher
        self._gettime = clocks.gettime
        self._timeout = timeout
        self._armed_seq: int | None = None
        self._halted: Stop | None = None
        self._cleared = _Cleared(None)

    def __repr__(self) -> str:
        """Return the run's id and how it stands."""
        state = "unarmed" if self._armed_seq is None else f"armed at {self._armed_seq}"
        if self._halted is not None:
            state = "halted"
        return f"<Run {self.id} {state}>"

    @property
    def armed_seq(self) -> int | None:
        """The log position at which the run was armed; a kill after it halts the run. None before."""
        return self._armed_seq

    @property
    def halted(self) -> Stop | None:
        """The verdict that halted the run for ever, once a check has met it."""
        return self._halted

    # -- the hot path ---------------------------------------------------------------------------------------------

    def check(self, capability: str | None = None) -> None:
        """Return if the next side effect may happen, else raise. It never waits: no lock, no I/O, no allocation.

        Args:
            capability: the capability that the effect uses, such as ``"send_email"``; None to ask for the run alone.

        Raises:
            Killed: a target on the run's path is killed, or was since the run was armed.
            Unverified: nothing proves that the run may go on; see :meth:`ensure` and :meth:`wait`.
            CapabilityFrozen: only this capability is killed; the run may go on without it.
            InvalidTarget: ``capability`` is not a valid id.
        """
        lease = self._refresher.lease  # first the lease, last the clock: a pause between them may only stop too much
        cleared = self._cleared
        if cleared.lease is lease and capability in cleared:
            gettime = self._gettime  # by a name: Python 3.11 calls `self._gettime(...)` by a slower road (LOAD_METHOD)
            if gettime(LEASE_CLOCK) < lease.until:
                return
        self._clear(lease, capability)

    def guard(self, capability: str) -> Callable[[], None]:
        """Return a prepared check of one capability, for loops: ``send = run.guard("send_email"); send()``.

        It raises what :meth:`check` raises.

        Raises:
            InvalidTarget: ``capability`` is not a valid id.
        """
        name = check_capability(capability)
        refresher, gettime, clear = self._refresher, self._gettime, self._clear
        clock = LEASE_CLOCK
        cleared: Lease | None = None

        def guarded() -> None:
            nonlocal cleared
            lease = refresher.lease
            if lease is cleared and gettime(clock) < lease.until:
                return
            clear(lease, name)
            cleared = lease

        return guarded

    # -- the rest -------------------------------------------------------------------------------------------------

    def verdict(self, capability: str | None = None) -> Verdict:
        """Return the verdict as a value, ``Go`` or ``Stop``, for those who branch. It is true when it goes.

        Args:
            capability: as in :meth:`check`.

        Raises:
            InvalidTarget: ``capability`` is not a valid id.
        """
        return self._decide(self._refresher.lease, capability)

    def arm(self, timeout: float | None = None) -> None:
        """Arm the run at the present log position, waiting for a live lease; entering the run does this.

        An armed run stays as it is. Where the path is killed as far as this process knows, the service is asked once
        more first: the revive may be younger than the lease.

        Args:
            timeout: seconds; by default what ``switch.run(timeout=...)`` says.

        Raises:
            Killed: a target on the run's path is killed.
            Unverified: no live lease in time.
        """
        patience = self._timeout if timeout is None else timeout
        if self._armed_seq is None:
            self._refresher.ensure(patience)
            if self._seems_killed():
                self._refresher.wait(self._refresher.newer(), patience, urgent=True)
        self._arm()

    async def aarm(self, timeout: float | None = None) -> None:
        """As :meth:`arm`, for asyncio."""
        patience = self._timeout if timeout is None else timeout
        if self._armed_seq is None:
            await aio.wait(self._refresher, self._refresher.live, patience)
            if self._seems_killed():
                await aio.wait(self._refresher, self._refresher.newer(), patience)
        self._arm()

    def ensure(self, timeout: float = 0.2) -> None:
        """Return once the lease is live, asking for a renewal as soon as that may be if it is not.

        For whoever would rather wait a moment than stop: in a forked child, after a pause, at start-up. Any number of
        callers share one exchange; in an outage it is the next one that the pauses between failures allow.

        Args:
            timeout: seconds.

        Raises:
            Killed: the run is killed.
            Unverified: no live lease in time, or the run was never armed.
        """
        self._refresher.ensure(timeout)
        self.check()

    async def aensure(self, timeout: float = 0.2) -> None:
        """As :meth:`ensure`, for asyncio."""
        await aio.wait(self._refresher, self._refresher.live, timeout)
        self.check()

    def wait(self, capability: str | None = None, *, timeout: float | None = None) -> None:
        """Block between two steps until the run may go on, however long that takes; the run keeps its state.

        Args:
            capability: also wait until this capability is not frozen.
            timeout: seconds; None for no end.

        Raises:
            Killed: the run is killed: waiting longer would not help.
            Unverified: not in time, the run was never armed, or the switch was closed.
            CapabilityFrozen: still frozen when the time was up.
        """
        self._refresher.wait(lambda: self._settled(capability), timeout, urgent=False)
        self.check(capability)

    async def async_wait(self, capability: str | None = None, *, timeout: float | None = None) -> None:
        """As :meth:`wait`, for asyncio."""
        await aio.wait(self._refresher, lambda: self._settled(capability), timeout)
        self.check(capability)

    def __enter__(self) -> Self:
        """Arm the run and make it the current run of this thread or task.

        Raises:
            Killed: a target on the run's path is killed.
            Unverified: no live lease within the run's timeout.
        """
        self.arm()
        context.enter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Make current again what was current before."""
        context.leave(self)

    async def __aenter__(self) -> Self:
        """As ``with``, for asyncio."""
        await self.aarm()
        context.enter(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As ``with``, for asyncio."""
        context.leave(self)

    def _settled(self, capability: str | None) -> bool:
        """Return whether waiting is over: the run may go on, or it never will."""
        verdict = self._decide(self._refresher.lease, capability)
        return isinstance(verdict, Go) or verdict.reason in _FOR_GOOD or self._armed_seq is None

    def _seems_killed(self) -> bool:
        """Return whether the path of a run that is still to be armed is killed, as far as this process knows."""
        replica = self._refresher.lease.replica
        return self._halted is None and not replica.judge(self._path, replica.position.seq)

    def _arm(self) -> None:
        if self._armed_seq is not None or self._halted is not None:
            self.check()
            return
        lease = self._refresher.lease
        seq = lease.replica.position.seq
        verdict = lease.replica.judge(self._path, seq)
        if isinstance(verdict, Go) and self._gettime(LEASE_CLOCK) >= lease.until:
            verdict = lease.stop
        if isinstance(verdict, Stop):
            if verdict.reason is Reason.KILLED:
                self._halted = verdict
            raise self._error(verdict, None)
        self._armed_seq = seq

    def _decide(self, lease: Lease, capability: str | None) -> Verdict:
        """Return the verdict under ``lease``, latching a kill."""
        if capability is not None:
            check_capability(capability)
        if self._halted is not None:
            return self._halted
        if self._armed_seq is None:
            return Stop(Reason.NOT_READY, detail="the run was not armed: enter it with `with`, or call arm()")
        verdict = lease.replica.judge(self._path, self._armed_seq, capability)
        if isinstance(verdict, Stop) and verdict.reason is Reason.KILLED:
            self._halted = verdict
            return verdict
        if self._gettime(LEASE_CLOCK) >= lease.until:
            return lease.stop
        return verdict

    def _clear(self, lease: Lease, capability: str | None) -> None:
        """Decide in full, and remember a Go for as long as the lease is the same object: until the next renewal."""
        verdict = self._decide(lease, capability)
        if isinstance(verdict, Stop):
            raise self._error(verdict, capability)
        cleared = self._cleared
        if cleared.lease is not lease:
            cleared = _Cleared(lease)
        if len(cleared) < _CLEARED_MAX:
            cleared.add(capability)
        self._cleared = cleared

    def _error(self, stop: Stop, capability: str | None) -> Halt | CapabilityFrozen:
        if stop.reason is Reason.KILLED:
            return Killed(f"run {self.id} is stopped: {stop.detail}", verdict=stop)
        if stop.reason is Reason.FROZEN and capability is not None:
            return CapabilityFrozen(
                f"{capability} is frozen by an operator ({stop.detail}). Do not look for a workaround; "
                f"go on without it, or stop.",
                capability=capability,
                verdict=stop,
            )
        if stop.reason is Reason.UNSEEN:
            return Unverified(
                f"run {self.id} may not go on ({stop.reason.value}): {stop.detail}. Give this process a token that is "
                f"bound to the run's tenant, or to none.",
                verdict=stop,
            )
        self._refresher.kick()
        return Unverified(
            f"run {self.id} may not go on ({stop.reason.value}): {stop.detail}. It goes on by itself once a lease is "
            f"fresh; run.wait() blocks until then.",
            verdict=stop,
        )
