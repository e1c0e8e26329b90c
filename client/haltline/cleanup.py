"""What a run cleans up once its block is left: each once, the newest first, and one that hangs does not hold the rest.

A function runs in a thread of its own, an asynchronous one in a task of its own (or, where no event loop runs, in a
thread with a loop). What has not ended in time is left behind there, still running, and the next one begins.
"""

from __future__ import annotations

import contextvars
import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from asyncio import Future, Task

LEAST_S: Final = 0.1
"""How long each cleanup is waited for at least, however little is left of the grace, seconds."""

NAME_MAX: Final = 128
"""The longest name of a cleanup, characters."""

DETAIL_MAX: Final = 256
"""How much is kept of what a cleanup failed by, characters."""

Outcome: TypeAlias = Literal["done", "failed", "timed_out"]
Function: TypeAlias = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Cleanup:
    """What became of one cleanup.

    Attributes:
        name: its name, by default the function's.
        outcome: ``done``; ``failed``, it raised; or ``timed_out``, it was left behind.
        seconds: how long it was waited for.
        detail: what it failed by; empty if it did not.
    """

    name: str
    outcome: Outcome
    seconds: float
    detail: str = ""


class Pending(NamedTuple):
    """A cleanup that has not begun.

    Attributes:
        function: what to call, without arguments.
        timeout: how long it is waited for at most, seconds; None for half of what is left of the grace.
        name: its name.
    """

    function: Function
    timeout: float | None
    name: str

    def limit(self, left: float, *, last: bool) -> float:
        """Return how long to wait for it, seconds.

        Args:
            left: what is left of the grace, seconds.
            last: whether none comes after it.
        """
        if self.timeout is not None:
            return min(self.timeout, max(left, LEAST_S))
        # One that hangs must leave something to those after it.
        return max(left if last else left / 2, LEAST_S)


def pending(function: Function, timeout: float | None, name: str | None) -> Pending:
    """Return a cleanup to come.

    Args:
        function: takes no arguments; may be asynchronous.
        timeout: how long it is waited for at most, seconds; None for half of what is left of the grace.
        name: its name in outcomes, at most 128 characters; by default the function's.

    Raises:
        TypeError: ``function`` cannot be called.
        ValueError: ``timeout`` is not a positive number, or ``name`` empty or too long.
    """
    if not callable(function):
        raise TypeError(f"a cleanup is a function without arguments, not {function!r:.60}")
    if timeout is not None and not 0 < timeout < float("inf"):
        raise ValueError(f"a cleanup's timeout is a positive number of seconds, not {timeout!r:.40}")
    if name is not None and not 0 < len(name) <= NAME_MAX:
        raise ValueError(f"a cleanup's name has 1 to {NAME_MAX} characters")
    return Pending(function, timeout, name if name is not None else _name_of(function))


Cleaned: TypeAlias = tuple[tuple[Cleanup, ...], BaseException | None]
"""What became of the cleanups, and what interrupted them and is still to be raised, if anything did."""


def clean(waiting: Sequence[Pending], until: float) -> Cleaned:
    """Run cleanups, the newest first.

    An interruption (Ctrl-C, an exception of a signal handler) does not end this: it is returned, to be raised once the
    cleanups are over. From the second one on, each leaves the cleanup at hand behind.

    Args:
        waiting: the oldest first.
        until: when the grace is over, as ``time.monotonic`` counts.
    """
    ended: list[Cleanup] = []
    interruptions: list[BaseException] = []
    for number, each in enumerate(reversed(waiting), 1):
        begun = time.monotonic()
        attempt = _Attempt(each)
        end = begun + each.limit(until - begun, last=number == len(waiting))
        while not attempt.ended.is_set() and (not attempt.begun or time.monotonic() < end):
            try:
                attempt.begin()
                attempt.ended.wait(max(0.0, end - time.monotonic()))
            except BaseException as error:  # noqa: BLE001 - returned: for the caller to raise
                interruptions.append(error)
                if len(interruptions) > 1:
                    break
        ended.append(_outcome(each, begun, over=attempt.ended.is_set(), error=attempt.error))
    return tuple(ended), interruptions[0] if interruptions else None


