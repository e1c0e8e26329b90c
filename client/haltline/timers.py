"""Sleeping and timers of a run: a kill ends a sleep at once, and a timer that it discards never fires."""

from __future__ import annotations

import contextvars
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final, Self

from haltline.aborting import Calls, Scope
from haltline.draining import discarded, judge_planned
from haltline.errors import CapabilityFrozen, Killed, Unverified
from haltline.native import make_condition
from haltline.plans import Discarded, discarded_of, say
from haltline.replica import Replica
from haltline.stamps import Stamp
from haltline.verdict import Reason, Refusal, Stop

if TYPE_CHECKING:
    from haltline.planned import Redeemed
    from haltline.planning import Planning

_ENDS: Final = frozenset({Reason.KILLED, Reason.FROZEN, Reason.NOT_READY})
"""What ends a sleep: a kill, and that the run was never armed. A lease that lapses does not."""
_NEVER: Final = frozenset({Reason.CLOSED, Reason.UNSEEN})
"""What a timer does not wait out: no lease that this process can get would let it fire."""

_LONGEST_WAIT_S: Final = 3_600.0
_IDLE_S: Final = 5.0
_AGAIN_S: Final = 0.5


# -- sleeping --------------------------------------------------------------------------------------------------------


def sleep(run: Planning, seconds: float) -> None:
    """Sleep, unless a kill stops the run; see :meth:`haltline.run.Run.sleep`."""
    until = time.monotonic() + _checked(seconds)
    changed = make_condition()

    def wake() -> None:
        with changed:
            changed.notify_all()

    with _Watched(run, wake) as watched, changed:
        while not watched.stopped and (left := until - time.monotonic()) > 0:
            changed.wait(min(left, _LONGEST_WAIT_S))
    watched.raise_if_stopped()


async def asleep(run: Planning, seconds: float) -> None:
    """As :func:`sleep`, for asyncio."""
    import asyncio  # 30 ms that importing the client need not cost

    _checked(seconds)
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        with suppress(RuntimeError):  # the loop was closed meanwhile: nobody sleeps there
            loop.call_soon_threadsafe(stopped.set)

    with _Watched(run, wake) as watched:
        if not watched.stopped:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await stopped.wait()
    watched.raise_if_stopped()


def _checked(seconds: float) -> float:
    if not seconds >= 0:  # also not a number
        raise ValueError(f"{seconds} s is no time to wait: 0 or more")
    return seconds


class _Watched:
    """A wait of a run that a kill ends, whatever the kill says of calls in flight: none is in flight."""

    def __init__(self, run: Planning, wake: Callable[[], None]) -> None:
        self._run = run
        self._scope = Scope(run.calls, self._judge, wake)

    def _judge(self, replica: Replica) -> Stop | None:
        stop = self._run.halted_under(replica)
        return stop if stop is not None and stop.reason in _ENDS else None

    @property
    def stopped(self) -> bool:
        return self._scope.stop is not None

    def __enter__(self) -> Self:
        # Watched first, judged then: a kill between the two is not missed.
        self._scope.open()
        self._scope.judge(self._run.replica)
        return self

    def __exit__(self, *_: object) -> None:
        self._scope.close()

    def raise_if_stopped(self) -> None:
        stop = self._scope.stop
        if stop is not None:
            raise self._run.stopped_by(stop)


# -- timers ----------------------------------------------------------------------------------------------------------


