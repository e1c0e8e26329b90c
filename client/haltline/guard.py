"""The guard: a small process that holds a supervised program and everything below it, and outlives its supervisor.

It has the line to its supervisor open; when that dies, however it dies, the line ends, and the guard ends what it
holds: SIGTERM, the grace, SIGKILL, the cleanup command. What the program started falls to the guard if its parent
dies, so that nothing is lost of sight. Were the guard itself to be killed, the program is killed by the kernel
(``PR_SET_PDEATHSIG``), and what it started falls to the supervisor, which kills it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from haltline.clocks import LEASE_CLOCK
from haltline.descent import (
    adopt_orphans,
    descendants,
    end_all,
    end_with_parent,
    group_left,
    reap_all,
    rename,
    send,
    send_group,
    strike_below,
)
from haltline.wires import Bell, Wire

NOT_FOUND: Final = 127
NOT_RUN: Final = 126
"""The exit codes of a command that cannot be started, as shells have them."""

PATIENCE_S: Final = 10.0
"""For how long SIGKILL is repeated until it is said that something could not be ended, seconds."""

_LOOK_S: Final = 0.1

LEAVES: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""The signals that ask a supervisor to end."""

PASSED_ON: Final = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)
"""The signals that only concern the command."""


class Why(StrEnum):
    """Why a command is over; the cleanup command reads it in HALTLINE_ENDED."""

    EXITED = "exited"
    """It ended by itself."""
    SIGNALLED = "signalled"
    """Its supervisor was asked to end."""
    KILLED = "killed"
    """An operator killed its run."""
    LAPSED = "lapsed"
    """It was to be stopped when the lease lapses, and the lease has lapsed."""
    ORPHANED = "orphaned"
    """Its supervisor, or the guard, was killed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be supervised, and how it is ended.

    Attributes:
        args: the command and its arguments.
        grace_s: how long it has between SIGTERM and SIGKILL, seconds.
        cleanup: a shell command that is run once when everything has ended; None for none.
        cleanup_s: how long that may take, seconds.
        terminal: whether the command is given the terminal that is standard input.
    """

    args: tuple[str, ...]
    grace_s: float
    cleanup: str | None
    cleanup_s: float
    terminal: bool


def shell_code(code: int) -> int:
    """Return an exit code as a shell shows it: 128 + n for a death by signal n."""
    return 128 - code if code < 0 else code


def clean_up(plan: Plan, environment: Mapping[str, str], *, why: Why, code: int, flip: int | None) -> dict[str, Any]:
    """Run the cleanup command once, for as long as it may take, and return how it went."""
    began = time.monotonic()
    outcome, detail = "done", ""
    told = {"HALTLINE_ENDED": why.value, "HALTLINE_EXIT": str(code)}
    if flip is not None:
        told["HALTLINE_FLIP"] = str(flip)
    try:
        # Its output goes to standard error: standard output is the command's.
        cleaning = subprocess.Popen(
            ["/bin/sh", "-c", plan.cleanup or ":"],
            env={**environment, **told},
            process_group=0,
            stdin=subprocess.DEVNULL,
            stdout=2,
        )
        try:
            status = cleaning.wait(plan.cleanup_s)
        except subprocess.TimeoutExpired:
            outcome, detail = "timed_out", f"it had {plan.cleanup_s:g} s"
            send_group(cleaning.pid, signal.SIGKILL)
            cleaning.wait()
        else:
            if status:
                outcome, detail = "failed", f"exit status {shell_code(status)}"
    except OSError as error:
        outcome, detail = "failed", error.strerror or str(error)
    return {"name": "cleanup", "outcome": outcome, "seconds": time.monotonic() - began, "detail": detail}


