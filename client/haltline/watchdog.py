"""The blocks of this process's runs: what is done when one is left, and when a killed run's block is not.

A run that a kill ends at once has the switch's grace to leave its block, cleanups included. So has one that was
refused again and again, which means that somebody swallows its Halt. What comes after the grace is a setting.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from haltline.aborting import Calls, Scope
from haltline.cleanup import Cleaned, Cleanup, Function, Pending, aclean, clean, pending
from haltline.errors import ConfigurationError
from haltline.native import Thread, make_condition, make_thread
from haltline.scopes import Scope as Kind
from haltline.verdict import Reason, Stop

if TYPE_CHECKING:
    from haltline.outcomes import Outcomes
    from haltline.replica import Replica
    from haltline.run import Run

AfterGrace: TypeAlias = Literal["nothing", "kill"]

GRACE_S: Final = 30.0
"""How long a killed run has to leave its block, cleanups included, unless the switch says otherwise, seconds."""

LAST_S: Final = 5.0
"""What cleanups have at least, where the block was left late or not at all, seconds; never more than the grace."""

SWALLOWED: Final = 3
"""How many refusals after its first show that a run's Halt is swallowed."""

_SAY_S: Final = 0.5
_STRIKES: Final = 3


@dataclass(frozen=True, slots=True)
class Grace:
    """How long a killed run has, and what comes then.

    Attributes:
        seconds: from the kill on, or from when the block is left if nothing ends the run's calls.
        after: ``nothing``, it is logged; ``kill``, the cleanups run, the outcomes are told, and the process group is
            killed by SIGKILL.

    Raises:
        ConfigurationError: ``seconds`` is not between 0 and 3600, or ``after`` is something else.
    """

    seconds: float = GRACE_S
    after: AfterGrace = "nothing"

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= 3600:
            raise ConfigurationError(f"grace={self.seconds!r:.20}: write seconds, more than 0 and at most 3600")
        if self.after not in ("nothing", "kill"):
            raise ConfigurationError(f'after_grace={self.after!r:.20}: write "nothing" or "kill"')

    @property
    def last(self) -> float:
        """What cleanups have at least, seconds."""
        return min(self.seconds, LAST_S)


DEFAULT: Final = Grace()


class Block:
    """The block of one run, in which any number of threads and tasks may be.

    Attributes:
        ended: what became of the cleanups when it was left last.
    """

    __slots__ = ("ended", "inside", "life", "pending", "refusals", "scope", "since")

    def __init__(self) -> None:
        self.life: object = None
        self.inside = 0
        self.scope: Scope | None = None
        self.since: float | None = None
        self.refusals = 0
        self.pending: list[Pending] = []
        self.ended: tuple[Cleanup, ...] = ()

    def begin(self, life: object) -> None:
        """Become the block of a run that is entered."""
        self.life, self.inside, self.since, self.refusals, self.pending = life, 0, None, 0, []


