"""An adapter for requests: asked for last thing before a request is sent, ended with the run, streams included.

Example: ``session.mount("https://", HaltingAdapter(capability="call_api"))``, and likewise for ``http://``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from haltline.errors import ConfigurationError
from haltline.integrations.calling import Call, Capability, Policy, RawSocket, serving, spare
from haltline.propagation import inject

if TYPE_CHECKING:
    import socket

    from urllib3.connection import HTTPConnection as _Connection

    # What the two mixins below stand in front of.
    _Pool = urllib3.HTTPConnectionPool
else:
    _Connection = _Pool = object


class HaltingAdapter(HTTPAdapter):
    """An adapter for ``requests.Session.mount`` that makes the calls of the current run.

    The run is checked when a request comes, and last thing before its first byte is sent, each time it is tried. An
    abort shuts the call's socket down: what waits for it ends with ``Killed``, and the connection is closed. With
    ``stream=True`` close the response, as ``with`` does: a call is in flight until it is closed or read to its end.

    Args:
        capability: the capability that the calls use, or a function that names it for a ``PreparedRequest``.
        carry_to: the hosts, by name and exactly, whose requests carry the run in their ``baggage`` header.
        options: those of ``HTTPAdapter``, such as ``pool_maxsize``.

    Raises:
        InvalidTarget: ``capability`` is not a valid id.
    """

    def __init__(
        self,
        *,
        capability: Capability[requests.PreparedRequest] = None,
        carry_to: Collection[str] = (),
        **options: Any,
    ) -> None:
        self._policy = Policy(capability, carry_to)
        super().__init__(**options)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Set up as requests does, with connections that know for which call they are used."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> urllib3.ProxyManager:
        """As :meth:`init_poolmanager`, for a proxy.

        Raises:
            ConfigurationError: it is a SOCKS proxy, whose connections are of another kind.
        """
        if proxy.lower().startswith("socks"):
            raise ConfigurationError("an abort could not end calls through a SOCKS proxy: use an HTTP proxy")
        manager: urllib3.ProxyManager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request of the current run, and return its response.

        Raises:
            Killed: the run is stopped, or an abort has ended the call; likewise CapabilityFrozen.
            Unverified: nothing proves that the run may go on, or no run is current.
        """
        call = self._policy.call(request)
        sent = request
        if self._policy.carries_to(urlsplit(request.url or "").hostname):
            # A copy: a redirect is made from the original, and must not carry the run elsewhere.
            sent = request.copy()
            given = sent.headers.get(_BAGGAGE, "")
            carried = {_BAGGAGE: given.decode("latin-1") if isinstance(given, bytes) else given}
            sent.headers.update(inject(carried if given else {}, run=call.run))
        call.begin()
        try:
            with call.served():
                response = super().send(sent, *args, **kwargs)
        except BaseException as error:
            call.end()
            call.surface(error)
            raise
        response.request = request
        response.raw = body = _Body(call, response.raw)
        try:
            call.surface()
        except BaseException:
            body.give_up()
            raise
        return response


