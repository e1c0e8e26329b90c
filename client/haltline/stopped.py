"""Carrying out a run: what stops it becomes a value at the boundary, neither an error nor a success."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, ParamSpec, TypeVar

from haltline.cleanup import Cleanup
from haltline.errors import Halt
from haltline.lineage import Lineage
from haltline.verdict import Stop

if TYPE_CHECKING:
    from haltline.run import Run

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[[], object])


@dataclass(frozen=True, slots=True)
class RunStopped:
    """A run that was stopped, as a value. It is false, so that ``if result:`` takes it for no result.

    Attributes:
        run: the run's id.
        lineage: its place in the tree.
        verdict: what stopped it, with every hold that blocks.
        halt: the error that surfaced.
        cleanups: what became of its cleanups, the newest first.
    """

    run: str
    lineage: Lineage
    verdict: Stop
    halt: Halt
    cleanups: tuple[Cleanup, ...] = ()

    @property
    def status(self) -> Literal["stopped"]:
        """``stopped``, beside whatever a caller calls its results and its errors."""
        return "stopped"

    def __bool__(self) -> bool:
        """Return False: there is no result."""
        return False


def carry_out(run: Run, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | RunStopped:
    """Enter the run and call a function; see :meth:`haltline.run.Run.carry_out`."""
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"{function!r:.80} is asynchronous: await run.acarry_out(...) instead")
    try:
        with run:
            return function(*args, **kwargs)
    except (Halt, BaseExceptionGroup) as error:
        return _stopped(run, error)


async def acarry_out(
    run: Run, function: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs
) -> R | RunStopped:
    """As :func:`carry_out`, for asyncio."""
    try:
        async with run:
            return await function(*args, **kwargs)
    except (Halt, BaseExceptionGroup) as error:
        return _stopped(run, error)


def _stopped(run: Run, error: Halt | BaseExceptionGroup[BaseException]) -> RunStopped:
    """Return what surfaced as a value, if all of it is a stop of this run; else raise it."""
    leaves = _leaves(error)
    halts = [each for each in leaves if isinstance(each, Halt) and _is_of(run, each)]
    if len(halts) < len(leaves):
        raise error
    return RunStopped(run.id, run.lineage, halts[0].verdict, halts[0], run.cleanups)


def _leaves(error: BaseException) -> list[BaseException]:
    """Return the errors of a group, as a task group raises it, at any depth."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for each in error.exceptions for leaf in _leaves(each)]


def _is_of(run: Run, halt: Halt) -> bool:
    """Return whether a Halt stops this run: it was raised by the run, or what raised it is stopped along with the run.

    What kills a run raises in its children as well, and that of a child may be what surfaces.
    """
    return halt.run == run.id or not run.verdict()
