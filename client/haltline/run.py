"""A run: one agent's work under one id, and the check before each of its side effects."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, overload

from haltline import aio, context, stopped
from haltline.abortable import Abortable
from haltline.aborting import Calls
from haltline.carried import Carried
from haltline.cleanup import Cleanup
from haltline.clocks import LEASE_CLOCK, Clocks
from haltline.effects import Effect, check_key
from haltline.errors import CapabilityFrozen, Halt, Killed, Unverified
from haltline.lease import Lease
from haltline.lineage import Lineage
from haltline.places import Place
from haltline.planning import Planning
from haltline.refresher import Refresher
from haltline.replica import Replica
from haltline.scopes import Path, check_capability
from haltline.stopped import F, P, R, RunStopped
from haltline.verdict import Go, Reason, Stop, Verdict
from haltline.watchdog import Block

if TYPE_CHECKING:
    from haltline.aprocesses import AsyncSubprocess
    from haltline.processes import Args, Subprocess

_CLEARED_MAX: Final = 1024

_FOR_GOOD: Final = frozenset({Reason.KILLED, Reason.UNSEEN})
"""The stops that no waiting ends."""


class _Cleared(set[str | None]):
    """The capabilities that one lease lets one run use. Lease and set are one object, so that they never tear."""

    __slots__ = ("lease",)

    def __init__(self, lease: Lease | None) -> None:
        super().__init__()
        self.lease = lease


class Run(Planning):
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
        "_clocks",
        "_gettime",
        "_halted",
        "_origin",
        "_path",
        "_place",
        "_refresher",
        "_timeout",
        "block",
        "feature",
        "id",
        "lineage",
        "tenant",
    )

    def __init__(
        self,
        lineage: Lineage,
        *,
        refresher: Refresher,
        clocks: Clocks,
        timeout: float,
        origin: Callable[[Replica], Verdict] | None = None,
        armed_seq: int | None = None,
    ) -> None:
        self._path: Path = lineage.path()
        self.lineage = lineage
        self.id = lineage.id
        self.tenant = lineage.tenant
        self.feature = lineage.feature
        self._refresher = refresher
        self._clocks = clocks
        self._gettime = clocks.gettime
        self._timeout = timeout
        self._origin = origin
        self._armed_seq: int | None = armed_seq
        self._halted: Stop | None = None
        self._place: Place | None = None
        self._cleared = _Cleared(None)
        self.block = Block()

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

    # -- calls in flight ------------------------------------------------------------------------------------------

    def effect(self, capability: str, key: str | None = None) -> Effect:
        """Return one side effect, to be entered with ``with`` or ``async with`` right around its call.

        Entering raises what :meth:`check` raises. ``async with`` cancels the task if a kill ends calls in flight.

        Args:
            capability: the capability that it uses, such as ``"send_email"``.
            key: its idempotency key, 1 to 255 printable ASCII characters without a space; None where it has none.

        Raises:
            ValueError: ``key`` is not a valid key.
        """
        return Effect(self, capability, key if key is None else check_key(key))

    def abortable(self, capability: str | None = None) -> Abortable:
        """Return a call in flight that a kill with ``in_flight: abort`` ends, to be entered around the call.

        ``async with run.abortable():`` cancels the task. In a thread, ``with run.abortable() as call:`` and
        ``call.on_abort(sock.close)``. A kill that says ``finish`` ends nothing here: the next check stops the run.

        Args:
            capability: the capability that the call uses: its freezing ends the call, too.
        """
        return Abortable(self, capability)

    def subprocess(self, args: Args, *, capability: str | None = None, **popen: Any) -> Subprocess:
        """Return a subprocess, to be entered with ``with``, which starts it and yields its ``subprocess.Popen``.

        It has a session of its own, and this run in its environment (HALTLINE_RUN). A kill that ends calls in flight
        sends SIGTERM to its group, and SIGKILL within the switch's grace; that surfaces as ``Killed``. Leaving the
        block ends in the same way whatever of it is left.

        Args:
            args: the program and its arguments, as for ``subprocess.Popen``.
            capability: the capability that it uses: its freezing ends the subprocess, too.
            popen: more arguments of ``subprocess.Popen``, but ``start_new_session`` and ``process_group``.
        """
        from haltline.processes import Subprocess  # subprocess costs 5 ms that importing the client need not

        return Subprocess(self, args, capability, popen)

    def asubprocess(self, args: Args, *, capability: str | None = None, **popen: Any) -> AsyncSubprocess:
        """As :meth:`subprocess`, for asyncio: ``async with run.asubprocess(...) as process``.

        ``await run.asubprocess(...)`` runs it to its end and returns a ``subprocess.CompletedProcess``. The task that
        is in the block, or awaits it, is cancelled by the kill and ends with ``Killed``.

        Args:
            args: the program and its arguments; one text with ``shell=True``.
            capability: as for :meth:`subprocess`.
            popen: more arguments of ``asyncio.create_subprocess_exec``.
        """
        from haltline.aprocesses import AsyncSubprocess

        return AsyncSubprocess(self, args, capability, popen)

    @property
    def grace(self) -> float:
        """How long this run has from a kill on to leave its block, cleanups included, seconds."""
        return self._refresher.watchdog.grace.seconds

    def has_ended(self, how: Literal["cleanup", "killed"], cleanups: tuple[Cleanup, ...]) -> None:
        """Have the service told how this run has ended, if a kill stopped it: for what supervises it from outside.

        Args:
            how: ``cleanup``, it ended within the grace; ``killed``, it had to be killed.
            cleanups: what became of its cleanups.
        """
        self._refresher.watchdog.tell(self, how, cleanups)

    @property
    def calls(self) -> Calls:
        """The calls in flight in this process, for what watches one."""
        return self._refresher.calls

    def ends_call(self, replica: Replica, capability: str | None) -> Stop | None:
        """Return what ends a call of this run under ``replica``: a kill that does not let it finish; else None.

        Args:
            replica: the fold to judge by.
            capability: the capability that the call uses; None if it uses none.
        """
        if self._armed_seq is None:
            return None
        verdict = self._judge(replica, capability)
        if not isinstance(verdict, Stop) or not verdict.aborts:
            return None
        if verdict.reason is Reason.KILLED and self._halted is None:
            self._halted = verdict
        return verdict

    def stopped_under(self, replica: Replica) -> Stop | None:
        """Return what stops this run under ``replica``, the lease aside; None if nothing does. It latches nothing."""
        verdict = self._judge(replica)
        return verdict if isinstance(verdict, Stop) else None

    def halted_under(self, replica: Replica) -> Stop | None:
        """Return what stops this run under ``replica``, latching a kill; the lease is judged elsewhere."""
        if self._halted is not None:
            return self._halted
        verdict = self._judge(replica)
        if isinstance(verdict, Go):
            return None
        if verdict.reason is Reason.KILLED:
            self._halted = verdict
        return verdict

    def stopped_by(self, stop: Stop, capability: str | None = None) -> Halt | CapabilityFrozen:
        """Return the error that tells of a stop."""
        return self._error(stop, capability)

    # -- the end --------------------------------------------------------------------------------------------------

    @overload
    def on_cleanup(self, function: F, /, *, timeout: float | None = None, name: str | None = None) -> F: ...
    @overload
    def on_cleanup(
        self, function: None = None, /, *, timeout: float | None = None, name: str | None = None
    ) -> Callable[[F], F]: ...
    def on_cleanup(
        self, function: F | None = None, /, *, timeout: float | None = None, name: str | None = None
    ) -> F | Callable[[F], F]:
        """Have a function called once, when this run's block is left, however it ends and before an error surfaces.

        The newest is called first. One that raises is logged and one that hangs is left behind; either way the next one
        runs, all within the switch's grace. A function runs in a thread of its own, an asynchronous one in asyncio in
        a task of its own. Also a decorator: ``@run.on_cleanup``, ``@run.on_cleanup(timeout=5)``.

        Args:
            function: takes no arguments; what it returns is ignored.
            timeout: for how long it is waited, seconds; by default half of what is left of the grace, all for the last.
            name: its name in outcomes and in the log; by default the function's.

        Raises:
            RuntimeError: the run's block was not entered, or has been left.
            ValueError: ``timeout`` is not a positive number, or ``name`` empty or longer than 128 characters.
        """
        if function is None:
            return lambda given: self.on_cleanup(given, timeout=timeout, name=name)
        self._refresher.watchdog.add(self, function, timeout, name)
        return function

    @property
    def cleanups(self) -> tuple[Cleanup, ...]:
        """What became of the cleanups when the run's block was left last, the newest first."""
        return self.block.ended

    def carry_out(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R | RunStopped:
        """Enter this run, call ``function`` with the arguments, and return its result.

        A Halt of this run comes back as a :class:`haltline.RunStopped`, which is false; that of another run, errors and
        cancellations are raised.

        Raises:
            TypeError: ``function`` is asynchronous: see :meth:`acarry_out`.
        """
        return stopped.carry_out(self, function, *args, **kwargs)

    async def acarry_out(
        self, function: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R | RunStopped:
        """As :meth:`carry_out`, for asyncio: the call is awaited."""
        return await stopped.acarry_out(self, function, *args, **kwargs)

    # -- the tree -------------------------------------------------------------------------------------------------

    @property
    def carried(self) -> Carried:
        """The run as it is carried to another process, to be joined there: see :meth:`haltline.KillSwitch.join`.

        Raises:
            Unverified: the run was never armed.
        """
        if self._armed_seq is None:
            raise self._error(self._unarmed(), None)
        return Carried(self.lineage, self._refresher.lease.replica.epoch, self._armed_seq)

    def child(
        self, name: str, *, tenant: str | None = None, feature: str | None = None, timeout: float | None = None
    ) -> Run:
        """Return a run below this one: whatever kills this run, or a run above it, kills that one.

        Its id is this run's id, a dot and ``name``. It has this run's tenant and feature, and is entered and checked
        like any other. It is refused where this run may not go on.

        Args:
            name: what tells it from its siblings; an id.
            tenant: the tenant that the caller takes it to work for: another than this run's is refused.
            feature: likewise the feature.
            timeout: how long entering it waits, seconds; by default as long as for this run.

        Raises:
            InvalidTarget: the id would be outside the grammar or too long, the path deeper than 32 runs, or tenant or
                feature are not this run's.
            Unverified: this run was never armed.
        """
        if self._armed_seq is None:
            raise self._error(self._unarmed(), None)
        return Run(
            self.lineage.child(name, tenant=tenant, feature=feature),
            refresher=self._refresher,
            clocks=self._clocks,
            timeout=self._timeout if timeout is None else timeout,
            origin=self._judge,
        )

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
        self._refresher.watchdog.enter(self)
        context.enter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Run the cleanups, if nobody else is in the block, and make current again what was current before."""
        try:
            self._refresher.watchdog.leave(self)
        finally:
            context.leave(self)
            self._place = None  # its id may stand elsewhere from here on

    async def __aenter__(self) -> Self:
        """As ``with``, for asyncio."""
        await self.aarm()
        self._refresher.watchdog.enter(self)
        context.enter(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As ``with``, for asyncio."""
        try:
            await self._refresher.watchdog.aleave(self)
        finally:
            context.leave(self)
            self._place = None  # its id may stand elsewhere from here on

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
        if isinstance(verdict, Go) and self._origin is not None:
            # What has hit its parent since that was armed has hit the child, revived or not.
            verdict = self._origin(lease.replica)
        if isinstance(verdict, Go) and self._gettime(LEASE_CLOCK) >= lease.until:
            verdict = lease.stop
        if isinstance(verdict, Stop):
            if verdict.reason is Reason.KILLED:
                self._halted = verdict
            raise self._error(verdict, None)
        self._place = self._refresher.places.take(self.lineage)
        self._armed_seq = seq

    def _decide(self, lease: Lease, capability: str | None) -> Verdict:
        """Return the verdict under ``lease``, latching a kill."""
        if capability is not None:
            check_capability(capability)
        if self._halted is not None:
            return self._halted
        verdict = self._judge(lease.replica, capability)
        if isinstance(verdict, Stop) and verdict.reason is Reason.KILLED:
            self._halted = verdict
            return verdict
        if self._gettime(LEASE_CLOCK) >= lease.until:
            return lease.stop
        return verdict

    @staticmethod
    def _unarmed() -> Stop:
        return Stop(Reason.NOT_READY, detail="the run was not armed: enter it with `with`, or call arm()")

    def _judge(self, replica: Replica, capability: str | None = None) -> Verdict:
        """Return the verdict of this run's rule under ``replica``; the run is armed."""
        seq = self._armed_seq
        return self._unarmed() if seq is None else replica.judge(self._path, seq, capability)

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
            self._refresher.watchdog.refused(self)
            return Killed(f"run {self.id} is stopped: {stop.detail}", verdict=stop, run=self.id)
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
                run=self.id,
            )
        self._refresher.kick()
        return Unverified(
            f"run {self.id} may not go on ({stop.reason.value}): {stop.detail}. It goes on by itself once a lease is "
            f"fresh; run.wait() blocks until then.",
            verdict=stop,
            run=self.id,
        )
