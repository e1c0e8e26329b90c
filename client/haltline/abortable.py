"""A call in flight that a kill may end, as a context manager for threads and for asyncio."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from haltline.aborting import Callback, Scope
from haltline.verdict import Stop

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task

    from haltline.run import Run


class Abortable:
    """A call that a kill with ``in_flight: abort`` ends; made by :meth:`haltline.run.Run.abortable`.

    ``async with`` cancels the task, as ``asyncio.timeout`` does it: what is cancelled surfaces as ``Killed`` outside
    this block, never as a stray cancellation. ``with``, for threads, calls what was given to :meth:`on_abort`, and an
    exception that comes of it surfaces as ``Killed``. Either way ``finally`` blocks and cleanup run first. A call that
    ended by itself before the kill took effect has ended by itself: the next check stops the run.
    """

    __slots__ = ("_cancelled", "_cancelling", "_loop", "_open", "_run", "_scope", "_task", "capability")

    def __init__(self, run: Run, capability: str | None) -> None:
        self._run = run
        self.capability = capability
        self._scope: Scope | None = None
        self._loop: AbstractEventLoop | None = None
        self._task: Task[Any] | None = None
        self._cancelling = 0
        self._cancelled = False
        self._open = False

    @property
    def aborted(self) -> bool:
        """Whether a kill has ended this call; a long computation may ask."""
        return self._scope is not None and self._scope.stop is not None

    @property
    def stop(self) -> Stop | None:
        """The verdict that ended this call."""
        return self._scope.stop if self._scope is not None else None

    def on_abort(self, callback: Callback) -> Callback:
        """Have ``callback`` called once if a kill ends this call, at once if one has, in a thread of Haltline's own.

        It should end the call: close a socket, cancel a statement. If it raises, that is logged; if it hangs, others
        are not held up.

        Args:
            callback: takes nothing; what it returns is ignored.

        Returns:
            what forgets it.

        Raises:
            RuntimeError: this block was not entered, or has ended.
        """
        if self._scope is None or not self._open:
            raise RuntimeError("on_abort() belongs inside the block: with run.abortable() as call: ...")
        return self._scope.on_abort(callback)

    def __enter__(self) -> Self:
        """Watch the call.

        Raises:
            Killed: the run is stopped already; likewise Unverified and CapabilityFrozen.
        """
        self._begin(None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Watch it no longer; what broke because of the kill surfaces as the kill.

        Raises:
            Killed: the call was ended by a kill; CapabilityFrozen where only its capability was killed.
        """
        scope = self._end()
        if scope.stop is not None and isinstance(error, Exception):
            raise self._run.stopped_by(scope.stop, self.capability) from error

    async def __aenter__(self) -> Self:
        """As ``with``, and the task that runs this block is cancelled by a kill."""
        import asyncio  # 30 ms that importing the client need not cost

        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("run.abortable() needs a task: await it inside asyncio.run(...) or a task of your own")
        self._task, self._loop, self._cancelling = task, asyncio.get_running_loop(), task.cancelling()
        self._begin(self._signal)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Watch it no longer; a cancellation that is the kill's surfaces as the kill."""
        import asyncio

        scope, task, cancelled = self._end(), self._task, self._cancelled
        self._task, self._loop, self._cancelled = None, None, False
        if task is not None and cancelled:
            # As asyncio.timeout does: where others have cancelled this task, too, that is theirs to surface.
            ours = task.uncancel() <= self._cancelling and isinstance(error, asyncio.CancelledError)
        else:
            ours = False
        if scope.stop is not None and (ours or isinstance(error, Exception)):
            raise self._run.stopped_by(scope.stop, self.capability) from error

    def _begin(self, signal: Callable[[], None] | None) -> None:
        if self._open:
            raise RuntimeError("this block is entered already: make another run.abortable() for another call")
        run, capability = self._run, self.capability
        scope = Scope(run.calls, lambda replica: run.ends_call(replica, capability), signal)
        # Watched first, asked then: a kill between the two is not missed.
        scope.open()
        try:
            run.check(capability)
        except BaseException:
            scope.close()
            raise
        self._scope, self._open = scope, True

    def _end(self) -> Scope:
        scope = self._scope
        if scope is None or not self._open:
            raise RuntimeError("this block was not entered")
        self._open = False
        scope.close()
        return scope

    def _signal(self) -> None:
        """Have the task cancelled, from the thread that renews the lease."""
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop was closed meanwhile: nothing is in flight there
                loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        task = self._task
        if task is not None and self._open and not task.done():
            self._cancelled = True
            task.cancel()
