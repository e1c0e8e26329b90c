"""What the transports for httpx and httpx2 have in common; neither is imported here.

How the socket of a call is found. asyncio: a response tells its own, and before there is one the task is cancelled.
Threads: a connection that is reused tells nobody which socket it has, so that the pool of the wrapped transport gets a
network backend that notes, at each read and write, for which call it is made.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import suppress
from typing import Any, Final

from haltline.errors import ConfigurationError
from haltline.integrations.calling import Call, Capability, HasFileno, Policy, serving, spare
from haltline.propagation import inject

_SENDS: Final = "http11.send_request_headers.started"
"""What httpcore's ``trace`` extension is told last thing before a request's first byte."""

_END: Final = object()


class Body:
    """The body of a response, in a thread: after an abort it gives no more, and its connection is closed."""

    def __init__(self, call: Call, stream: Any) -> None:
        self._call = call
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        """Yield the body.

        Raises:
            Killed: a kill has ended the call; likewise CapabilityFrozen.
        """
        parts = iter(self._stream)
        try:
            while True:
                self._call.surface()
                with self._call.served():
                    part: Any = next(parts, _END)
                # A body that ends with its connection seems whole when that was cut.
                self._call.surface()
                if part is _END:
                    return
                yield part
        except BaseException as error:
            self.close()
            self._call.surface(error)
            raise

    def close(self) -> None:
        """Close the response: the call is over."""
        self._call.end()
        self._stream.close()


class AsyncBody:
    """As :class:`Body`, for asyncio."""

    def __init__(self, call: Call, stream: Any) -> None:
        self._call = call
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the body.

        Raises:
            Killed: a kill has ended the call; likewise CapabilityFrozen.
        """
        try:
            self._call.surface()
            async for part in self._stream:
                self._call.surface()
                yield part
                self._call.surface()
            self._call.surface()
        except BaseException as error:
            await self.aclose()
            self._call.surface(error)
            raise

    async def aclose(self) -> None:
        """Close the response: the call is over."""
        self._call.end()
        await self._stream.aclose()


class Transport:
    """A transport for threads, around another one."""

    def __init__(
        self,
        transport: Any,
        *,
        capability: Capability[Any],
        carry_to: Collection[str],
        request: Callable[..., Any],
        body: Callable[[Call, Any], Any],
    ) -> None:
        self._policy = Policy(capability, carry_to)
        self._transport = transport
        self._request = request
        self._body = body
        pool = _pool(transport)
        if pool is not None:
            backend = getattr(pool, "_network_backend", None)
            if backend is None:
                raise ConfigurationError("this version of httpcore hides its sockets: an abort could not end a call")
            pool._network_backend = _Backend(backend)  # noqa: SLF001 - httpx has no parameter for it

    def handle_request(self, request: Any) -> Any:
        """Send a request of the current run, and return its response.

        Raises:
            Killed: the run is stopped, or an abort has ended the call; likewise CapabilityFrozen.
            Unverified: nothing proves that the run may go on, or no run is current.
        """
        call = self._policy.call(request)
        call.begin()
        try:
            with call.served():
                response = self._transport.handle_request(self._prepared(request, call))
        except BaseException as error:
            call.end()
            call.surface(error)
            raise
        response.stream = body = self._body(call, response.stream)
        if response.is_closed:  # a transport that needs no network has it whole
            call.end()
        try:
            call.surface()
        except BaseException:
            body.close()
            raise
        return response

    def close(self) -> None:
        """Close the transport inside."""
        self._transport.close()

    def _prepared(self, request: Any, call: Call) -> Any:
        """Return a copy of a request: a redirect is made from the original, and must not carry the run elsewhere."""
        traced = request.extensions.get("trace")

        def trace(name: str, info: dict[str, Any]) -> object:
            told = None if traced is None else traced(name, info)
            if name == _SENDS:
                call.ask()
            return told

        return _copy(self._request, request, call, trace, carries=self._policy.carries_to(request.url.host))


