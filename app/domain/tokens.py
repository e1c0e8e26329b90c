"""Tokens: the text that a caller shows, and when it ends; its secret never stands in a repr or a message.

    hlt_<namespace>_<id>_<secret><checksum>

The id is public and is what the log and the database name. The secret has 43 base62 characters, at least 256 bits, and
is stored only as its SHA-256. The checksum, CRC-32 as 6 base62 digits over everything before it, lets a scanner tell a
token from a look-alike, and a service tell a mistyped token from an unknown one without asking its database.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from dataclasses import dataclass, field
from typing import Final

from app.domain.access import Role
from haltline.scopes import check_id

PREFIX: Final = "hlt_"
BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ID_ALPHABET: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
ID_LENGTH: Final = 12
SECRET_LENGTH: Final = 43
DEFAULT_DAYS: Final = 90
MAX_DAYS: Final = 366
MAX_TENANTS: Final = 64
MAX_TEXT: Final = 128

TOKEN_ID_PATTERN: Final = r"^[a-z0-9]{12}$"  # noqa: S105 - the grammar of a public id
"""A token's public id, as an anchored pattern."""

_TOKEN: Final = re.compile(r"hlt_([a-z0-9][a-z0-9-]{0,31})_([a-z0-9]{12})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})", re.ASCII)
_TOKEN_ID: Final = re.compile(r"[a-z0-9]{12}", re.ASCII)
_SECRETS: Final = re.compile(r"(hlt_[a-z0-9-]{1,32}_[a-z0-9]{12})_[0-9A-Za-z]+", re.ASCII)

BOUND_ROLES: Final = frozenset({Role.WORKER, Role.OPERATOR})
"""The roles whose tokens may be bound to tenants."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token's parts. Its ``repr`` and ``str`` show the public ones only.

    Attributes:
        namespace: the namespace it is of.
        id: its public id.
        secret: what proves it.
    """

    namespace: str
    id: str
    secret: str = field(repr=False)

    @property
    def text(self) -> str:
        """The token as its holder writes it: secret."""
        body = f"{PREFIX}{self.namespace}_{self.id}_{self.secret}"
        return body + checksum(body)

    @property
    def secret_sha256(self) -> str:
        """What is stored of the secret: its SHA-256 in lower-case hexadecimal."""
        return hashlib.sha256(self.secret.encode("ascii")).hexdigest()


def checksum(body: str) -> str:
    """Return the checksum of a token's text up to its secret: CRC-32 as six base62 digits."""
    number = zlib.crc32(body.encode("ascii"))
    digits = ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = BASE62[digit] + digits
    return digits


def parse_token(text: str) -> Token | None:
    """Return the token that ``text`` is, or None if it is not well formed or its checksum is wrong."""
    if len(text) > MAX_TEXT:
        return None
    found = _TOKEN.fullmatch(text)
    if found is None:
        return None
    namespace, identifier, secret, crc = found.groups()
    if checksum(text[: -len(crc)]) != crc:
        return None
    return Token(namespace, identifier, secret)


def is_token_id(text: str) -> bool:
    """Return whether ``text`` has the form of a token's public id."""
    return _TOKEN_ID.fullmatch(text) is not None


def mask(text: str) -> str:
    """Return ``text`` with the secret of every token in it replaced: the last guard before a log line."""
    return _SECRETS.sub(r"\1_****", text) if PREFIX in text else text


def check_no_token(text: str) -> str:
    """Return ``text`` if no token stands in it: what is written into the log stays there, for every reader.

    Raises:
        ValueError: one does. The message does not repeat it.
    """
    if mask(text) != text:
        raise ValueError("this text holds a token, and the log keeps it for ever: revoke that token, leave it out")
    return text


def lifetime(days: int | None) -> float:
    """Return how long a token lasts, in seconds.

    Args:
        days: 1 to 366; None for 90.

    Raises:
        ValueError: out of range.
    """
    days = DEFAULT_DAYS if days is None else days
    if not 1 <= days <= MAX_DAYS:
        raise ValueError(f"a token lasts 1 to {MAX_DAYS} days, not {days}")
    return days * 86_400.0


def check_binding(role: Role, tenants: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return the tenants that a token of ``role`` is bound to, sorted; None where it is not bound.

    Raises:
        ValueError: the role's tokens are never bound, or the list is empty, too long or names a tenant twice.
        InvalidTarget: one of them is not an id.
    """
    if tenants is None:
        return None
    if role not in BOUND_ROLES:
        raise ValueError(f"a token of role {role.value} cannot be bound to tenants: only worker and operator can")
    if not 1 <= len(tenants) <= MAX_TENANTS:
        raise ValueError(f"a bound token names 1 to {MAX_TENANTS} tenants; leave tenants out for one that is not bound")
    if len(set(tenants)) != len(tenants):
        raise ValueError("a tenant is named twice")
    return tuple(sorted(check_id(tenant, "tenant") for tenant in tenants))
