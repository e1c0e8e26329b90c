"""The supervisor: runs any program under a run, and ends it and everything that it started when the run is killed.

Two processes do it. This one holds the lease, hears signals and decides; its guard (:mod:`haltline.guard`), a child
that is forked before there is any thread, starts the program, holds what is below it, and ends it. Each notices the
death of the other: whichever is killed, the other one leaves nothing behind.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import termios
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from haltline.descent import adopt_orphans, descendants, end_all, group_left, reap_all, send_group, strike_below
from haltline.errors import Halt, Unverified
from haltline.guard import LEAVES, PASSED_ON, PATIENCE_S, Guard, Plan, Why, clean_up, take_terminal
from haltline.kills import Kills, Watch
from haltline.verdict import Reason, Stop
from haltline.wires import Bell, Wire

if TYPE_CHECKING:
    from haltline.run import Run
    from haltline.switch import KillSwitch

_LOOK_S: Final = 0.5
_LOOK_STRICT_S: Final = 0.05
_STOPPED_S: Final = 0.05
_RESUME_S: Final = 0.5

BROKEN: Final = 70
"""The exit code where the guard was killed, and with it everything: EX_SOFTWARE."""

Handler = Callable[[int, FrameType | None], Any] | int | None


@dataclass(frozen=True, slots=True)
class Over:
    """How a command ended.

    Attributes:
        why: why it is over.
        code: its exit code as a shell shows it; 128 + n where it died of signal n.
        stop: the kill, if there was one.
        flip: the kill's position in the log, if it is known.
        escalated: how many processes had to be ended without asking, after the grace.
        whole: whether nothing is left of it; False if something could not be ended.
        cleanup: what became of the cleanup command (name, outcome, seconds, detail); None if there was none.
        error: why it could not be started, if it was not.
    """

    why: Why
    code: int
    stop: Stop | None = None
    flip: int | None = None
    escalated: int = 0
    whole: bool = True
    cleanup: Mapping[str, Any] | None = None
    error: str = ""


class Supervisor:
    """One command, and the guard that holds it. A context manager; use it in the main thread, before any other.

    Args:
        plan: what is to be run, and how it is ended.
        say: told, in one line for a person, what happens on the way.
    """

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._say = say
        self._before: dict[int, Handler] = {}
        self._screen: list[Any] | None = None
        self._pid = 0
        self._started = False
        self._over = False
        self._lapsed = False
        self._asked = False

    def __enter__(self) -> Self:
        """Make the guard. It has this process's environment and files, and does nothing until it is told to."""
        numbers = (signal.SIGCHLD, *LEAVES, *PASSED_ON)
        self._before = {number: signal.getsignal(number) for number in numbers}
        self._bell = Bell()
        self._bell.hear(*numbers)
        if self._plan.terminal:
            with suppress(termios.error):
                self._screen = termios.tcgetattr(0)
        # A shell that has become this process by `exec` may have left children of its own: none of our business.
        self._strangers = frozenset(descendants(os.getpid()))
        adopt_orphans()
        sys.stdout.flush()
        sys.stderr.flush()
        ours, theirs = socket.socketpair()
        self._guard = os.fork()
        if self._guard == 0:
            code = BROKEN
            try:
                ours.close()
                self._bell.close()
                os.setpgid(0, 0)  # what is sent to our group, SIGKILL above all, must not end both of us
                Guard(self._plan, Wire(theirs)).serve()
                code = 0
            except BaseException:  # noqa: BLE001 - the supervisor ends what is left when the guard is gone
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(code)
        theirs.close()
        self._wire = Wire(ours)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what is left, with the grace, and wait for that."""
        self._wire.close()
        while self._guard:
            self._reap(0)
        self._sweep()
        self._regain()
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._bell.close()

    def arm(self, run: Run, timeout: float) -> int:
        """Arm a run; return the signal that has asked this process to end meanwhile, or 0.

        Args:
            run: the run.
            timeout: how long to wait for a live lease, seconds.

        Raises:
            Killed: a target on its path is killed.
            Unverified: no live lease in time.
        """
        until = time.monotonic() + timeout
        while True:
            left = until - time.monotonic()
            try:
                run.arm(max(0.0, min(left, _LOOK_S)))
            except Unverified:
                if left <= _LOOK_S:
                    raise
            else:
                return self._left()
            number = self._left()
            if number:
                return number

    def _left(self) -> int:
        return next((number for number in self._bell.wait(self._wire, 0) if number in LEAVES), 0)

    def carry_out(self, switch: KillSwitch, run: Run, environment: Mapping[str, str], watch: Watch) -> Over:
        """Run the command until it and everything below it has ended, and return how.

        Args:
            switch: holds the lease.
            run: the run; armed.
            environment: the command's environment.
            watch: what else it is ended for.
        """
        kills = Kills(run, watch, self._bell.ring)
        kills.open()
        try:
            # Asked once more now that it is watched: a kill between arming and here is not missed.
            verdict = run.verdict()
            if isinstance(verdict, Stop) and verdict.reason is Reason.KILLED:
                return before_start(verdict)
            until = switch.live_until if watch.strict else None
            self._wire.send(do="start", environment=dict(environment), until=until)
            return self._watch(switch, kills, environment)
        finally:
            kills.close()

    def _watch(self, switch: KillSwitch, kills: Kills, environment: Mapping[str, str]) -> Over:
        strict = kills.watch.strict
        while True:
            for what, stop in kills.news():
                self._say(f"{what}: {stop.detail}")
            if kills.due():
                self._stop(Why.KILLED, signal.SIGTERM, kills.flip)
            if strict and not self._over:
                self._wire.send(do="lease", until=switch.live_until)
            self._notice(switch, strict=strict)
            pause = min(_LOOK_STRICT_S if strict else _LOOK_S, kills.pause())
            for number in self._bell.wait(self._wire, pause):
                self._heard(number, kills.run)
            self._reap(os.WNOHANG)
            for told in self._wire.receive() if self._wire.alive() else ():
                over = self._told(told, kills)
                if over is not None:
                    return over
            if not self._wire.alive():
                return self._unguarded(kills, environment)

    def _told(self, told: dict[str, Any], kills: Kills) -> Over | None:
        what = told["told"]
        if what == "started":
            self._pid, self._started = told["pid"], True
        elif what == "refused":
            return Over(Why.EXITED, told["code"], error=told["error"])
        elif what == "stopped":
            self._suspend(kills.run, told["number"])
        elif what == "over":
            self._over = True
            self._regain()
        elif what == "ended":
            return Over(
                Why(told["why"]),
                told["code"],
                kills.stop,
                kills.flip,
                escalated=told["escalated"],
                whole=told["whole"],
                cleanup=told["cleanup"],
            )
        return None

    def _unguarded(self, kills: Kills, environment: Mapping[str, str]) -> Over:
        """End what is left of a command whose guard was killed; it has fallen to this process."""
        self._say("the guard was killed: everything is killed")
        while self._guard:
            self._reap(0)
        if self._pid and group_left(self._pid):
            send_group(self._pid, signal.SIGKILL)
        ended, whole = self._sweep()
        why = Why.KILLED if kills.ordered else Why.ORPHANED
        cleaned = None
        if self._plan.cleanup is not None and self._started and not self._over:  # else the guard has begun with it
            code = 128 + signal.SIGKILL
            cleaned = clean_up(self._plan, environment, why=why, code=code, flip=kills.flip)
        return Over(why, BROKEN, kills.stop, kills.flip, escalated=len(ended), whole=whole, cleanup=cleaned)

    def _sweep(self) -> tuple[set[int], bool]:
        """End what has fallen to this process; nothing where its guard has done its work."""
        me, others = os.getpid(), self._strangers
        return end_all(
            lambda: strike_below(me, but=others),
            lambda: reap_all() or not descendants(me, but=others),
            patience_s=PATIENCE_S,
        )

    def _heard(self, number: int, run: Run) -> None:
        if number in LEAVES:
            self._stop(Why.SIGNALLED, number, None)
        elif number == signal.SIGCONT:
            self._resume(run)
        elif number in PASSED_ON:
            self._asked = self._asked or number == signal.SIGTSTP
            self._wire.send(do="signal", number=number)

    def _stop(self, why: Why, number: int, flip: int | None) -> None:
        self._wire.send(do="stop", why=why.value, number=number, flip=flip)

    def _notice(self, switch: KillSwitch, *, strict: bool) -> None:
        """Say it once when the lease has lapsed, and once when it is back."""
        trouble = switch.trouble
        if trouble is not None and not self._lapsed:
            then = "the command is stopped" if strict else "the command goes on, and a kill is not heard"
            self._say(f"no lease ({trouble.reason.value}): {then}. {trouble.detail}")
        elif trouble is None and self._lapsed:
            self._say("the lease is back")
        self._lapsed = trouble is not None

    # -- job control ----------------------------------------------------------------------------------------------

    def _suspend(self, run: Run, number: int) -> None:
        """Stop, too, when the terminal or whoever sent us SIGTSTP has stopped the command; return when continued."""
        if not (self._plan.terminal or self._asked):
            if number == signal.SIGTTIN:
                self._say("the command was stopped: it reads a terminal that is its own only if its output is one, too")
            return
        self._asked = False
        self._regain()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.killpg(os.getpgrp(), signal.SIGTSTP)
        # We are stopped within this pause; or we are not, since nobody could continue us, and the command goes on.
        time.sleep(_STOPPED_S)
        signal.signal(signal.SIGTSTP, handler)
        self._resume(run)

    def _resume(self, run: Run) -> None:
        """Have the command go on, after it has been heard whether it may: we may have been stopped for long."""
        # Unverified as much as Killed: what is to be done about either is not decided here.
        with suppress(Halt):
            run.ensure(_RESUME_S)
        if self._plan.terminal and self._pid and not self._over and _foreground():
            take_terminal(self._pid)
        self._wire.send(do="signal", number=int(signal.SIGCONT))

    def _regain(self) -> None:
        """Take the terminal back from the command, as it was before."""
        if not self._plan.terminal or not self._pid:
            return
        with suppress(OSError):
            if os.tcgetpgrp(0) == self._pid:
                take_terminal(os.getpgrp())
                if self._screen is not None:
                    with suppress(termios.error):
                        termios.tcsetattr(0, termios.TCSADRAIN, self._screen)

    def _reap(self, options: int) -> None:
        """Reap what has fallen to this process: as pid 1 of a container that is whatever lost its parent."""
        while True:
            try:
                pid, _ = os.waitpid(-1, options)
            except ChildProcessError:
                self._guard = 0
                return
            if pid == self._guard:
                self._guard = 0
            if pid == 0 or not options:
                return


def owns_terminal() -> bool:
    """Return whether standard input and output are a terminal of which this process is in the foreground."""
    return os.isatty(0) and os.isatty(1) and _foreground()


def before_start(stop: Stop) -> Over:
    """Return the end of a command that was not started, since its run is killed."""
    newest = max((hold.seq for hold in stop.holds), default=None)
    return Over(Why.KILLED, 0, stop, newest, error=f"its run is stopped: {stop.detail}")


def _foreground() -> bool:
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False
