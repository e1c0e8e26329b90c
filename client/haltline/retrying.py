"""Trying again: what failed is repeated after a pause, a halt never is, and a kill ends the pause at once.

Built on tenacity, the extra ``haltline[retry]``. Two things differ from using it as it is: it catches a ``Halt`` like
any other exception, so that the code after a ``with attempt:`` block would still run once; and it sleeps through a
kill.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, ParamSpec, Self, TypeAlias, TypeVar

import tenacity

from haltline.errors import CapabilityFrozen, Halt, StampRefused

if TYPE_CHECKING:
    from haltline.planning import Planning

P = ParamSpec("P")
R = TypeVar("R")

On: TypeAlias = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]
"""What is tried again: the exceptions, or a function that is asked about each."""


class Attempt:
    """One attempt, to be entered with ``with``.

    Attributes:
        number: 1 for the first.
    """

    __slots__ = ("_attempt", "_retries", "number")

    def __init__(self, attempt: tenacity.AttemptManager, retries: Callable[[BaseException], bool]) -> None:
        self._attempt = attempt
        self._retries = retries
        self.number: int = attempt.retry_state.attempt_number

    def __enter__(self) -> Self:
        """Return the attempt itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Keep back only what is tried again; anything else surfaces here, before the next line runs."""
        if error is not None and not self._retries(error):
            return False
        return bool(self._attempt.__exit__(kind, error, trace))


class Retrying:
    """The attempts of one piece of work; made by :meth:`haltline.run.Run.retrying`, iterated or called once or often.

    Args:
        run: whose work it is.
        on: what is tried again.
        attempts: how many there are at most; None for no end.
        timeout: seconds after which there is no further one; None for no end.
        pauses: the first pause, the longest, and up to how much is added at random, seconds.
    """

    def __init__(
        self,
        run: Planning,
        on: On,
        *,
        attempts: int | None,
        timeout: float | None,
        pauses: tuple[float, float, float],
    ) -> None:
        self._run = run
        self._on = on
        stops: list[tenacity.stop.stop_base] = []
        if attempts is not None:
            stops.append(tenacity.stop_after_attempt(attempts))
        if timeout is not None:
            stops.append(tenacity.stop_after_delay(timeout))
        self._stop = tenacity.stop_any(*stops)
        self._pauses = pauses

    def __iter__(self) -> Iterator[Attempt]:
        """Yield the attempts, pausing between them.

        Raises:
            Killed: the run was stopped before an attempt, or in the pause before it; likewise Unverified.
        """
        for attempt in tenacity.Retrying(
            sleep=self._run.sleep,
            stop=self._stop,
            wait=self._pause,
            retry=tenacity.retry_if_exception(self._retries),
            before=self._before,
            reraise=True,
        ):
            yield Attempt(attempt, self._retries)

    async def __aiter__(self) -> AsyncIterator[Attempt]:
        """As for a plain loop, for asyncio; each attempt is entered with a plain ``with``."""
        async for attempt in tenacity.AsyncRetrying(
            sleep=self._run.asleep,
            stop=self._stop,
            wait=self._pause,
            retry=tenacity.retry_if_exception(self._retries),
            before=self._before,
            reraise=True,
        ):
            yield Attempt(attempt, self._retries)

    def __call__(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return what ``function`` returns in the end."""
        for attempt in self:
            with attempt:
                return function(*args, **kwargs)
        raise AssertionError("an attempt returns or raises")

    async def acall(self, function: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """As calling it, for a coroutine function."""
        async for attempt in self:
            with attempt:
                return await function(*args, **kwargs)
        raise AssertionError("an attempt returns or raises")

    def _pause(self, state: tenacity.RetryCallState) -> float:
        initial, longest, jitter = self._pauses
        doubled = initial * 2.0 ** min(state.attempt_number - 1, 60)
        return min(doubled, longest) + random.uniform(0, jitter)  # noqa: S311 - no secret

    def _before(self, _state: tenacity.RetryCallState) -> None:
        self._run.check()

    def _retries(self, error: BaseException) -> bool:
        """Return whether to try again after ``error``: never after what tells of a stop, also not where it is asked."""
        if isinstance(error, Halt | CapabilityFrozen | StampRefused):
            return False
        if isinstance(error, BaseExceptionGroup) and error.subgroup((Halt, CapabilityFrozen, StampRefused)) is not None:
            return False
        on = self._on
        return isinstance(error, on) if isinstance(on, type | tuple) else on(error)
