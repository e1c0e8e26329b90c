"""Subprocesses of a run: each in a session of its own, which a kill ends, and of which its block leaves nothing.

Found and ended are the process, its group, and whatever is still below it in the tree of processes. What has made
itself a daemon (a session of its own, and a parent that is gone) is not: for programs that may do so there is
``haltline exec``, which can hold it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from haltline.aborting import Scope
from haltline.descent import HAS_PROC, Process, below, group_left, processes, send, send_group
from haltline.native import make_condition, make_thread

if TYPE_CHECKING:
    from haltline.run import Run

VARIABLE: Final = "HALTLINE_RUN"

SHARE: Final = 0.8
"""How much of the switch's grace a subprocess has: the rest is for whoever started it, to leave the run's block."""

LOOK_S: Final = 0.05
LAST_S: Final = 5.0
_OURS: Final = frozenset({"start_new_session", "process_group"})

Args: TypeAlias = str | bytes | os.PathLike[str] | Sequence[str | bytes | os.PathLike[str]]


class Session:
    """A process that leads a session of its own, and what is below it.

    Args:
        run: the run that it belongs to.
        capability: the capability that it uses: its freezing ends it, too.
    """

    def __init__(self, run: Run, capability: str | None) -> None:
        self._run = run
        self._capability = capability
        self._grace_s = run.grace * SHARE
        self._pid = 0
        self._owner = os.getpid()
        self._reaped: Callable[[], bool] = lambda: False
        self._sessions: set[int] = set()
        self._asked: set[int] = set()
        self._aborted = False
        self._unaborted = [True]
        self._scope = Scope(run.calls, partial(run.ends_call, capability=capability))
        self._scope.on_abort(self._abort)

    @property
    def ours(self) -> bool:
        """Whether this process has started it, and not the one that this was forked from."""
        return os.getpid() == self._owner

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return how it is to be started: in a session of its own, and with its run in its environment.

        Raises:
            TypeError: what is given says that it is to be in another session or group.
            Unverified: the run was never armed.
        """
        taken = sorted(_OURS.intersection(given))
        if taken:
            raise TypeError(f"{' and '.join(taken)}: a subprocess of a run has a session of its own, to be ended whole")
        environment = given.get("env")
        environment = dict(os.environ if environment is None else environment)
        environment[VARIABLE] = self._run.carried.text
        return {**given, "env": environment, "start_new_session": True}

    def open(self) -> None:
        """Ask whether it may be started, and have it watched from here on.

        Raises:
            Killed: the run is stopped; likewise Unverified and CapabilityFrozen.
        """
        self._scope.open()
        try:
            self._run.check(self._capability)
        except BaseException:
            self._scope.close()
            raise

    def close(self) -> None:
        """Have it watched no longer."""
        self._scope.close()

    def started(self, pid: int, reaped: Callable[[], bool]) -> None:
        """Note that it was started; a kill since it was asked for ends it now.

        Args:
            pid: its id.
            reaped: returns whether it has ended and was reaped, so that its id may be another's.
        """
        self._reaped = reaped
        self._pid = pid
        if self._scope.stop is not None:
            self._abort()

    def ask(self) -> None:
        """Ask everything to end; each is asked once, since some take a second signal for impatience.

        It is looked for first: what has a session of its own is not found any more when its parent has ended.
        """
        found = self._found()
        if self._leads() and self._pid not in self._asked:
            self._asked.add(self._pid)
            send_group(self._pid, signal.SIGTERM)
            send_group(self._pid, signal.SIGCONT)  # what is stopped could not end
        for each in found:
            if each.group != self._pid and each.pid not in self._asked:
                self._asked.add(each.pid)
                send(each, signal.SIGTERM)
                send(each, signal.SIGCONT)

    def end(self) -> None:
        """End everything."""
        found = self._found()
        if self._leads():
            send_group(self._pid, signal.SIGKILL)
        for each in found:
            send(each, signal.SIGKILL)

    def left(self) -> bool:
        """Return whether anything is left of it; what waits to be reaped is not."""
        if not self._pid:
            return False
        return bool(self._found()) or (not HAS_PROC and self._leads())

    def until(self) -> float:
        """Return when what is asked to end now is to be ended, on the monotonic clock, seconds."""
        return time.monotonic() + self._grace_s

    def surface(self, error: BaseException | None) -> None:
        """Raise the kill, if there was one and it is what ended the process or the block.

        Raises:
            Killed: the process was ended by a kill; CapabilityFrozen where only its capability was killed.
        """
        stop = self._scope.stop
        if stop is not None and (isinstance(error, Exception) or (error is None and self._aborted)):
            raise self._run.stopped_by(stop, self._capability) from error

    def _abort(self) -> None:
        """End it because of a kill, in a thread of its own: nobody else's callback is to wait for the grace."""
        if not self._pid or not self.ours:
            return  # still to be started: whoever does so comes here then
        try:
            self._unaborted.pop()
        except IndexError:
            return
        try:
            make_thread(self._see_it_end, name="haltline-subprocess").start()
        except RuntimeError:  # no thread to be had: nobody would end it later
            self._aborted = True
            self.end()

    def _see_it_end(self) -> None:
        until = self.until()
        if not self.left():
            return  # it had ended by itself
        self._aborted = True
        self.ask()
        pause = make_condition()  # not time.sleep, which is another one in this thread where gevent has replaced it
        while self.left():
            if time.monotonic() >= until:
                self.end()
                return
            with pause:
                pause.wait(LOOK_S)

    def _leads(self) -> bool:
        """Return whether its id is its group's still, and not another's."""
        return bool(self._pid) and (not self._reaped() or group_left(self._pid))

    def _found(self) -> list[Process]:
        """Return what is in its session, in the sessions that were begun from there, and below those."""
        if not self._pid:
            return []
        seen = processes()
        if self._reaped() and any(each.pid == self._pid for each in seen):
            sessions = self._sessions - {self._pid}  # nothing was left in it, and its id was given away anew
        else:
            sessions = self._sessions | {self._pid}
        members = [each for each in seen if each.session in sessions]
        under = below([each.pid for each in members], seen)
        # A session is let go of once it is empty: its id may be another's later.
        self._sessions = {each.session for each in (*members, *under)}
        return [each for each in {*members, *under} if not each.over]


