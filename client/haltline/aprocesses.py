"""Subprocesses of a run in asyncio: as :mod:`haltline.processes`, and the task that waits is cancelled by a kill."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from haltline.processes import LAST_S, LOOK_S, Args, Session

if TYPE_CHECKING:
    from haltline.run import Run

_Process = asyncio.subprocess.Process


class AsyncSubprocess:
    """A subprocess of a run, made by :meth:`haltline.run.Run.asubprocess`: a block, or awaited to its end."""

    __slots__ = ("_args", "_block", "_capability", "_given", "_run")

    def __init__(self, run: Run, args: Args, capability: str | None, given: Mapping[str, Any]) -> None:
        self._run = run
        self._args = args
        self._capability = capability
        self._given = given
        self._block: AbstractAsyncContextManager[_Process] | None = None

    async def __aenter__(self) -> _Process:
        """Start it.

        Raises:
            Killed: the run is stopped; likewise Unverified and CapabilityFrozen. Nothing was started.
            OSError: it cannot be started.
        """
        if self._block is not None:
            raise RuntimeError("this block was entered already: make another run.asubprocess(...)")
        self._block = self._held()
        return await self._block.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what is left of it: SIGTERM, the grace, SIGKILL. What a kill ended surfaces as the kill."""
        assert self._block is not None  # noqa: S101 - it was entered
        await self._block.__aexit__(kind, error, trace)

    def __await__(self) -> Generator[Any, None, subprocess.CompletedProcess[bytes]]:
        """Run it to its end, and return its exit code and what it wrote to pipes.

        Raises:
            Killed: the run is stopped, or a kill ended it; likewise Unverified and CapabilityFrozen.
            OSError: it cannot be started.
        """
        return self._completed().__await__()

    def _held(self) -> AbstractAsyncContextManager[_Process]:
        return _held(self._run, self._args, self._capability, self._given)

    async def _completed(self) -> subprocess.CompletedProcess[bytes]:
        async with self._held() as process:
            out, err = await process.communicate()
            code = process.returncode
        return subprocess.CompletedProcess(self._args, -1 if code is None else code, out, err)


@asynccontextmanager
async def _held(run: Run, args: Args, capability: str | None, given: Mapping[str, Any]) -> AsyncIterator[_Process]:
    session = Session(run, capability)
    async with run.abortable(capability):
        started = session.arguments(given)
        session.open()
        try:
            process = await _start(args, started)
            session.started(process.pid, lambda: process.returncode is not None)
            try:
                yield process
            finally:
                await _end(process, session)
        finally:
            session.close()
    session.surface(None)


async def _start(args: Args, given: dict[str, Any]) -> _Process:
    if given.pop("shell", False):
        if not isinstance(args, str | bytes):
            raise TypeError("shell=True takes one text")
        return await asyncio.create_subprocess_shell(args, **given)
    words = [args] if isinstance(args, str | bytes) or hasattr(args, "__fspath__") else list(args)
    return await asyncio.create_subprocess_exec(*words, **given)


async def _end(process: _Process, session: Session) -> None:
    def over() -> bool:
        return process.returncode is not None and not session.left()

    if not session.ours:
        return
    try:
        if not over():
            session.ask()
            await _wait(over, session.until())
    finally:
        # Also where another cancellation has cut the waiting short.
        if not over():
            session.end()
            await _wait(over, time.monotonic() + LAST_S)
        if process.stdin is not None:
            process.stdin.close()


async def _wait(over: Callable[[], bool], until: float) -> None:
    while not over() and time.monotonic() < until:  # noqa: ASYNC110 - nothing tells of the end of what is below it
        await asyncio.sleep(LOOK_S)