class Watchdog:
    """Watches the blocks of one switch's runs.

    Args:
        grace: how long killed runs have, and what comes then.
        calls: the calls in flight of this process.
        replica: returns what is known of kills.
        outcomes: tells how runs ended; None where nobody is told.
    """

    def __init__(self, grace: Grace, calls: Calls, replica: Callable[[], Replica], outcomes: Outcomes | None) -> None:
        self.grace = grace
        self._replica = replica
        self._calls = calls
        self._outcomes = outcomes
        self._scopes: set[Scope] = set()
        if grace.after == "kill":
            import haltline.descent  # noqa: F401  # now: nothing may wait on an import when a process is to be ended
        self.begin_anew()

    def begin_anew(self) -> None:
        """Set up what belongs to one process: the parent's blocks are left, and cleaned up behind, in the parent."""
        for scope in self._scopes:
            scope.close()
        self._life = object()
        self._changed = make_condition()
        self._scopes = set()
        self._due: dict[Run, float] = {}
        self._thread: Thread | None = None
        if self._outcomes is not None:
            self._outcomes.begin_anew()

    def close(self) -> None:
        """Have what is to be told told; what was killed is watched on."""
        if self._outcomes is not None:
            self._outcomes.close()

    # -- a run's block --------------------------------------------------------------------------------------------

    def enter(self, run: Run) -> None:
        """Note that a thread or task has entered the run's block."""
        block = run.block
        with self._changed:
            if block.life is not self._life or not block.inside:
                block.begin(self._life)
            block.inside += 1
            if block.inside > 1:
                return
            scope = Scope(self._calls, lambda replica: _ended(run, replica), lambda: self._begin_grace(run, block))
            block.scope = scope
            self._scopes.add(scope)
        # Watched first, asked then: a kill between arming the run and here is not missed.
        scope.open()
        scope.judge(self._replica())

    def add(self, run: Run, function: Function, timeout: float | None, name: str | None) -> None:
        """Have a cleanup run when the block is left; see :meth:`haltline.run.Run.on_cleanup`."""
        cleanup = pending(function, timeout, name)
        block = run.block
        with self._changed:
            if block.life is not self._life or not block.inside:
                raise RuntimeError(
                    "on_cleanup() belongs inside the run's block: with switch.run(...) as run: run.on_cleanup(...)"
                )
            block.pending.append(cleanup)

    def leave(self, run: Run) -> None:
        """Note that one has left the block, and clean up if it was the last."""
        left = self._left(run)
        if left is not None:
            waiting, until = left
            self._cleaned(run, clean(waiting, until))

    async def aleave(self, run: Run) -> None:
        """As :meth:`leave`, for asyncio."""
        left = self._left(run)
        if left is not None:
            waiting, until = left
            self._cleaned(run, await aclean(waiting, until))

    def refused(self, run: Run) -> None:
        """Note that a killed run was refused; one that is refused on and on has its grace begin."""
        block = run.block
        block.refusals += 1  # two threads may count as one: then the next refusal counts
        if block.refusals > SWALLOWED and block.since is None:
            self._begin_grace(run, block)

    # -- the grace ------------------------------------------------------------------------------------------------

    def _begin_grace(self, run: Run, block: Block) -> None:
        """Have the block watched until it is left; neither waits nor raises."""
        with self._changed:
            if block.since is not None or not block.inside or block.life is not self._life:
                return
            block.since = time.monotonic()
            self._due[run] = block.since + self.grace.seconds
            self._changed.notify_all()
            if self._thread is None or not self._thread.is_alive():
                self._thread = make_thread(self._watch, name="haltline-watchdog")
                # No thread to be had: the next kill tries again.
                with suppress(RuntimeError):
                    self._thread.start()

    def _left(self, run: Run) -> tuple[list[Pending], float] | None:
        """Return what to clean up, and until when; None if others are still in the block, or it is the parent's."""
        block = run.block
        with self._changed:
            if block.life is not self._life or not block.inside:
                return None
            block.inside -= 1
            if block.inside:
                return None
            if block.scope is not None:
                block.scope.close()
                self._scopes.discard(block.scope)
            self._due.pop(run, None)
            self._changed.notify_all()
            waiting, block.pending = block.pending, []
        now = time.monotonic()
        return waiting, max((now if block.since is None else block.since) + self.grace.seconds, now + self.grace.last)

    def _cleaned(self, run: Run, cleaned: Cleaned) -> None:
        """Have it told how the run ended, if a kill did it; raise what interrupted the cleanups."""
        ended, interruption = cleaned
        run.block.ended = ended
        self.tell(run, "cleanup", ended)
        if interruption is not None:
            raise interruption

    def tell(self, run: Run, how: Literal["cleanup", "killed"], ended: tuple[Cleanup, ...]) -> None:
        """Have it told how a run has ended, if a kill stopped it."""
        # Not `run.halted or ...`: a Stop is false.
        stop = run.halted if run.halted is not None else run.stopped_under(self._replica())
        if self._outcomes is None or stop is None or stop.reason is not Reason.KILLED:
            return
        flip = flip_of(stop, self._replica(), run.armed_seq or 0)
        if flip is not None:
            from haltline.outcomes import Ending  # it was imported with what tells: nobody else pays for it

            self._outcomes.tell(Ending(run.id, flip, time.time(), how, ended))

    def _watch(self) -> None:
        while True:
            with self._changed:
                if not self._due:
                    self._thread = None
                    return
                run, due = min(self._due.items(), key=lambda item: item[1])
                left = due - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
                del self._due[run]
                others = list(self._due)
            self._over(run, others)

    def _over(self, run: Run, others: list[Run]) -> None:
        """Do what is to be done with a run that has not left its block within the grace."""
        kill = self.grace.after == "kill"
        text = (
            f"run {run.id} has not left its block {self.grace.seconds:g} s after it was stopped "
            f"(refused {run.block.refusals} times){': the process group is killed' if kill else ''}"
        )
        # In a thread of its own: a handler may hang on what the run holds.
        saying = make_thread(lambda: _say(text), name="haltline-log")
        with suppress(RuntimeError):  # no thread to be had: then it is not said
            saying.start()
            saying.join(_SAY_S)
        if kill:
            self._end(run, others)

    def _end(self, run: Run, others: list[Run]) -> None:
        """Clean up behind the runs that were killed, tell of them, and end the process group: stop category 0."""
        until = time.monotonic() + self.grace.last
        for each in (run, *others):
            with self._changed:
                waiting, each.block.pending = each.block.pending, []
            ended, _ = clean(waiting, until)
            self.tell(each, "killed", ended)
        if self._outcomes is not None:
            self._outcomes.flush()
        end_group()


def _ended(run: Run, replica: Replica) -> Stop | None:
    """Return the kill that lets no call of a run finish. It is not latched here: the run has not met it yet."""
    stop = run.stopped_under(replica)
    return stop if stop is not None and stop.reason is Reason.KILLED and stop.aborts else None


def flip_of(stop: Stop, replica: Replica, armed_seq: int) -> int | None:
    """Return the position of the first kill that stops a run and is still remembered.

    Args:
        stop: the verdict.
        replica: what is known of kills.
        armed_seq: the position at which the run was armed.
    """
    seqs = [hold.seq for hold in stop.holds if hold.target.scope is not Kind.CAPABILITY]
    for target in stop.killed:
        mark = replica.marks.get(str(target))
        if mark is not None and target.scope is not Kind.CAPABILITY:
            seqs.append(mark.last_kill)
    since = [seq for seq in seqs if seq > armed_seq]
    return min(since or seqs, default=None)


def _say(text: str) -> None:
    import logging  # 5 ms that importing the client need not cost

    with suppress(Exception):  # a handler is other people's code
        logging.getLogger("haltline").error(text)


def end_group() -> None:
    """End this process, what is below it, and its process group by SIGKILL, which nothing can catch."""
    from haltline.descent import strike_below

    for _ in range(_STRIKES):  # what is started during one pass may not be seen by it
        if not strike_below(os.getpid()):
            break
    with suppress(OSError):
        os.killpg(os.getpgrp(), signal.SIGKILL)
    # Still here: the kernel keeps the first process of a container (pid 1) from killing itself.
    os._exit(128 + signal.SIGKILL)
