"""Processes and what they have started: who is below whom, and how to end all of them.

On Linux a process can be made the one that orphans below it fall to (``PR_SET_CHILD_SUBREAPER``): whatever a program
starts then stays below it, also what has changed its session or lost its parent, and can be found in ``/proc``. macOS
has neither; there only a process group can be ended, and what has left that is not found.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_PR_SET_CHILD_SUBREAPER: Final = 36

_LOOK_S: Final = 0.02

HAS_PROC: Final = sys.platform == "linux"
"""Whether processes can be looked for; else there are only groups."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process as it was seen in ``/proc``.

    Attributes:
        pid: its id.
        parent: the id of its parent.
        group: the id of its process group.
        session: the id of its session, which nobody joins who was not started in it.
        began: when it was started, ticks since boot: with the id, what tells it from every other process.
        over: whether it has ended, and only waits to be reaped.
    """

    pid: int
    parent: int
    group: int
    session: int
    began: int
    over: bool


def process(pid: int) -> Process | None:
    """Return a process; None if there is none of that id, or no ``/proc``."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - a thousand of them, many times a second
            told = file.read()
    except OSError:
        return None
    # The command's name stands in brackets, and may itself hold brackets and spaces.
    rest = told[told.rindex(b")") + 2 :].split()
    return Process(pid, int(rest[1]), int(rest[2]), int(rest[3]), int(rest[19]), rest[0] in (b"Z", b"X"))


def processes() -> list[Process]:
    """Return every process of this machine or container that can be seen; none where there is no ``/proc``."""
    try:
        names = os.listdir("/proc")  # noqa: PTH208 - as above
    except OSError:
        return []
    return [found for name in names if name.isdigit() and (found := process(int(name))) is not None]


def descendants(root: int, *, but: frozenset[Process] = frozenset()) -> list[Process]:
    """Return what is below a process, at any depth, and has not ended.

    Args:
        root: its id.
        but: what is not looked for, nor what is below that.
    """
    others = {(each.pid, each.began) for each in but}
    return below([root], [each for each in processes() if (each.pid, each.began) not in others])


def below(roots: list[int], seen: Iterable[Process]) -> list[Process]:
    """Return those of ``seen`` that are below one of these processes, at any depth, and have not ended."""
    children: dict[int, list[Process]] = {}
    for each in seen:
        children.setdefault(each.parent, []).append(each)
    found: list[Process] = []
    parents = list(roots)
    while parents:
        under = children.pop(parents.pop(), [])
        found += (each for each in under if not each.over)
        parents += (each.pid for each in under)
    return found


def send(to: Process, number: int) -> bool:
    """Send a signal to exactly this process, and return whether it is there: its id may have a new bearer by now."""
    try:
        handle = os.pidfd_open(to.pid)
    except OSError:
        return False
    try:
        now = process(to.pid)
        if now is None or now.began != to.began:
            return False
        signal.pidfd_send_signal(handle, number)
    except OSError:
        return False  # ended meanwhile, or another user's
    finally:
        os.close(handle)
    return True


def send_group(group: int, number: int) -> bool:
    """Send a signal to a process group, and return whether there is one; 0 only asks."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's process is in it; those of ours have been sent the signal
    return True


def group_left(leader: int) -> bool:
    """Return whether the group of a leader that was reaped has members still that have not ended.

    While it has, no process can bear the leader's id: where one does, the id was given away anew and so was the group.
    """
    try:
        os.kill(leader, 0)
    except ProcessLookupError:
        if not send_group(leader, 0):
            return False
    except PermissionError:
        return False
    else:
        return False
    seen = processes()
    # What has ended and is reaped by nobody, as in a container without an init, must not be waited for.
    return not seen or any(each.group == leader and not each.over for each in seen)


def end_all(strike: Callable[[], set[int]], gone: Callable[[], bool], *, patience_s: float) -> tuple[set[int], bool]:
    """End processes without asking, again and again until none is left; return which, and whether that was all.

    Args:
        strike: ends those that it finds, and returns their ids. One pass follows another, since what is started during
            a pass may not be seen by it.
        gone: reaps, and returns whether none is left.
        patience_s: for how long to go on: a process that is stuck in the kernel cannot be ended, seconds.
    """
    ended: set[int] = set()
    until = time.monotonic() + patience_s
    while not gone():
        ended |= strike()
        if gone():
            break
        if time.monotonic() >= until:
            return ended, False
        time.sleep(_LOOK_S)
    return ended, True


def strike_below(root: int, *, but: frozenset[Process] = frozenset()) -> set[int]:
    """End what is below a process, in one pass; return the ids of those that were there."""
    return {each.pid for each in descendants(root, but=but) if send(each, signal.SIGKILL)}


def reap_all() -> bool:
    """Reap every child that has ended, and return whether there is no child at all."""
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return True
    return False


def _prctl(option: int, argument: int | bytes) -> bool:
    if sys.platform != "linux":
        return False
    import ctypes

    with suppress(OSError, AttributeError):
        return bool(ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0) == 0)
    return False


def adopt_orphans() -> bool:
    """Have orphans below this process fall to it, and return whether that can be had (on Linux it can)."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def rename(name: str) -> None:
    """Give this process a name of at most 15 bytes, where that can be had."""
    _prctl(_PR_SET_NAME, name.encode())


def end_with_parent(parent: int) -> None:
    """Have this process be ended when the thread that started it ends, where that can be had; called in the child.

    Args:
        parent: the id of the process that started it; if that has ended already, this one ends here.
    """
    if _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) and os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