class AsyncTransport:
    """A transport for asyncio, around another one."""

    def __init__(
        self,
        transport: Any,
        *,
        capability: Capability[Any],
        carry_to: Collection[str],
        request: Callable[..., Any],
        body: Callable[[Call, Any], Any],
    ) -> None:
        self._policy = Policy(capability, carry_to)
        self._transport = transport
        self._request = request
        self._body = body
        _pool(transport)

    async def handle_async_request(self, request: Any) -> Any:
        """Send a request of the current run, and return its response; the task is cancelled by an abort meanwhile.

        Raises:
            Killed: the run is stopped, or an abort has ended the call; likewise CapabilityFrozen.
            Unverified: nothing proves that the run may go on, or no run is current.
        """
        call = self._policy.call(request)
        loop = asyncio.get_running_loop()

        def via(cut: Callable[[], None]) -> None:
            with suppress(RuntimeError):  # the loop was closed meanwhile: nothing is in flight there
                loop.call_soon_threadsafe(cut)  # the loop closes sockets: elsewhere their number might be another's

        call.begin(via)
        try:
            async with call.run.abortable(call.capability):
                response = await self._transport.handle_async_request(self._prepared(request, call))
        except BaseException as error:
            call.end()
            call.surface(error)
            raise
        network = response.extensions.get("network_stream")
        call.uses(None if network is None else network.get_extra_info("socket"))
        response.stream = body = self._body(call, response.stream)
        if response.is_closed:
            call.end()
        try:
            call.surface()
        except BaseException:
            await body.aclose()
            raise
        return response

    async def aclose(self) -> None:
        """Close the transport inside."""
        await self._transport.aclose()

    def _prepared(self, request: Any, call: Call) -> Any:
        """As that of :class:`Transport`."""
        traced: Callable[[str, dict[str, Any]], Awaitable[object]] | None = request.extensions.get("trace")

        async def trace(name: str, info: dict[str, Any]) -> object:
            told = None if traced is None else await traced(name, info)
            if name == _SENDS:
                call.ask()
            return told

        return _copy(self._request, request, call, trace, carries=self._policy.carries_to(request.url.host))


def _copy(make: Callable[..., Any], request: Any, call: Call, trace: object, *, carries: bool) -> Any:
    headers = request.headers.copy()
    if carries:
        inject(headers, run=call.run)
    return make(
        request.method,
        request.url,
        headers=headers,
        stream=request.stream,
        extensions={**request.extensions, "trace": trace},
    )


def _pool(transport: Any) -> Any:
    """Return the pool of httpcore that a transport has, if any.

    Raises:
        ConfigurationError: it speaks HTTP/2, of whose connections no call has one for itself.
    """
    pool = getattr(transport, "_pool", None)
    if getattr(pool, "_http2", False):
        raise ConfigurationError(
            "with http2=True calls of many runs share one connection, and ending one would end all: leave it out"
        )
    return pool


class _Backend:
    """A network backend of httpcore whose streams note for which call they are used."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def connect_tcp(self, *args: Any, **kwargs: Any) -> _Stream:
        return _Stream(self._backend.connect_tcp(*args, **kwargs))

    def connect_unix_socket(self, *args: Any, **kwargs: Any) -> _Stream:
        return _Stream(self._backend.connect_unix_socket(*args, **kwargs))

    def sleep(self, seconds: float) -> None:
        call = serving.get()
        if call is None:
            self._backend.sleep(seconds)
        else:
            call.pause(seconds)


class _Stream:
    """A network stream of httpcore."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._sock: HasFileno = stream.get_extra_info("socket")
        self._call: Call | None = None

    def _serve(self) -> Call | None:
        call = serving.get()
        if call is not None and call is not self._call:
            self._call = call
            call.uses(self._sock)
        return call

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._serve()
        read: bytes = self._stream.read(max_bytes, timeout)
        return read

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._serve()
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        if self._call is not None:
            self._call.leaves(self._sock)
        self._stream.close()

    def start_tls(self, *args: Any, **kwargs: Any) -> _Stream:
        call = self._serve()
        if call is None:
            return _Stream(self._stream.start_tls(*args, **kwargs))
        beside = spare(self._sock)
        try:
            call.uses(beside)
            secured = _Stream(self._stream.start_tls(*args, **kwargs))
        finally:
            call.leaves(beside)
            beside.close()
        secured._serve()
        return secured

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
