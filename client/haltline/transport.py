"""One HTTP exchange on a plain socket, bounded in all by one deadline.

h11 over blocking ``recv`` with SO_RCVTIMEO: general HTTP clients bound each read, not the exchange, and hang on a reply
that drips a byte at a time; they also decode a compressed reply unasked and honour proxies from the environment. Here
there are no redirects, no proxies, no content decoding, and a bound on every size.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from haltline.clocks import LEASE_CLOCK, Clocks
from haltline.errors import ConfigurationError, ServiceError
from haltline.native import addresses, make_socket, patched
from haltline.renewal import Reply

if TYPE_CHECKING:
    import h11

_HEADER_MAX_BYTES: Final = 16 * 1024
_CHUNK: Final = 64 * 1024
_PLAIN: Final = re.compile(r"[!-~]*", re.ASCII)
_USER_AGENT: Final = "haltline-python/0.1"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a service answers.

    Attributes:
        host: a host name or an IP address.
        port: 1 to 65535.
        prefix: what stands before ``/v1`` in the path; empty, or beginning with a slash.
    """

    host: str
    port: int
    prefix: str = ""

    @property
    def authority(self) -> str:
        """Return the value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        """Return the address as a URL."""
        return f"http://{self.authority}{self.prefix}"


def parse_address(url: str) -> Address:
    """Return the address of a service's URL.

    Args:
        url: ``http://host[:port][/prefix]``, without user, query or fragment.

    Raises:
        ConfigurationError: it is anything else.
    """
    from urllib.parse import urlsplit  # 3 ms that importing the client need not cost

    if "@" in url:  # said first, and without the address: no later message may repeat a password
        raise ConfigurationError("the service's address must not hold credentials: give the token by itself")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(f"the service's address {url!r:.80} is not a URL: {error}") from None
    if parts.scheme == "https":
        raise ConfigurationError("https is not served yet: use http:// on loopback, or a tunnel that ends there")
    if parts.scheme != "http" or not host:
        raise ConfigurationError(f"the service's address {url!r:.80} is not of the form http://host:port")
    if port == 0 or not _PLAIN.fullmatch(host) or not _PLAIN.fullmatch(parts.path):
        raise ConfigurationError(f"the service's address {url!r:.80} holds what no address may: use ASCII, no spaces")
    try:
        host.encode("idna")  # as resolving it will
    except UnicodeError:
        raise ConfigurationError(f"the service's address {url!r:.80} does not name a host that can exist") from None
    if parts.query or parts.fragment:
        raise ConfigurationError(f"the service's address {url!r:.80} must not have a query or a fragment")
    return Address(host, port or 80, parts.path.rstrip("/"))


class Response:
    """The head of a reply, and its body still to be read.

    Attributes:
        status: the status code.
        headers: lower-case names and values, in the order they came.
    """

    def __init__(self, status: int, headers: list[tuple[str, str]], chunks: Iterator[bytes]) -> None:
        self.status = status
        self.headers = headers
        self._chunks = chunks

    def header(self, name: str) -> str:
        """Return a header's value, or an empty text; ``name`` in lower case."""
        return next((value for key, value in self.headers if key == name), "")

    def chunks(self) -> Iterator[bytes]:
        """Yield the body as it comes.

        Raises:
            ServiceError: it broke off, or the deadline passed.
        """
        return self._chunks

    def read(self, limit: int) -> bytes:
        """Return the whole body.

        Raises:
            ServiceError: it broke off, the deadline passed, or it is larger than ``limit`` bytes.
        """
        body = bytearray()
        for chunk in self._chunks:
            body += chunk
            if len(body) > limit:
                raise ServiceError(f"the reply is larger than {limit} bytes", sent=True)
        return bytes(body)