class Subprocess:
    """A subprocess of a run, made by :meth:`haltline.run.Run.subprocess`; entering starts it."""

    __slots__ = ("_args", "_given", "_process", "_session")

    def __init__(self, run: Run, args: Args, capability: str | None, given: Mapping[str, Any]) -> None:
        self._args = args
        self._session = Session(run, capability)
        self._given = given
        self._process: subprocess.Popen[Any] | None = None

    def __enter__(self) -> subprocess.Popen[Any]:
        """Start it.

        Raises:
            Killed: the run is stopped; likewise Unverified and CapabilityFrozen. Nothing was started.
            OSError: it cannot be started.
        """
        if self._process is not None:
            raise RuntimeError("this block was entered already: make another run.subprocess(...)")
        given = self._session.arguments(self._given)
        self._session.open()
        try:
            self._process = process = subprocess.Popen(self._args, **given)
        except BaseException:
            self._session.close()
            raise
        self._session.started(process.pid, lambda: process.returncode is not None)
        return process

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what is left of it: SIGTERM, the grace, SIGKILL. What a kill ended surfaces as the kill.

        Raises:
            Killed: a kill ended it; CapabilityFrozen where only its capability was killed.
        """
        process, session = self._process, self._session
        if process is None or not session.ours:
            return
        try:
            self._end(process)
        finally:
            session.close()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    with suppress(OSError):  # what was still to be written to it: nobody reads that any more
                        stream.close()
        session.surface(error)

    def _end(self, process: subprocess.Popen[Any]) -> None:
        session = self._session
        over = partial(_over, process, session)
        try:
            if not over():
                session.ask()
                _wait(over, session.until())
        finally:
            # Also where Ctrl-C or a signal handler's exception has cut the waiting short.
            if not over():
                session.end()
                _wait(over, time.monotonic() + LAST_S)


def _over(process: subprocess.Popen[Any], session: Session) -> bool:
    return process.poll() is not None and not session.left()


def _wait(over: Callable[[], bool], until: float) -> None:
    while not over() and time.monotonic() < until:
        time.sleep(LOOK_S)
