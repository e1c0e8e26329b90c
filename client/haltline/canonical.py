"""Canonical JSON: one sequence of bytes for one value, so that a hash means the same in every language.

The form is RFC 8785 (JSON Canonicalization Scheme), restricted to what the log needs: objects with ASCII keys, arrays,
strings without lone surrogates, integers up to 2^53 - 1 in size, booleans and null. There are no floats.
"""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

from haltline.errors import InvalidDocument

MAX_INTEGER: Final = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly (RFC 8259 section 6)."""

MAX_DEPTH: Final = 8
"""How deep arrays and objects may nest in a document of this protocol."""

_encode = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False
).encode


def _check(value: object, depth: int) -> None:
    kind = type(value)
    if kind is str:
        return
    if value is None or kind is bool:
        return
    if kind is int:
        if not -MAX_INTEGER <= value <= MAX_INTEGER:  # type: ignore[operator]  # kind is int
            raise InvalidDocument("an integer is larger than 2^53 - 1")  # not shown: it may be too large to print
        return
    if depth >= MAX_DEPTH:
        raise InvalidDocument(f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        for key, member in value.items():
            if type(key) is not str or not key.isascii():
                raise InvalidDocument(f"member name {key!a:.40} is not ASCII text")
            _check(member, depth + 1)
        return
    if isinstance(value, list | tuple):
        for member in value:
            _check(member, depth + 1)
        return
    raise InvalidDocument(f"a value of type {kind.__name__} has no canonical JSON")


def canonical(value: object) -> bytes:
    """Return the canonical JSON of ``value`` as UTF-8.

    Raises:
        InvalidDocument: the value has no canonical form (a float, a lone surrogate, a key that is not ASCII, an
            integer beyond 2^53 - 1, nesting beyond :data:`MAX_DEPTH`).
    """
    _check(value, 0)
    try:
        return _encode(value).encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidDocument("text holds a lone surrogate, which has no UTF-8 form") from None


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise InvalidDocument(f"member {name!a:.60} stands twice in one object")
            seen.add(name)
    return members


def _no_constant(text: str) -> NoReturn:
    raise InvalidDocument(f"{text} is not a JSON number")


def _no_float(text: str) -> NoReturn:
    raise InvalidDocument(f"{text:.40} is not an integer: this protocol has no fractions")


def _integer(text: str) -> int:
    # The length is checked before int() is called: converting a megabyte of digits would burn a second of CPU.
    if len(text) > 17 or not -MAX_INTEGER <= (number := int(text)) <= MAX_INTEGER:
        raise InvalidDocument(f"integer {text:.40} is larger than 2^53 - 1")
    return number


_decode = json.JSONDecoder(
    object_pairs_hook=_no_duplicates,
    parse_constant=_no_constant,
    parse_float=_no_float,
    parse_int=_integer,
).decode

_DEPTH_OF: Final = {0x7B: 1, 0x5B: 1, 0x7D: -1, 0x5D: -1}


def _depth(data: bytes) -> int:
    """Return an upper bound of the nesting of ``data``: brackets inside strings are skipped."""
    deepest = depth = 0
    inside = escaped = False
    for byte in data:
        if inside:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                inside = False
        elif byte == 0x22:
            inside = True
        elif byte in _DEPTH_OF:
            depth += _DEPTH_OF[byte]
            deepest = max(deepest, depth)
    return deepest


def parse(data: bytes, *, scan_depth: bool = True) -> Any:
    """Return the value of a JSON document, strictly.

    Args:
        data: the document, UTF-8 without a byte order mark.
        scan_depth: whether to measure the nesting before parsing. Needed for bytes from a stranger (a deeply nested
            document exhausts the parser's stack); the caller may skip it for lines whose size it has bounded and whose
            shape it checks afterwards.

    Raises:
        InvalidDocument: not UTF-8, not JSON, a member named twice, NaN or Infinity, a fraction, an integer beyond
            2^53 - 1, a lone surrogate, or nesting beyond :data:`MAX_DEPTH`.
    """
    if scan_depth and (data.count(b"{") + data.count(b"[")) > MAX_DEPTH and _depth(data) > MAX_DEPTH:
        raise InvalidDocument(f"nested deeper than {MAX_DEPTH} levels")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidDocument(f"not UTF-8: {error.reason} at byte {error.start}") from None
    try:
        value = _decode(text)
        if "\\u" in text:  # only an escape can bring a lone surrogate into text that was valid UTF-8
            _encode(value).encode("utf-8")
    except json.JSONDecodeError as error:
        raise InvalidDocument(f"not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise InvalidDocument("nested too deeply") from None
    except UnicodeEncodeError:
        raise InvalidDocument("text holds a lone surrogate, which has no UTF-8 form") from None
    return value
