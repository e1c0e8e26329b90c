"""Stamp keys: what planned work is sealed with, given by the service with the first frame of a lease."""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass, field
from typing import Final

from haltline.errors import InvalidDocument

KEYS_MAX: Final = 256
"""How many keys a frame may bring; a service gives out some 30."""

_ID_MAX: Final = 64
_TEXT: Final = re.compile("[A-Za-z0-9_-]{43}", re.ASCII)
_MEMBERS: Final = frozenset({"id", "key", "until"})


@dataclass(frozen=True, slots=True)
class StampKey:
    """One key.

    Attributes:
        id: its name, which stamps repeat; no secret.
        key: 32 bytes.
        until: until when what it sealed may be redeemed, seconds since the Unix epoch.
    """

    id: str
    key: bytes = field(repr=False)
    until: float


def parse_keys(listed: object) -> tuple[StampKey, ...]:
    """Return the keys that a frame lists, the newest first.

    Raises:
        InvalidDocument: they are malformed. The message repeats nothing of them.
    """
    if not isinstance(listed, list) or len(listed) > KEYS_MAX:
        raise InvalidDocument("stamp_keys is not a list of keys, or one of too many")
    keys = tuple(_key(each) for each in listed)
    if len({each.id for each in keys}) != len(keys):
        raise InvalidDocument("stamp_keys names a key twice")
    return keys


def _key(members: object) -> StampKey:
    # Members that a later version adds are passed over.
    if not isinstance(members, dict) or not members.keys() >= _MEMBERS:
        raise InvalidDocument("stamp_keys: a member of a key is missing")
    name, text, until = members["id"], members["key"], members["until"]
    if type(name) is not str or not 1 <= len(name) <= _ID_MAX or not name.isascii() or not name.isprintable():
        raise InvalidDocument("stamp_keys: the id of a key is malformed")
    if type(until) is not int or until < 0:
        raise InvalidDocument("stamp_keys: the end of a key is malformed")
    return StampKey(name, _decoded(text), float(until))


def _decoded(text: object) -> bytes:
    # binascii alone: base64 costs a millisecond of every import of this client.
    if type(text) is str and _TEXT.fullmatch(text) is not None:
        return binascii.a2b_base64(f"{text.replace('-', '+').replace('_', '/')}=")
    raise InvalidDocument("stamp_keys: a key is malformed")