class Timer:
    """A call planned for later, made by :meth:`haltline.run.Run.call_later`.

    Attributes:
        stamp: what was planned, and when; it never leaves the process.
        state: ``"waiting"``, ``"fired"``, ``"cancelled"``, ``"discarded"`` by a kill, or ``"dropped"`` because the
            switch was closed or the process forked.
    """

    __slots__ = ("_context", "_due", "_planner", "_record", "_scope", "_turn", "_what", "_work", "stamp", "state")

    def __init__(self, planner: Planning, stamp: Stamp, delay: float, work: Callable[[], object], what: str) -> None:
        self._planner = planner
        self._due = time.monotonic() + _checked(delay)
        self._work: Callable[[], object] | None = work
        self._what = what
        self._context = contextvars.copy_context()
        self._turn = [True]  # whoever pops it decides what becomes of the timer
        self._record: Discarded | None = None
        self.stamp = stamp
        self.state = "waiting"
        path = stamp.lineage.path()

        def void(replica: Replica) -> Stop | None:
            hosts = planner.halted_by_host(replica)
            if hosts is not None:
                return hosts
            if not discarded(replica, path, stamp.seq, stamp.capability):
                return None
            verdict = judge_planned(replica, path, stamp.seq, stamp.capability)
            return verdict if isinstance(verdict, Stop) else None

        self._scope = Scope(planner.calls, void, self._discarded)
        self._scope.on_abort(self._say)
        self._scope.open()
        self._scope.judge(planner.replica)

    def __lt__(self, other: Timer) -> bool:
        return self._due < other._due

    def __repr__(self) -> str:
        return f"<Timer {self._what} of run {self.stamp.lineage.id} {self.state}>"

    @property
    def left(self) -> float:
        """How long until it is due, seconds; below 0 once it is."""
        return self._due - time.monotonic()

    def cancel(self) -> bool:
        """Have it never fire, and return whether it was still waiting."""
        return self._end("cancelled")

    def abandon(self) -> None:
        """Forget it: nothing here will fire it."""
        self._end("dropped")

    def postpone(self, seconds: float) -> None:
        """Have it fall due later."""
        self._due = time.monotonic() + seconds

    def fire(self) -> None:
        """Call what was planned, once a live lease says that it may be; in a thread that may wait."""
        work = self._planner.redeemed(self.stamp)
        while self.state == "waiting":
            try:
                work.wait()
            except Unverified as unverified:
                if unverified.verdict.reason in _NEVER:
                    self.abandon()
                    return
                time.sleep(_AGAIN_S)  # not a verdict on the work: it is as good as it was
            except (Killed, CapabilityFrozen) as stopped:
                self._void(stopped.verdict)
                self._say()
                return
            else:
                break
        function = self._work
        if function is None or not self._end("fired"):
            return
        try:
            self._context.run(_carry_out, work, function)
        except BaseException as error:  # noqa: BLE001 - other people's code, in a thread that nobody waits for: said
            _log(f"{self!r} failed", error)

    def _end(self, state: str) -> bool:
        """Make it what it will be, once, and return whether this call did."""
        try:
            self._turn.pop()
        except IndexError:
            return False
        self.state = state
        self._work = None
        self._scope.close()
        return True

    def _discarded(self) -> None:
        """A kill discards it; called in the thread that renews the lease, which must not wait."""
        stop = self._scope.stop
        if stop is not None:
            self._void(stop)

    def _void(self, stop: Stop) -> None:
        if self._end("discarded"):
            self._record = discarded_of(self.stamp, Refusal.DISCARDED, stop.detail, at=time.time(), what=self._what)
            self._planner.plans.note(self._record)

    def _say(self) -> None:
        record, self._record = self._record, None
        if record is not None:
            say(record)


class Schedule:
    """The timers of one switch in this process, and the thread that waits for the next one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._heap: list[Timer] = []
        self._serving = False

    def add(self, timer: Timer) -> None:
        """Have a timer fire when it is due."""
        with self._changed:
            if not self._serving:
                self._serving = True
                try:
                    threading.Thread(target=self._serve, name="haltline-timers", daemon=True).start()
                except RuntimeError:  # no thread to be had: its planner is told, and nothing will fire it
                    self._serving = False
                    timer.abandon()
                    raise
            heappush(self._heap, timer)
            self._changed.notify_all()

    def abandon(self) -> None:
        """Forget every timer, in a forked child: they are the parent's, and so is the thread."""
        for timer in self._heap:
            timer.abandon()

    def _serve(self) -> None:
        while True:
            with self._changed:
                while self._heap and self._heap[0].state != "waiting":
                    heappop(self._heap)
                if not self._heap and not self._changed.wait(_IDLE_S) and not self._heap:
                    self._serving = False
                    return
                if not self._heap:
                    continue
                left = self._heap[0].left
                if left > 0:
                    self._changed.wait(min(left, _LONGEST_WAIT_S))
                    continue
                timer = heappop(self._heap)
            try:
                threading.Thread(target=timer.fire, name="haltline-timer", daemon=True).start()
            except RuntimeError:  # no thread to be had: again in a moment
                timer.postpone(_AGAIN_S)
                with self._changed:
                    heappush(self._heap, timer)


_schedules: weakref.WeakKeyDictionary[Calls, Schedule] = weakref.WeakKeyDictionary()
_making = threading.Lock()


def call_later(run: Planning, stamp: Stamp, delay: float, function: Callable[[], object], what: str) -> Timer:
    """Plan a call; see :meth:`haltline.run.Run.call_later`."""
    timer = Timer(run, stamp, delay, function, what)
    with _making:
        schedule = _schedules.setdefault(run.calls, Schedule())
    schedule.add(timer)
    return timer


def _carry_out(work: Redeemed, function: Callable[[], object]) -> None:
    with work:
        function()


def _after_fork_in_child() -> None:
    global _making  # noqa: PLW0603 - the old one may be held by a thread that is not here
    _making = threading.Lock()
    for schedule in list(_schedules.values()):
        schedule.abandon()
    _schedules.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _log(message: str, error: BaseException) -> None:
    import logging  # 5 ms that importing the client need not cost

    logging.getLogger("haltline").error(message, exc_info=error)
