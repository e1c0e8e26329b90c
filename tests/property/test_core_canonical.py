"""Laws of canonical JSON: one value, one sequence of bytes, and the strict reader gives the value back."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from haltline.canonical import MAX_DEPTH, MAX_INTEGER, canonical, parse
from haltline.errors import InvalidDocument
from tests.support.counts import NIGHTLY

pytestmark = pytest.mark.timeout(1_800 if NIGHTLY else 60)  # the full counts take minutes

many = settings(max_examples=10_000 if NIGHTLY else 500)

texts = st.text(st.characters(exclude_categories=["Cs"]))
names = st.text(st.characters(max_codepoint=127), max_size=8)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-MAX_INTEGER, MAX_INTEGER),
    texts,
    st.sampled_from(["\x7f", "\u2028", "\U0001f6d1"]),
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=12
)

SHORT: Final = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


def jcs(value: Any) -> str:
    """Return canonical JSON, written from RFC 8785 section 3.2.2 without a JSON library."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return '"' + "".join(SHORT.get(c, f"\\u{ord(c):04x}" if c < " " else c) for c in value) + '"'
    if isinstance(value, list):
        return "[" + ",".join(map(jcs, value)) + "]"
    return "{" + ",".join(f"{jcs(name)}:{jcs(value[name])}" for name in sorted(value)) + "}"


def depth(value: Any) -> int:
    """Return how deep a value nests."""
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@many
@given(values)
@example({"b": ["\x00\x1f \x7f", {"a": -0}], "a": '\u20ac$\x0f\nA\'B"\\\\"/'})
def test_the_bytes_are_those_of_rfc_8785(value: Any) -> None:
    """A second writer, made from the text of the RFC alone, writes the same bytes."""
    if depth(value) > MAX_DEPTH:
        return
    assert canonical(value) == jcs(value).encode()


@many
@given(values)
def test_reading_gives_the_value_back(value: Any) -> None:
    """What was written is read as it was, and written again as the same bytes."""
    if depth(value) > MAX_DEPTH:
        return
    data = canonical(value)
    assert parse(data) == value
    assert canonical(parse(data)) == data


@many
@given(value=values, indent=st.sampled_from([None, 1, "\t"]), ascii_only=st.booleans())
def test_the_layout_does_not_count(*, value: Any, indent: int | str | None, ascii_only: bool) -> None:
    """However a document is laid out or escaped, its canonical bytes are the same."""
    if depth(value) > MAX_DEPTH:
        return
    laid_out = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    assert canonical(parse(laid_out)) == canonical(value)


@many
@given(data=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)), scan=st.booleans())
@example(data=b'{"a":1}\xff', scan=True)
@example(data=b"[" * 3_000, scan=False)
def test_any_bytes_are_read_or_refused_with_one_error(*, data: bytes, scan: bool) -> None:
    """No document, however odd, raises anything but InvalidDocument; what is read has canonical bytes."""
    try:
        value = parse(data, scan_depth=scan)
    except InvalidDocument:
        return
    assert parse(canonical(value)) == value


def _odd(text: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    scalar = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), text, st.binary(max_size=3))
    return st.recursive(
        scalar, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=8
    )


@many
@given(_odd(st.text(max_size=5)))
def test_any_value_is_written_or_refused_with_one_error(value: Any) -> None:
    """No value raises anything but InvalidDocument; what is written is read back."""
    try:
        data = canonical(value)
    except InvalidDocument:
        return
    assert parse(data) == value
