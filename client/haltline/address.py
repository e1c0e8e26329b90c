"""Where a service answers: URLs, several of them separated by commas, and which of them a token may be sent to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from haltline.errors import ConfigurationError

_PLAIN: Final = re.compile(r"[!-~]*", re.ASCII)
_OCTETS: Final = frozenset(map(str, range(256)))
_PORTS: Final = {"http": 80, "https": 443}


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