class Transport:
    """One connection to one address, kept open between exchanges. Not for two threads at once.

    Args:
        address: where the service answers.
        token: the bearer token; it appears in no error and no ``repr``.
        clocks: the clocks that deadlines are read on.
    """

    def __init__(self, address: Address, *, token: str, clocks: Clocks) -> None:
        self._address = address
        self._token = token
        self._clocks = clocks
        if patched():
            import h11  # noqa: F401  # now: import locks are gevent's, and no native thread should wait on one
        self._socket: socket.socket | None = None
        self._http: h11.Connection | None = None
        self._resolved: list[tuple[socket.AddressFamily, tuple[object, ...]]] = []

    def __repr__(self) -> str:
        """Return the address, never the token."""
        return f"<Transport {self._address}>"

    def post(self, path: str, body: bytes, *, deadline_s: float, limit: int) -> Reply:
        """Send JSON and return the whole reply.

        Args:
            path: from ``/v1`` on.
            body: the request's body.
            deadline_s: for how long the exchange may last in all, connecting included, seconds.
            limit: the largest reply, bytes.

        Raises:
            ServiceError: no whole reply came in time.
        """
        response = self.request("POST", path, body=body, deadline_s=deadline_s)
        whole = response.read(limit)
        return Reply(response.status, response.header("content-type"), bool(response.header("content-encoding")), whole)

    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        deadline_s: float,
        idle_s: float | None = None,
    ) -> Response:
        """Send a request and return the head of its reply.

        A request on a connection that was kept open, and that the service had closed meanwhile, is sent once more on a
        fresh one: every request of this client may be repeated.

        Args:
            method: the HTTP method.
            path: from ``/v1`` on.
            body: JSON, or None.
            headers: more headers.
            deadline_s: for how long the exchange may last in all, connecting included, seconds.
            idle_s: where given, the body may take longer than the deadline as long as some of it comes every so many
                seconds; for exports.

        Raises:
            ServiceError: no whole head came in time.
        """
        import h11  # 6 ms that importing the client need not cost

        gettime = self._clocks.gettime
        until = gettime(LEASE_CLOCK) + deadline_s

        def left() -> float:
            rest = until - gettime(LEASE_CLOCK)
            if rest <= 0:
                raise TimeoutError(f"no whole reply within {deadline_s:g} s")
            return rest

        if self._http is not None and self._http.our_state is not h11.IDLE:
            self.close()  # the last reply was not read to its end
        kept = self._socket is not None
        sent = False
        for attempt in (1, 2):
            try:
                connection = self._connection(left)
                sent = True
                return self._exchange(connection, method, path, body, headers, left, idle_s)
            except _ClosedBeforeReply as closed:
                self.close()
                if not kept or attempt == 2:
                    raise ServiceError(f"{self._address} closed the connection: {closed}", sent=True) from closed
            except (OSError, _BadReply) as error:
                self.close()
                raise ServiceError(f"{self._address}: {_told(error)}", sent=sent) from error
        raise AssertionError("unreachable: the second attempt returns or raises")

    def close(self) -> None:
        """Close the connection; the next exchange opens another."""
        if self._socket is not None:
            self._socket.close()
        self._socket = self._http = None

    def _connection(self, left: Callable[[], float]) -> socket.socket:
        if self._socket is not None:
            return self._socket
        self._http = None
        if not self._resolved:
            try:
                self._resolved = addresses(self._address.host, self._address.port)
            except UnicodeError as error:  # no ValueError of a name may end the thread that renews
                raise OSError(f"{self._address.host} cannot be a host's name") from error
        failure: OSError | None = None
        for number, (family, where) in enumerate(self._resolved):
            opened = make_socket(family, socket.SOCK_STREAM)
            try:
                # A share of the time each: an address that swallows packets must not cost the next one its turn.
                opened.settimeout(left() / (len(self._resolved) - number))
                opened.connect(where)
                opened.settimeout(None)
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                opened.close()
                failure = error
                continue
            self._socket = opened
            return opened
        self._resolved = []
        raise failure if failure is not None else OSError(f"{self._address.host} has no address")

    def _exchange(
        self,
        connection: socket.socket,
        method: str,
        path: str,
        body: bytes | None,
        headers: tuple[tuple[str, str], ...],
        left: Callable[[], float],
        idle_s: float | None,
    ) -> Response:
        import h11

        if self._http is None:
            self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEADER_MAX_BYTES)
        http = self._http
        lines = [
            ("Host", self._address.authority),
            ("Authorization", f"Bearer {self._token}"),
            ("User-Agent", _USER_AGENT),
            ("Accept", "application/json, application/jsonl, application/problem+json"),
            *headers,
        ]
        if body is not None:
            lines += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        request = h11.Request(method=method, target=f"{self._address.prefix}{path}", headers=lines)
        data = http.send(request) or b""
        if body is not None:
            data += http.send(h11.Data(data=body)) or b""
        data += http.send(h11.EndOfMessage()) or b""
        _bound(connection, socket.SO_SNDTIMEO, left())
        try:
            connection.sendall(data)
        except BlockingIOError:
            raise TimeoutError("the request could not be sent in time") from None
        except ConnectionError as error:
            raise _ClosedBeforeReply(_told(error)) from error
        try:
            head = self._next(http, connection, left, begun=False)
            while isinstance(head, h11.InformationalResponse):
                head = self._next(http, connection, left, begun=True)
        except h11.RemoteProtocolError as error:
            raise _BadReply(f"not an HTTP reply: {error}") from error
        if not isinstance(head, h11.Response):
            raise _BadReply("not an HTTP reply")
        told = [(name.decode("ascii"), value.decode("latin-1")) for name, value in head.headers]
        wait = left if idle_s is None else lambda: idle_s
        return Response(head.status_code, told, self._body(http, connection, wait))

    def _body(self, http: h11.Connection, connection: socket.socket, left: Callable[[], float]) -> Iterator[bytes]:
        import h11

        whole = False
        try:
            while True:
                event = self._next(http, connection, left, begun=True)
                if isinstance(event, h11.EndOfMessage):
                    whole = True
                    break
                if isinstance(event, h11.Data):
                    yield bytes(event.data)
        except (OSError, _BadReply, h11.RemoteProtocolError) as error:
            raise ServiceError(f"{self._address}: the reply broke off: {_told(error)}", sent=True) from error
        finally:
            if whole and http.our_state is h11.DONE and http.their_state is h11.DONE:
                http.start_next_cycle()
            elif self._socket is connection:
                self.close()

    def _next(
        self, http: h11.Connection, connection: socket.socket, left: Callable[[], float], *, begun: bool
    ) -> object:
        import h11

        while True:
            event = http.next_event()
            if event is not h11.NEED_DATA:
                return event
            _bound(connection, socket.SO_RCVTIMEO, left())
            try:
                data = connection.recv(_CHUNK)
            except BlockingIOError:
                raise TimeoutError("no whole reply in time") from None
            except ConnectionError as error:
                if begun or http.trailing_data[0]:
                    raise
                raise _ClosedBeforeReply(_told(error)) from error
            if not data and not begun and not http.trailing_data[0]:
                raise _ClosedBeforeReply("before a reply")
            http.receive_data(data)


class _ClosedBeforeReply(Exception):
    """The connection ended before any byte of a reply."""


class _BadReply(Exception):
    """What came is not HTTP."""


def _told(error: Exception) -> str:
    """Return an error's text, or its name where it has none."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"{error!s:.200}" or type(error).__name__


def _bound(connection: socket.socket, option: int, seconds: float) -> None:
    """Bound the next blocking call on a socket.

    SO_RCVTIMEO keeps the socket in blocking mode, so that one system call waits and reads: beside a busy Python thread
    that halves the wake-ups, and the latency, of a socket time-out, which polls first (measured 6 ms against 13).
    """
    whole = int(seconds)
    micros = max(int((seconds - whole) * 1e6), 1)
    connection.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", whole, micros))
