"""One native thread that does all the work of one database connection, one job after the other.

Under gevent a native thread is the only place where a call that blocks in C (an fdatasync) does not stop every other
greenlet, and where nothing can be switched to between BEGIN and COMMIT.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, NoReturn, Protocol, TypeVar

T = TypeVar("T")


class NotStarted(Exception):
    """The job was given up before it began: the thread was busy for too long. It will never run."""


class StillRunning(Exception):
    """The job began, and did not end in time. It may still end."""


class Closed(Exception):
    """The thread was closed; the job will never run."""


class _Pool(Protocol):
    def call(self, job: Callable[[], T], timeout: float) -> T: ...

    def close(self) -> None: ...


class _Threads:
    """For an ordinary process."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    def call(self, job: Callable[[], T], timeout: float) -> T:
        future: Future[T] = self._executor.submit(job)
        try:
            return future.result(timeout)
        except FutureTimeoutError:
            if future.done():  # in the very moment
                return future.result()
            raise _GivenUp from None

    def close(self) -> None:
        self._executor.shutdown(wait=True)


class _Greenlets:
    """For a process in which gevent replaced threading: the callers are greenlets, the worker is a real thread."""

    def __init__(self) -> None:
        from gevent.threadpool import ThreadPool  # type: ignore[import-untyped]  # gevent has no types

        self._pool = ThreadPool(1)

    def call(self, job: Callable[[], T], timeout: float) -> T:
        import gevent  # type: ignore[import-untyped]  # gevent has no types

        # Both spawn (which waits for the thread to be free) and get may wait; one deadline covers them.
        given_up = gevent.Timeout(timeout)
        with given_up:
            try:
                result: T = self._pool.spawn(job).get()
                return result
            except gevent.Timeout as timeout_raised:
                if timeout_raised is not given_up:
                    raise
        raise _GivenUp

    def close(self) -> None:
        self._pool.join()
        self._pool.kill()


class _GivenUp(Exception):
    """The caller's time is up; whether the job began is for the ticket to say."""


def _pool(name: str) -> _Pool:
    # Only a process that has already imported gevent can have been patched by it.
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        return _Greenlets()
    return _Threads(name)


def _raising(error: BaseException) -> Callable[[], NoReturn]:
    def outcome() -> NoReturn:
        raise error

    return outcome


class SerialThread:
    """A native thread that runs jobs in the order in which they were handed over."""

    def __init__(self, name: str) -> None:
        self._pool = _pool(name)
        self._closed = False

    def run(self, job: Callable[[], T], *, timeout: float) -> T:
        """Return what ``job`` returns, or raise what it raises.

        Args:
            job: what to do on the thread.
            timeout: how long the caller waits, seconds, other callers' jobs included.

        Raises:
            NotStarted: time was up before the job began; it will not run.
            StillRunning: time was up while it ran; it goes on, and what it returns is lost.
            Closed: the thread was closed.
        """
        # Whoever takes the ticket decides: the thread (the job runs) or the caller who gives up (it never does).
        # deque.pop is one step, also where gevent replaced every lock that Python has.
        ticket = deque([None])

        # Nothing is raised on the thread: gevent's pool prints the traceback of whatever leaves a job there, and what
        # a database error says may hold the values of a statement.
        def unless_given_up() -> Callable[[], T]:
            try:
                ticket.pop()
            except IndexError:
                return _raising(NotStarted())
            try:
                value = job()
            except BaseException as error:  # noqa: BLE001 - it decides nothing: the caller raises it
                return _raising(error)
            return lambda: value

        if self._closed:
            raise Closed
        try:
            outcome = self._pool.call(unless_given_up, timeout)
        except _GivenUp:
            try:
                ticket.pop()
            except IndexError:
                raise StillRunning from None
            raise NotStarted from None
        return outcome()

    def close(self) -> None:
        """End the thread after the jobs already handed over; later ones raise Closed."""
        if not self._closed:
            self._closed = True
            self._pool.close()
