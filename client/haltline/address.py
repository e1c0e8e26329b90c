"""Where a service answers: URLs, several of them separated by commas, and which of them a token may be sent to.

Also where their names lead, and who there does not want to be asked yet.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from haltline.errors import ConfigurationError

_PLAIN: Final = re.compile(r"[!-~]*", re.ASCII)
_OCTETS: Final = frozenset(map(str, range(256)))
_PORTS: Final = {"http": 80, "https": 443}

Where: TypeAlias = tuple[int, tuple[object, ...]]
"""Where a connection may go: the family, and the rest as a socket takes it."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a service answers.

    Attributes:
        host: a host name or an IP address.
        port: 1 to 65535.
        prefix: what stands before ``/v1`` in the path; empty, or beginning with a slash.
        tls: whether it is spoken to by https.
    """

    host: str
    port: int
    prefix: str = ""
    tls: bool = False

    @property
    def authority(self) -> str:
        """Return the value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether what is sent there stays on this machine: 127.0.0.0/8, ::1 or localhost, as it is written."""
        if self.host in ("localhost", "::1"):
            return True
        parts = self.host.split(".")
        return len(parts) == 4 and parts[0] == "127" and all(map(_OCTETS.__contains__, parts))

    def __str__(self) -> str:
        """Return the address as a URL."""
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.prefix}"


def parse_address(url: str) -> Address:
    """Return the address of a service's URL.

    Args:
        url: ``https://host[:port][/prefix]`` or the same with http, without user, query or fragment.

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
    if parts.scheme not in _PORTS or not host:
        raise ConfigurationError(
            f"the service's address {url!r:.80} is not of the form https://host:port or http://host:port"
        )
    if port == 0 or not _PLAIN.fullmatch(host) or not _PLAIN.fullmatch(parts.path):
        raise ConfigurationError(f"the service's address {url!r:.80} holds what no address may: use ASCII, no spaces")
    try:
        host.encode("idna")  # as resolving it will
    except UnicodeError:
        raise ConfigurationError(f"the service's address {url!r:.80} does not name a host that can exist") from None
    if parts.query or parts.fragment:
        raise ConfigurationError(f"the service's address {url!r:.80} must not have a query or a fragment")
    return Address(host, port or _PORTS[parts.scheme], parts.path.rstrip("/"), tls=parts.scheme == "https")


def parse_addresses(given: str | Sequence[str], *, plain_http: bool) -> tuple[Address, ...]:
    """Return the addresses of one service, in the order in which they are to be tried.

    Args:
        given: URLs: a sequence, or one text that separates them by commas.
        plain_http: whether http is permitted to another machine. A token sent so can be read and used by anybody on
            the way, and a lease forged.

    Raises:
        ConfigurationError: one of them cannot work, or is plain http beyond this machine and that is not permitted.
    """
    urls = given.split(",") if isinstance(given, str) else given
    if not urls or not all(url.strip() for url in urls):
        raise ConfigurationError("an address is empty: write them as https://one:8787,https://two:8787")
    found = tuple(dict.fromkeys(parse_address(url.strip()) for url in urls))
    for address in found:
        if not address.tls and not address.loopback and not plain_http:
            raise ConfigurationError(
                f"{address} is plain http to another machine: anybody on the way can read the token and forge the "
                f"answer. Use https://, or permit it: plain_http=True in KillSwitch, HALTLINE_PLAIN_HTTP=1, "
                f"--plain-http, or plain_http = true in the configuration file"
            )
    return found


class Places:
    """Where the addresses of one service lead, and who there does not want to be asked yet; no I/O.

    A name may lead to several machines, one of which has too much to do, and to each of them by one address of every
    family. So a place is spared by itself; and if none of its name's places of another family may be asked, it is one
    of those machines by another way, and is spared as long.

    Args:
        count: how many addresses there are.
    """

    def __init__(self, count: int) -> None:
        self._led: list[tuple[Where, ...] | None] = [None] * count
        self._until: dict[Where, float] = {}
        self._dead: set[Where] = set()

    def begin(self) -> None:
        """Forget who could not be reached: another attempt begins."""
        self._dead.clear()
        self._led = [led or None for led in self._led]

    def lead(self, at: int, places: Sequence[Where]) -> None:
        """Note where the name of the address ``at`` leads; nowhere if it could not be looked up."""
        self._led[at] = tuple(places)

    def fail(self, place: Where) -> None:
        """Note that a place could not be reached in this attempt."""
        self._dead.add(place)

    def spare(self, place: Where, later_s: float, now: float) -> None:
        """Note for how long a place that has answered does not want to be asked again.

        Args:
            place: the place.
            later_s: for how long, seconds; 0 if it did not say.
            now: the lease clock, seconds.
        """
        # Names lead elsewhere in time: what is over is not kept.
        self._until = {each: until for each, until in self._until.items() if until > now}
        self._until[place] = now + later_s

    def wait_s(self, at: int, place: Where, now: float) -> float:
        """Return for how long a place, to which the address ``at`` leads, does not want to be asked, seconds."""
        others = (self._own_s(each, now) for each in self._led[at] or () if each[0] != place[0])
        return max(self._own_s(place, now), min(others, default=0.0))

    def least_s(self, left: Where | None, now: float) -> float:
        """Return for how long nobody wants to be asked of all that might be reached, seconds.

        Args:
            left: who was given up just now, and counts only where there is nobody else.
            now: the lease clock, seconds.
        """
        waits: list[float] = []
        last: list[float] = []
        for at, led in enumerate(self._led):
            if led is None:  # it has said nothing
                return 0.0
            for place in led:
                if place not in self._dead:
                    (last if place == left else waits).append(self.wait_s(at, place, now))
        return min(waits or last, default=0.0)

    def _own_s(self, place: Where, now: float) -> float:
        return max(self._until.get(place, now) - now, 0.0)