async def aclean(waiting: Sequence[Pending], until: float) -> Cleaned:
    """As :func:`clean`, for asyncio, where a cancellation is what interrupts."""
    import asyncio  # 30 ms that importing the client need not cost

    ended: list[Cleanup] = []
    cancelled: BaseException | None = None
    for number, each in enumerate(reversed(waiting), 1):
        begun = time.monotonic()
        task = asyncio.create_task(_attempted(each))
        end = begun + each.limit(until - begun, last=number == len(waiting))
        while not task.done() and (left := end - time.monotonic()) > 0:
            try:
                await asyncio.wait({task}, timeout=left)
            except asyncio.CancelledError as error:
                cancelled = error
        over = task.done()
        if not over:
            _left_behind.add(task)
            task.add_done_callback(_left_behind.discard)
        ended.append(_outcome(each, begun, over=over, error=task.result() if over else None))
    return tuple(ended), cancelled


class _Attempt:
    """One cleanup under way in a thread of its own."""

    def __init__(self, cleanup: Pending) -> None:
        self._cleanup = cleanup
        self._context = contextvars.copy_context()
        self.begun = False
        self.ended = threading.Event()
        self.error: BaseException | None = None

    def begin(self) -> None:
        """Begin, once."""
        if self.begun:
            return
        self.begun = True
        thread = threading.Thread(target=self._run, name="haltline-cleanup", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread to be had: better one that nothing bounds than none
            self._run()

    def _run(self) -> None:
        try:
            self._context.run(self._call)
        except BaseException as error:  # noqa: BLE001 - other people's code: recorded, and the next one runs
            self.error = error
        finally:
            self.ended.set()

    def _call(self) -> None:
        result = self._cleanup.function()
        if inspect.isawaitable(result):
            import asyncio

            asyncio.run(_awaited(result))


async def _awaited(what: Awaitable[object]) -> None:
    await what


async def _attempted(cleanup: Pending) -> BaseException | None:
    """Run one cleanup, and return what it raised: a task that raised SystemExit would end the event loop."""
    try:
        result: object
        if inspect.iscoroutinefunction(cleanup.function):
            result = cleanup.function()
        else:
            result = await _in_thread(cleanup.function)
        if inspect.isawaitable(result):
            await result
    except BaseException as error:  # noqa: BLE001 - other people's code: recorded, and the next one runs
        return error
    return None


async def _in_thread(function: Function) -> object:
    """Call a function in a thread of its own: one of the loop's pool would keep the loop from ending if it hung."""
    import asyncio

    loop = asyncio.get_running_loop()
    over: Future[None] = loop.create_future()
    context = contextvars.copy_context()
    results: list[object] = []
    errors: list[BaseException] = []

    def settle() -> None:
        if not over.done():
            over.set_result(None)

    def work() -> None:
        try:
            results.append(context.run(function))
        except BaseException as error:  # noqa: BLE001 - raised below, in the task
            errors.append(error)
        with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
            loop.call_soon_threadsafe(settle)

    try:
        threading.Thread(target=work, name="haltline-cleanup", daemon=True).start()
    except RuntimeError:  # as above
        work()
    await over
    if errors:
        raise errors[0]
    return results[0]


def _name_of(function: Function) -> str:
    plain = getattr(function, "func", function)  # of a partial
    name = getattr(plain, "__qualname__", None) or type(function).__qualname__
    return str(name)[-NAME_MAX:]


def _outcome(cleanup: Pending, begun: float, *, over: bool, error: BaseException | None) -> Cleanup:
    """Return what became of a cleanup, and say it where it is not as it should be."""
    seconds = time.monotonic() - begun
    if error is not None:
        _say(f"cleanup {cleanup.name} failed; the next one runs", error)
        return Cleanup(cleanup.name, "failed", seconds, _told(error))
    if not over:
        _say(f"cleanup {cleanup.name} has not ended after {seconds:.1f} s: it is left behind, the next one runs", None)
        return Cleanup(cleanup.name, "timed_out", seconds)
    return Cleanup(cleanup.name, "done", seconds)


def _say(text: str, error: BaseException | None) -> None:
    import logging  # 5 ms that importing the client need not cost

    with suppress(Exception):  # a handler is other people's code
        logging.getLogger("haltline").error(text, exc_info=error)


def _told(error: BaseException) -> str:
    """Return an error in a line; it is other people's, and so is what makes text of it."""
    try:
        return f"{type(error).__name__}: {error}"[:DETAIL_MAX]
    except Exception:  # noqa: BLE001 - nothing is decided here
        return type(error).__name__


_left_behind: Final[set[Task[BaseException | None]]] = set()
"""The tasks that were left behind: an event loop keeps no task alive by itself."""
