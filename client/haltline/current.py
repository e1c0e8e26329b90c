"""The check of the current run: for code that has no run object in its hands."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator
from typing import Any, Final, ParamSpec, TypeVar, cast

from haltline.context import here
from haltline.errors import Unverified
from haltline.run import Run
from haltline.scopes import check_capability
from haltline.verdict import Reason, Stop

P = ParamSpec("P")
R = TypeVar("R")

_NO_RUN: Final = Stop(
    Reason.NO_RUN,
    detail="no run is current here: enter one with `with switch.run(...)`, in this thread or task",
)


def current_run() -> Run:
    """Return the current run of this thread or task.

    Raises:
        Unverified: there is none, which means stopped.
    """
    entered = here()
    if entered is None:
        raise Unverified(f"stopped: {_NO_RUN.detail}", verdict=_NO_RUN)
    return entered.run


def check(capability: str | None = None) -> None:
    """Check the current run; see :meth:`haltline.run.Run.check`.

    Raises:
        Unverified: also where no run is current: a missing run context means stopped.
    """
    entered = here()
    if entered is None:
        raise Unverified(f"stopped: {_NO_RUN.detail}", verdict=_NO_RUN)
    entered.run.check(capability)


def guarded(capability: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that checks the current run before each call.

    Coroutine functions are checked when they are awaited, generator functions when they are first asked for a value.

    Args:
        capability: the capability that the function uses, such as ``"send_email"``.

    Raises:
        InvalidTarget: ``capability`` is not a valid id.
        TypeError: an asynchronous generator function is decorated: check inside it, before each effect.
    """
    name = check_capability(capability)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if inspect.isasyncgenfunction(function):
            raise TypeError(f"{function!r} is an asynchronous generator: call check({name!r}) inside it instead")
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def coroutine(*args: P.args, **kwargs: P.kwargs) -> Any:
                check(name)
                return await function(*args, **kwargs)

            return cast("Callable[P, R]", coroutine)
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def generator(*args: P.args, **kwargs: P.kwargs) -> Generator[Any, Any, Any]:
                check(name)
                return (yield from function(*args, **kwargs))

            return cast("Callable[P, R]", generator)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            entered = here()  # check(), written out: this is the hot path of every decorated function
            if entered is None:
                raise Unverified(f"stopped: {_NO_RUN.detail}", verdict=_NO_RUN)
            entered.run.check(name)
            return function(*args, **kwargs)

        return call

    return decorate