class _Body:
    """The body of a response, as ``Response.raw``: what urllib3 has there, each read of it watched."""

    def __init__(self, call: Call, raw: Any) -> None:
        self._call = call
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def __iter__(self) -> Iterator[bytes]:
        return self._parts(iter(self._raw))

    def stream(self, *args: Any, **kwargs: Any) -> Iterator[bytes]:
        """Yield the body as it comes."""
        return self._parts(self._raw.stream(*args, **kwargs))

    def read_chunked(self, *args: Any, **kwargs: Any) -> Iterator[bytes]:
        """Yield the body chunk by chunk."""
        return self._parts(self._raw.read_chunked(*args, **kwargs))

    def read(self, *args: Any, **kwargs: Any) -> bytes:
        """Read."""
        read: bytes = self._watched("read", *args, **kwargs)
        return read

    def read1(self, *args: Any, **kwargs: Any) -> bytes:
        """Read what is there."""
        read: bytes = self._watched("read1", *args, **kwargs)
        return read

    def readinto(self, *args: Any) -> int:
        """Read into a buffer."""
        read: int = self._watched("readinto", *args)
        return read

    @property
    def data(self) -> bytes:
        """The whole body."""
        return self.read()

    def close(self) -> None:
        """Close the response: the call is over."""
        self._call.end()
        self._raw.close()

    def release_conn(self) -> None:
        """Give the connection back: the call is over."""
        self._call.end()
        self._raw.release_conn()

    def drain_conn(self) -> None:
        """Read what is left and throw it away."""
        self._watched("drain_conn")

    def give_up(self) -> None:
        """Close the response and its connection, whose place in the pool another one may have."""
        self.close()
        self._raw.release_conn()

    def _parts(self, parts: Iterator[bytes]) -> Iterator[bytes]:
        yield from iter(lambda: self._step(lambda: next(parts, _END)), _END)
        self._call.end()

    def _watched(self, name: str, *args: Any, **kwargs: Any) -> Any:
        result = self._step(lambda: getattr(self._raw, name)(*args, **kwargs))
        if self._raw.connection is None:  # read to its end: the connection went back by itself
            self._call.end()
        return result

    def _step(self, read: Any) -> Any:
        try:
            self._call.surface()
            with self._call.served():
                result = read()
            # A body that ends with its connection seems whole when that was cut.
            self._call.surface()
        except BaseException as error:
            self.give_up()
            self._call.surface(error)
            raise
        return result


_BAGGAGE: Final = "baggage"
_END: Final[Any] = object()


class _Watched(_Connection):
    """A connection that notes for which call it is used."""

    _call: Call | None = None
    _asked = True
    _beside: RawSocket | None = None

    def _serve(self) -> Call | None:
        self._call = serving.get()
        return self._call

    def _new_conn(self) -> socket.socket:
        sock = super()._new_conn()
        if self._call is not None:
            self._beside = spare(sock)  # TLS takes the socket itself away while it is begun
            self._call.uses(self._beside)
        return sock

    def connect(self) -> None:
        call = self._serve()
        try:
            super().connect()
            if call is not None:
                call.uses(self.sock)
        except Exception as error:
            if call is not None:
                call.surface(error)  # here and below, or urllib3 would try again
            raise
        finally:
            beside, self._beside = self._beside, None
            if beside is not None:
                if call is not None:
                    call.leaves(beside)
                beside.close()

    def putrequest(self, *args: Any, **kwargs: Any) -> None:
        call = self._serve()
        self._asked = False
        if call is not None and self.sock is not None:
            call.uses(self.sock)
        super().putrequest(*args, **kwargs)

    def send(self, data: Any) -> None:
        if self.sock is None and self.auto_open:
            self.connect()
        call = self._call
        if call is None:
            super().send(data)
            return
        if not self._asked:
            self._asked = True
            call.ask()
        try:
            super().send(data)
        except Exception as error:
            call.surface(error)
            raise

    def getresponse(self) -> Any:
        call, sock = self._call, self.sock
        beside = None if call is None or sock is None else spare(sock)
        try:
            response = super().getresponse()
            if self.sock is None and call is not None and beside is not None:
                # It closes when the body ends, and is out of this object's hands already.
                call.keeps(beside)
                beside = None
            return response
        except Exception as error:
            if call is not None:
                call.surface(error)
            raise
        finally:
            if beside is not None:
                beside.close()

    def free(self) -> None:
        """Be used by no call from here on."""
        call, self._call = self._call, None
        if call is not None:
            call.leaves(self.sock)

    def close(self) -> None:
        self.free()
        super().close()


class _HTTPConnection(_Watched, urllib3.connection.HTTPConnection):
    """A connection."""


class _HTTPSConnection(_Watched, urllib3.connection.HTTPSConnection):
    """A connection with TLS."""


class _Freeing(_Pool):
    """A pool that takes connections back before others can have them."""

    def _put_conn(self, conn: Any) -> None:
        if isinstance(conn, _Watched):
            conn.free()
        super()._put_conn(conn)


class _HTTPPool(_Freeing, urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(_Freeing, urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


_POOLS: Final[dict[str, type]] = {"http": _HTTPPool, "https": _HTTPSPool}

__all__ = ["HaltingAdapter"]