class Guard:
    """What the guard does; it runs in a process of its own that has this one thread.

    Args:
        plan: what is to be supervised.
        wire: the line to the supervisor.
    """

    def __init__(self, plan: Plan, wire: Wire) -> None:
        self._plan = plan
        self._wire = wire
        self._bell = Bell()
        self._pid = 0
        self._code: int | None = None
        self._why: Why | None = None
        self._flip: int | None = None
        self._kill_at: float | None = None
        self._lease_until: float | None = None
        self._escalated: set[int] = set()

    def serve(self) -> None:
        """Wait for the order to start, hold the command until everything below it has ended, and tell of it."""
        rename("haltline-guard")
        self._adopts = adopt_orphans()
        self._bell.hear(signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU, *LEAVES, *PASSED_ON)
        environment = self._ordered()
        if environment is None or not self._start(environment):
            return
        whole = self._hold()
        code = shell_code(self._code if self._code is not None else -signal.SIGKILL)
        why = self._why or Why.EXITED
        self._wire.send(told="over")
        cleaned = None
        if self._plan.cleanup is not None:
            cleaned = clean_up(self._plan, environment, why=why, code=code, flip=self._flip)
            end_all(lambda: strike_below(os.getpid()), reap_all, patience_s=PATIENCE_S)
        self._wire.send(
            told="ended", code=code, why=why.value, escalated=len(self._escalated), whole=whole, cleanup=cleaned
        )

    def _ordered(self) -> Mapping[str, str] | None:
        """Return the environment to start the command in; None if it is not to be started."""
        while self._wire.alive():
            self._bell.wait(self._wire, None)
            for order in self._wire.receive():
                if order["do"] == "start":
                    environment: Mapping[str, str] = order["environment"]
                    self._lease_until = order["until"]
                    return environment
        return None

    def _start(self, environment: Mapping[str, str]) -> bool:
        me = os.getpid()

        def prepare() -> None:
            end_with_parent(me)
            if self._plan.terminal:
                # Before its first line: a program that is not in the terminal's foreground must not read.
                take_terminal(os.getpid())

        try:
            command = subprocess.Popen(self._plan.args, env=environment, process_group=0, preexec_fn=prepare)  # noqa: PLW1509 - this process has one thread
        except OSError as error:
            code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_RUN
            self._wire.send(told="refused", code=code, error=error.strerror or str(error))
            return False
        except (ValueError, subprocess.SubprocessError) as error:
            self._wire.send(told="refused", code=NOT_RUN, error=str(error))
            return False
        self._pid = command.pid
        command.returncode = 0  # it is reaped here, with everything else
        self._wire.send(told="started", pid=command.pid)
        return True

    def _hold(self) -> bool:
        """Return once nothing is left of the command; False if something could not be ended."""
        while not (self._gone() and self._code is not None):
            now = time.monotonic()
            if self._code is not None:
                self._end(None, signal.SIGTERM)
            elif self._lease_until is not None and time.clock_gettime(LEASE_CLOCK) >= self._lease_until:
                self._lease_until = None
                self._end(Why.LAPSED, signal.SIGTERM)
            if self._kill_at is not None and now >= self._kill_at:
                ended, whole = end_all(self._strike, self._gone, patience_s=PATIENCE_S)
                self._escalated |= ended
                if not whole:
                    return False
                continue
            self._bell.wait(self._wire, self._pause(now))
            if self._wire.alive():
                for order in self._wire.receive():
                    self._obey(order)
                if not self._wire.alive():
                    self._lease_until = None
                    self._end(Why.ORPHANED, signal.SIGTERM)
        return True

    def _pause(self, now: float) -> float | None:
        pauses = []
        if self._kill_at is not None:
            pauses += [self._kill_at - now, _LOOK_S]
        if self._lease_until is not None:
            pauses.append(self._lease_until - time.clock_gettime(LEASE_CLOCK))
        return max(0.0, min(pauses)) if pauses else None

    def _obey(self, order: dict[str, Any]) -> None:
        what = order["do"]
        if what == "lease" and self._kill_at is None:
            self._lease_until = order["until"]
        elif what == "signal":
            self._send_group(order["number"])
        elif what == "stop":
            why = Why(order["why"])
            if self._code is None and why is Why.KILLED:
                self._flip = order["flip"]
            self._end(why, order["number"])

    def _end(self, why: Why | None, number: int) -> None:
        """Have the command end: what asks is sent again each time, the grace is counted from the first time on."""
        first = self._kill_at is None
        if first:
            self._kill_at = time.monotonic() + self._plan.grace_s
        if self._code is None and (self._why is None or why is Why.KILLED):
            self._why = why
        if first or why is Why.SIGNALLED:
            below = descendants(os.getpid())
            self._send_group(number)
            for each in below:
                if each.group != self._pid:
                    send(each, number)
                    send(each, signal.SIGCONT)
            self._send_group(signal.SIGCONT)  # what is stopped could not end

    def _strike(self) -> set[int]:
        """End what there is, in one pass."""
        below = descendants(os.getpid())
        # The group at once, in the kernel: it leaves no moment in which one of its members starts another.
        self._send_group(signal.SIGKILL)
        for each in below:
            send(each, signal.SIGKILL)
        return {each.pid for each in below} or ({self._pid} if self._code is None else set())

    def _send_group(self, number: int) -> None:
        if self._code is None or group_left(self._pid):
            send_group(self._pid, number)

    def _gone(self) -> bool:
        """Reap what has ended, and return whether nothing is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return self._adopts or not group_left(self._pid)
            if pid == 0:
                return False
            if pid == self._pid:
                if os.WIFSTOPPED(status):
                    self._wire.send(told="stopped", number=os.WSTOPSIG(status))
                else:
                    self._code = os.waitstatus_to_exitcode(status)


def take_terminal(group: int) -> None:
    """Make a process group the one that the terminal on standard input belongs to."""
    # Whoever is not in the foreground is stopped by SIGTTOU for this, unless it is blocked.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        with suppress(OSError):
            os.tcsetpgrp(0, group)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
