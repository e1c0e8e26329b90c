"""The address of a Redis: what may stand in it, checked without ever repeating it."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult, parse_qs, urlsplit

SCHEMES: Final = ("redis", "rediss", "unix")

TLS_FILES: Final = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
"""What a rediss:// address may say after its question mark. That certificates are checked is not up to it."""

_DATABASE: Final = re.compile(r"/?[0-9]{0,4}", re.ASCII)


def check(url: str) -> None:
    """Check the address of a Redis.

    Raises:
        ValueError: it cannot be read as meant; the message says what to do, and does not repeat it: it may hold a
            password.
    """
    parts = _split(url)
    if parts is None or parts.scheme not in SCHEMES:
        raise ValueError(
            "set it to redis://[user:password@]host:port/0, with special characters of the password as %XX"
        )
    if parts.fragment or "#" in url or "@" in parts.path + parts.query:
        raise ValueError("write the special characters of its password as %XX, as in %40 for @")
    options = parse_qs(parts.query, keep_blank_values=True)
    if parts.scheme == "unix":
        if not parts.path.startswith("/") or options:
            raise ValueError("set it to unix://[user:password@]/path/of/its/socket, without options")
        return
    if not parts.hostname or not _DATABASE.fullmatch(parts.path):
        raise ValueError("set it to redis://[user:password@]host:port/0")
    if not options.keys() <= (TLS_FILES if parts.scheme == "rediss" else set()):
        raise ValueError(f"only rediss:// takes options, and only {', '.join(sorted(TLS_FILES))}")


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        return parts if parts.port is None or parts.port > 0 else None
    except ValueError:
        return None  # its message would show a part of the password
