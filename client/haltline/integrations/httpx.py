"""Transports for httpx: asked for last thing before a request is sent, ended with the run, streams included.

Example: ``httpx.Client(transport=HaltingTransport(capability="call_api"))``.
"""

from __future__ import annotations

from collections.abc import Collection

import httpx

from haltline.integrations import transports
from haltline.integrations.calling import Capability


class _Body(transports.Body, httpx.SyncByteStream):
    """The body of a response, as httpx wants it."""


class _AsyncBody(transports.AsyncBody, httpx.AsyncByteStream):
    """As ``_Body``, for asyncio."""


class HaltingTransport(transports.Transport, httpx.BaseTransport):
    """A transport for ``httpx.Client`` that makes the calls of the current run.

    The run is checked when a request comes, and last thing before its first byte is sent. An abort shuts the call's
    socket down: what waits in a thread ends with ``Killed``, and the connection is closed. Close streaming responses,
    as ``client.stream()`` does: a call is in flight until then.

    Args:
        transport: the transport inside, which must keep its connections for this one alone; by default an
            ``httpx.HTTPTransport()``. Only in one of that class are sockets found, and HTTP/2 is refused.
        capability: the capability that the calls use, or a function that names it for a request.
        carry_to: the hosts, by name and exactly, whose requests carry the run in their ``baggage`` header.

    Raises:
        ConfigurationError: the transport inside speaks HTTP/2, or hides its sockets.
        InvalidTarget: ``capability`` is not a valid id.
    """

    def __init__(
        self,
        transport: httpx.BaseTransport | None = None,
        *,
        capability: Capability[httpx.Request] = None,
        carry_to: Collection[str] = (),
    ) -> None:
        inner = httpx.HTTPTransport() if transport is None else transport
        super().__init__(inner, capability=capability, carry_to=carry_to, request=httpx.Request, body=_Body)


class AsyncHaltingTransport(transports.AsyncTransport, httpx.AsyncBaseTransport):
    """As :class:`HaltingTransport`, for ``httpx.AsyncClient`` under asyncio.

    Until the headers of the response are there an abort cancels the task, which surfaces as ``Killed``; from then on
    it shuts the socket down. Inside may be any transport; by default an ``httpx.AsyncHTTPTransport()``.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        capability: Capability[httpx.Request] = None,
        carry_to: Collection[str] = (),
    ) -> None:
        inner = httpx.AsyncHTTPTransport() if transport is None else transport
        super().__init__(inner, capability=capability, carry_to=carry_to, request=httpx.Request, body=_AsyncBody)


__all__ = ["AsyncHaltingTransport", "HaltingTransport"]
