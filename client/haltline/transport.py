"""HTTP exchanges with one service, at one of several addresses, each bounded in all by one deadline.

h11 over blocking ``recv`` with SO_RCVTIMEO: general HTTP clients bound each read, not the exchange, and hang on a reply
that drips a byte at a time; they also decode a compressed reply unasked and honour proxies from the environment.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from haltline.address import Address, Places
from haltline.clocks import LEASE_CLOCK, Clocks
from haltline.errors import ServiceError
from haltline.http1 import BadReply, ClosedBeforeReply, Http, Response, told
from haltline.link import Channel, Deadline, Link
from haltline.native import addresses as resolve
from haltline.native import patched
from haltline.renewal import Reply
from haltline.tls import Trust

if TYPE_CHECKING:
    import h11

_USER_AGENT: Final = "haltline-python/0.1"

_Where = tuple[socket.AddressFamily, tuple[object, ...]]

LookUp = Callable[[str, int], list[_Where]]
"""Returns where TCP connections to a host's name and a port may go, or raises OSError."""


class Transport:
    """One connection to one address out of several, kept open between exchanges.

    It stays with the address that works. Not for two threads at once, but for :meth:`interrupt`.

    Args:
        addresses: where the service answers, in the order in which to try.
        token: the bearer token; it appears in no error and no ``repr``.
        clocks: the clocks that deadlines are read on.
        trust: whose certificates are believed; by default those that the system believes.
        look_up: returns where a host's name and a port lead; by default as the system says.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        *,
        token: str,
        clocks: Clocks,
        trust: Trust | None = None,
        look_up: LookUp = resolve,
    ) -> None:
        self._addresses = tuple(addresses)
        self._token = token
        self._clocks = clocks
        self._trust = trust if trust is not None else Trust()
        self._look_up = look_up
        if patched():
            # Now: import locks are gevent's, and no native thread should wait on one.
            import h11  # noqa: F401

            if any(address.tls for address in self._addresses):
                import ssl  # noqa: F401
        self._at = 0
        self._places = Places(len(self._addresses))
        self._known: list[_Where] = []  # of the address that it is at: where to connect, the one that works first
        self._link: Link | None = None
        self._http: Http | None = None
        self._interrupted = False

    def __repr__(self) -> str:
        """Return the addresses, never the token."""
        return f"<Transport {','.join(map(str, self._addresses))}>"

    @property
    def address(self) -> Address:
        """The address that the next exchange begins with, unless nobody there wants to be asked yet."""
        return self._addresses[self._at]

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
        return Reply(response.status, response.content_type, response.encoded, whole, response.header("retry-after"))

    def stream(self, path: str, body: bytes, *, deadline_s: float) -> Response:
        """Send JSON and return the head of the reply, whose lines are read one by one.

        Read to its orderly end, the reply leaves the connection to the next exchange. Given up half-way, it costs the
        connection: the next exchange makes another.

        Args:
            path: from ``/v1`` on.
            body: the request's body.
            deadline_s: for how long the head may take, connecting included, seconds.

        Raises:
            ServiceError: no whole head came in time.
        """
        return self.request("POST", path, body=body, deadline_s=deadline_s)

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
        self._interrupted = False
        deadline = Deadline(deadline_s, self._clocks)
        if self._http is not None and not self._http.ready:
            self.close()  # the last reply was not read to its end
        kept = self._http is not None
        while True:
            http = self._http if self._http is not None else self._connected(deadline)
            try:
                head = http.ask(self._request(method, path, body, headers), body, deadline)
                return Response(head, _Body(self, http, deadline, idle_s))
            except ClosedBeforeReply as closed:
                self.close()
                if self._interrupted:
                    raise ServiceError(f"{self.address}: interrupted", sent=True) from closed
                if not kept:
                    raise ServiceError(f"{self.address} closed the connection: {closed}", sent=True) from closed
                kept = False
            except (OSError, BadReply) as error:
                self.close()
                raise ServiceError(f"{self.address}: {self.why(error)}", sent=True) from error

    def interrupt(self) -> None:
        """Wake whoever waits in this transport: its call raises ServiceError. From any thread, at any time.

        A connection that nobody waits in is given up too. Looking up a name is not interrupted.
        """
        self._interrupted = True
        link = self._link
        if link is not None:
            link.interrupt()

    def rotate(self, later_s: float = 0.0) -> float:
        """Give up whoever answers here: the next exchange begins with the next one, on a fresh connection.

        Args:
            later_s: for how long this one does not want to be asked again, seconds.

        Returns:
            for how long none of the others does, seconds; of those that took no connection nobody knows.
        """
        self.close()
        now = self._clocks.gettime(LEASE_CLOCK)
        left = self._known[0] if self._known else None
        if left is not None:
            self._places.spare(left, later_s, now)
        self._known = self._known[1:]
        if not self._known:
            self._at = (self._at + 1) % len(self._addresses)
        return self._places.least_s(left, now)

    def close(self) -> None:
        """Close the connection; the next exchange opens another."""
        link, self._link, self._http = self._link, None, None
        if link is not None:
            link.close()

    def why(self, error: Exception) -> str:
        """Return what an exchange failed by, as its error tells it."""
        return "interrupted" if self._interrupted else told(error)

    def _request(self, method: str, path: str, body: bytes | None, headers: tuple[tuple[str, str], ...]) -> h11.Request:
        import h11

        lines = [
            ("Host", self.address.authority),
            ("Authorization", f"Bearer {self._token}"),
            ("User-Agent", _USER_AGENT),
            ("Accept", "application/json, application/jsonl, application/problem+json"),
            *headers,
        ]
        if body is not None:
            lines += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        return h11.Request(method=method, target=f"{self.address.prefix}{path}", headers=lines)

    def _connected(self, deadline: Deadline) -> Http:
        """Return a fresh connection to the first address, from the present one on, that takes it.

        Whoever does not want to be asked yet is passed over: another one's failure must not bring the crowd back.

        Raises:
            ServiceError: none did; nothing was sent.
        """
        self._places.begin()
        failures: list[str] = []
        cause: OSError | None = None
        for left in range(len(self._addresses), 0, -1):
            address = self.address
            why = "no address"
            try:
                if not self._known:
                    self._places.lead(self._at, ())
                    self._known = self._resolved(address)
                    self._places.lead(self._at, self._known)
                wait_s = self._pass_over()
                if wait_s:
                    why = f"asked to be spared, for another {wait_s:.1f} s"
                while self._known:
                    # A share of the time each: one that swallows packets must not cost the next one its turn.
                    share = deadline.share(len(self._known) + left - 1)
                    try:
                        return self._opened(address, self._known[0], share)
                    except OSError as error:
                        cause = error
                        self.close()
                        if self._interrupted:
                            raise
                        why = self.why(error)
                        self._places.fail(self._known.pop(0))
            except OSError as error:
                cause, why = error, self.why(error)
            failures.append(f"{address}: {why}")
            if self._interrupted:
                break
            self._known = []
            self._at = (self._at + 1) % len(self._addresses)
        raise ServiceError("; ".join(failures), sent=False) from cause

    def _resolved(self, address: Address) -> list[_Where]:
        try:
            return self._look_up(address.host, address.port)
        except UnicodeError as error:  # no ValueError of a name may end the thread that renews
            raise OSError(f"{address.host} cannot be a host's name") from error

    def _pass_over(self) -> float:
        """Leave out who does not want to be asked yet, and return for how long the first of them does not, seconds."""
        now = self._clocks.gettime(LEASE_CLOCK)
        waits = [self._places.wait_s(self._at, where, now) for where in self._known]
        self._known = [where for where, wait_s in zip(self._known, waits, strict=True) if not wait_s]
        return min(filter(None, waits), default=0.0)

    def _opened(self, address: Address, where: _Where, deadline: Deadline) -> Http:
        family, target = where
        self._link = link = Link(family)
        if self._interrupted:  # asked after the link can be seen: whoever interrupts says so before looking for it
            raise OSError("interrupted")
        link.connect(target, deadline)
        channel: Channel = self._trust.secured(link, address.host, deadline) if address.tls else link
        self._http = Http(channel)
        return self._http


class _Body:
    """The body of the reply to the last request of a transport."""

    def __init__(self, transport: Transport, http: Http, deadline: Deadline, idle_s: float | None) -> None:
        self._transport = transport
        self._http = http
        self._deadline = deadline
        self._idle_s = idle_s
        self._ended = False

    def more(self, deadline: Deadline) -> bytes | bytearray | None:
        """Return the next piece, or None at the end.

        Raises:
            ServiceError: it broke off.
        """
        transport = self._transport
        if self._ended:
            return None
        if transport._http is not self._http:  # noqa: SLF001  # one idea in two classes
            raise ServiceError(f"{transport.address}: the reply was given up", sent=True)
        try:
            piece = self._http.more(deadline)
        except (OSError, BadReply) as error:
            transport.close()
            raise ServiceError(
                f"{transport.address}: the reply broke off: {transport.why(error)}", sent=True
            ) from error
        if piece is None:
            self._ended = True
            if not self._http.ready:
                transport.close()
        return piece

    def deadline(self, seconds: float | None = None) -> Deadline:
        """Return the deadline that is so many seconds away; None for that of the exchange."""
        if seconds is None:
            seconds = self._idle_s
        return self._deadline if seconds is None else Deadline(seconds, self._transport._clocks)  # noqa: SLF001

    def give_up(self) -> None:
        """Close the connection."""
        if self._transport._http is self._http:  # noqa: SLF001
            self._transport.close()
