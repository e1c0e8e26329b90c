"""Taking the current run along: into threads, greenlets, and the workers of thread and process pools."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, Self, TypeVar, cast

from haltline import context
from haltline.carried import Carried
from haltline.current import current_run
from haltline.run import Run
from haltline.switch import KillSwitch

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_switches: Final[dict[Callable[[], KillSwitch], KillSwitch]] = {}
"""The switches of this process in which pickled functions join their runs, each by what made it."""


def carry(
    function: Callable[P, R],
    *,
    run: Run | None = None,
    switch: Callable[[], KillSwitch] = KillSwitch,
    timeout: float = 2.0,
) -> Callable[P, R]:
    """Return a function that does the same as part of the current run, wherever it is called.

    For threads, greenlets, callbacks and executors, which begin without a run: ``Thread(target=carry(work))``. Only the
    run is taken along, no other context. The function does not begin once the run is stopped; inside it, check before
    each effect as anywhere else. A coroutine function is taken along to the loop that awaits it.

    The result can be pickled if the function can. In the process that unpickles it the run is joined
    (:meth:`haltline.KillSwitch.join`) each time it is called, on one switch for the whole process.

    Args:
        function: the function, no generator function.
        run: the run; by default the current one.
        switch: makes the switch of a process that unpickles the function, a module's function or class; by default from
            the environment variables HALTLINE_URL and HALTLINE_TOKEN of that process.
        timeout: how long a call waits for a live lease before it begins, seconds; 0 for a callback of an event loop,
            which must not be held up.

    Raises:
        Unverified: no run is current here, or it was never armed.
        TypeError: ``function`` is a generator function, or ``switch`` can be no other process's function.
    """
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{function!r} is a generator function: carry what iterates over it instead")
    _check_maker(switch)
    taken = current_run() if run is None else run
    carried = taken.carried
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def coroutine(*args: P.args, **kwargs: P.kwargs) -> Any:
            await taken.aensure(timeout)
            context.enter(taken)
            try:
                return await function(*args, **kwargs)
            finally:
                context.leave(taken)

        return cast("Callable[P, R]", coroutine)
    return _Carrying(function, taken, carried, switch, timeout)


def _check_maker(make: object) -> None:
    """Check that what makes a switch is the same object each time that a process unpickles it.

    Raises:
        TypeError: it may not be: each call would make another switch.
    """
    if not (inspect.isfunction(make) or inspect.isclass(make)):
        raise TypeError(f"switch={make!r} is not a module's function or class, by which a worker process can find it")


class _Carrying(Generic[P, R]):
    """A function that belongs to a run. Pickled, it takes the run along as text."""

    def __init__(
        self,
        function: Callable[P, R],
        run: Run | None,
        carried: Carried,
        switch: Callable[[], KillSwitch],
        timeout: float,
    ) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._run = run
        self._carried = carried
        self._switch = switch
        self._timeout = timeout

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        run = self._run
        if run is None:
            with _switch_of(self._switch).join(self._carried, timeout=self._timeout):
                return self._function(*args, **kwargs)
        run.ensure(self._timeout)
        # Not `with run`: what was entered elsewhere is left there, and cleans up there.
        context.enter(run)
        try:
            return self._function(*args, **kwargs)
        finally:
            context.leave(run)

    def __reduce__(self) -> tuple[Any, ...]:
        return _elsewhere, (self._function, self._carried.text, self._switch, self._timeout)

    def __repr__(self) -> str:
        return f"<{self._function!r} of run {self._carried.lineage.id}>"


def _elsewhere(
    function: Callable[P, R], text: str, switch: Callable[[], KillSwitch], timeout: float
) -> _Carrying[P, R]:
    """Return the function in the process that unpickles it."""
    return _Carrying(function, None, Carried.parse(text), switch, timeout)


def _switch_of(make: Callable[[], KillSwitch]) -> KillSwitch:
    """Return this process's switch from ``make``; two threads that ask at once get the same."""
    kept = _switches.get(make)
    if kept is None:
        made = make()
        kept = _switches.setdefault(make, made)
        if kept is not made:
            made.close()
    return kept


class CarryingExecutor:
    """An executor whose work is part of the run that was current when it was submitted.

    Around a thread pool, a process pool or any other executor, whose workers begin without a run:

        with CarryingExecutor(ThreadPoolExecutor(8)) as pool:
            pool.map(research, questions)

    Work that waits in the pool does not begin once its run is stopped: its future raises ``Killed``. Also for
    ``loop.run_in_executor(...)``, which does not take the current run along by itself.

    Args:
        executor: the executor. Work that it pickles joins its run in the worker process; see :func:`carry`.
        switch: makes the switch of a worker process, a module's function or class; by default from the environment.
        timeout: how long a piece of work waits for a live lease before it begins, seconds.
    """

    def __init__(
        self, executor: Executor, *, switch: Callable[[], KillSwitch] = KillSwitch, timeout: float = 2.0
    ) -> None:
        self.executor = executor
        self._switch = switch
        self._timeout = timeout

    def submit(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """As ``Executor.submit``.

        Raises:
            Unverified: no run is current here.
        """
        return self.executor.submit(self._carrying(function), *args, **kwargs)

    def map(
        self, function: Callable[..., T], /, *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[T]:
        """As ``Executor.map``.

        Raises:
            Unverified: no run is current here.
        """
        return self.executor.map(self._carrying(function), *iterables, timeout=timeout, chunksize=chunksize)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - theirs
        """As ``Executor.shutdown``."""
        self.executor.shutdown(wait=wait, cancel_futures=cancel_futures)

    def __enter__(self) -> Self:
        """Return the executor itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Shut it down, and wait for what was submitted."""
        self.shutdown()

    def _carrying(self, function: Callable[P, R]) -> Callable[P, R]:
        return carry(function, switch=self._switch, timeout=self._timeout)
