"""One sequence of bytes for one value, and a reader that refuses everything that could mean two things."""

from __future__ import annotations

import hashlib
from types import MappingProxyType
from typing import Any, Final

import pytest

from haltline.canonical import MAX_DEPTH, MAX_INTEGER, canonical, parse
from haltline.errors import InvalidDocument
from haltline.scopes import Scope


def nested(depth: int) -> Any:
    """Return arrays nested ``depth`` deep."""
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


# -- writing ---------------------------------------------------------------------------------------------------------


def test_the_example_of_rfc_8785() -> None:
    """The string and the literals of RFC 8785 section 3.2.2 come out as section 3.2.3 prints them."""
    value = {"string": '\u20ac$\x0f\nA\'B"\\\\"/', "literals": [None, True, False]}
    assert canonical(value) == (b'{"literals":[null,true,false],"string":"\xe2\x82\xac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}')


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("\b\t\n\f\r", rb'"\b\t\n\f\r"'),
        ("\x00\x01\x07\x0b\x0e\x1f", rb'"\u0000\u0001\u0007\u000b\u000e\u001f"'),
        ('"', rb'"\""'),
        ("\\", rb'"\\"'),
        ("/", b'"/"'),
        ("\x7f", b'"\x7f"'),
        ("\x80\x85\x9f", b'"\xc2\x80\xc2\x85\xc2\x9f"'),
        ("\u2028\u2029", b'"\xe2\x80\xa8\xe2\x80\xa9"'),
        ("<script>&", b'"<script>&"'),
        ("caf\u00e9", b'"caf\xc3\xa9"'),
        ("cafe\u0301", b'"cafe\xcc\x81"'),
        ("\ufb33", b'"\xef\xac\xb3"'),
        ("\U0001f602", b'"\xf0\x9f\x98\x82"'),
        ("\uffff", b'"\xef\xbf\xbf"'),
        ("", b'""'),
    ],
    ids=ascii,
)
def test_text_is_written_as_rfc_8785_says(text: str, written: bytes) -> None:
    """Quotes, backslashes and C0 controls are escaped in the shortest way, in lower case; nothing else is."""
    assert canonical(text) == written
    assert parse(written) == text


def test_members_are_sorted_by_their_names() -> None:
    """Names are sorted by code unit: digits, upper case, underscore, lower case; at every level."""
    value = {"b": 1, "a": {"_": 1, "Z": 2, "10": 3, "9": 4, "": 5, "aa": 6}, "B": 2}
    assert canonical(value) == b'{"B":2,"a":{"":5,"10":3,"9":4,"Z":2,"_":1,"aa":6},"b":1}'


def test_the_order_of_insertion_does_not_count() -> None:
    """Equal objects have equal bytes, and arrays keep their order."""
    assert canonical({"a": 1, "b": [2, 1]}) == canonical({"b": [2, 1], "a": 1}) == b'{"a":1,"b":[2,1]}'


@pytest.mark.parametrize(
    ("number", "written"),
    [(0, b"0"), (-1, b"-1"), (MAX_INTEGER, b"9007199254740991"), (-MAX_INTEGER, b"-9007199254740991")],
)
def test_integers_are_plain_digits(number: int, written: bytes) -> None:
    """Integers up to 2^53 - 1 in size are digits and a sign."""
    assert canonical(number) == written
    assert parse(written) == number


@pytest.mark.parametrize(
    "value",
    [
        2**53,
        -(2**53),
        10**5000,
        0.5,
        1.0,
        float("nan"),
        float("inf"),
        "\ud800",
        ["a", "\ud83d"],
        {"a": "\ude02"},
        {"caf\u00e9": 1},
        {"\ud800": 1},
        {1: "a"},
        {None: 1},
        {True: 1},
        b"bytes",
        {1, 2},
        Scope.RUN,
        MappingProxyType({}),
        object(),
    ],
    ids=lambda value: f"{type(value).__name__}-{ascii(value)[:12]}" if not isinstance(value, int) else "integer",
)
def test_a_value_without_a_canonical_form_is_refused(value: object) -> None:
    """Floats, large integers, lone surrogates, odd names and everything that is not JSON are refused."""
    with pytest.raises(InvalidDocument):
        canonical(value)
    with pytest.raises(InvalidDocument):
        canonical({"a": [value]})


def test_booleans_are_not_integers() -> None:
    """True is written as true, and 1 as 1."""
    assert canonical([True, 1, False, 0, None]) == b"[true,1,false,0,null]"


def test_nesting_ends_at_eight() -> None:
    """Eight levels are written and read, nine are not."""
    deepest = nested(MAX_DEPTH)
    assert parse(canonical(deepest)) == deepest
    for value in (nested(MAX_DEPTH + 1), {"a": nested(MAX_DEPTH)}):
        with pytest.raises(InvalidDocument, match="nested"):
            canonical(value)


def test_a_value_that_holds_itself_is_refused() -> None:
    """A cycle ends at the depth bound, not in the stack."""
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidDocument, match="nested"):
        canonical(loop)


def test_the_bytes_hash_as_any_other_tool_says() -> None:
    """The SHA-256 of the canonical bytes is what `printf '{"a":1}' | sha256sum` prints."""
    digest = "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
    assert hashlib.sha256(canonical({"a": 1})).hexdigest() == digest


# -- reading ---------------------------------------------------------------------------------------------------------

REFUSED: Final = {
    "nothing": b"",
    "white space only": b" \n",
    "a word": b"yes",
    "a single quote": b"{'a':1}",
    "a comment": b"{} // end",
    "a trailing comma": b'{"a":1,}',
    "trailing garbage": b'{"a":1}x',
    "two documents": b"{}{}",
    "two lines": b"{}\n{}",
    "a NUL behind": b"{}\x00",
    "cut off": b'{"a":1',
    "cut off in a string": b'{"a":"b',
    "a member twice": b'{"a":1,"a":1}',
    "a member twice, once escaped": b'{"a":1,"\\u0061":2}',
    "a member twice further down": b'[{"b":{"a":1,"c":2,"a":3}}]',
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":Infinity}',
    "minus Infinity": b"[-Infinity]",
    "a fraction": b"[0.5]",
    "a fraction of nothing": b"[1.0]",
    "an exponent": b"[1e3]",
    "1e400": b"[1e400]",
    "minus zero as a fraction": b"[-0.0]",
    "2^53": b"[9007199254740992]",
    "minus 2^53": b"[-9007199254740992]",
    "a megabyte of digits": b"[" + b"9" * 1_000_000 + b"]",
    "5,000 digits": b'{"a":' + b"1" * 5_000 + b"}",
    "a leading zero": b"[01]",
    "a plus sign": b"[+1]",
    "a lone high surrogate": rb'["\ud800"]',
    "a lone low surrogate": rb'["\udc00"]',
    "surrogates the wrong way round": rb'["\udc00\ud800"]',
    "a lone surrogate as a name": rb'{"\ud800":1}',
    "a lone surrogate below": rb'{"a":[{"b":"x\udfffy"}]}',
    "a surrogate in raw bytes": b'["\xed\xa0\x80"]',
    "Latin-1": b'["caf\xe9"]',
    "an overlong form": b'["\xc0\xaf"]',
    "beyond Unicode": b'["\xf4\x90\x80\x80"]',
    "cut off in a character": b'["\xe2\x82',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16 with a mark": '{"a":1}'.encode("utf-16"),
    "UTF-16, little-endian": '{"a":1}'.encode("utf-16-le"),
    "UTF-16, big-endian": '{"a":1}'.encode("utf-16-be"),
    "UTF-32": '{"a":1}'.encode("utf-32"),
    "a raw newline in a string": b'["a\nb"]',
    "a raw NUL in a string": b'["a\x00b"]',
    "a raw tab in a string": b'["a\tb"]',
    "an unknown escape": rb'["\x41"]',
    "a short escape": rb'["\u12"]',
    "a no-break space": b"\xc2\xa0{}",
    "nine levels": b"[" * 9 + b"]" * 9,
    "nine levels of objects": b'{"a":' * 8 + b"[]" + b"}" * 8,
    "200,000 levels": b"[" * 200_000,
    "200,000 levels, closed": b"[" * 200_000 + b"]" * 200_000,
    "200,000 objects": b'{"a":' * 200_000,
    "brackets behind closing ones": b"]" * 200_000 + b"[" * 200_000,
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_a_document_that_could_mean_two_things_is_refused(data: bytes) -> None:
    """Whatever two readers could take differently, or that could exhaust one, is refused with one error."""
    with pytest.raises(InvalidDocument) as caught:
        parse(data)
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize("data", [b"[" * 200_000, b"[" * 200_000 + b"]" * 200_000, b'{"a":' * 200_000])
def test_deep_nesting_is_refused_without_the_scan(data: bytes) -> None:
    """Where the caller skips the scan, the parser's own bound ends in the same error."""
    with pytest.raises(InvalidDocument, match="nested"):
        parse(data, scan_depth=False)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"null", None),
        (b" \t\r\n[1 , 2]\n", [1, 2]),
        (b'{"b":1,"a":{"b":2}}', {"b": 1, "a": {"b": 2}}),
        (rb'["\u0061\/\ud83d\ude02"]', ["a/\U0001f602"]),
        (b"[-0]", [0]),
        ('["\u00e9"]'.encode(), ["\u00e9"]),
        (rb'["\u0000"]', ["\x00"]),
        (b'"' + b"[" * 5_000 + b'"', "[" * 5_000),
        (rb'["\"[[[[[[[[[[[[", "\\"]', ['"[[[[[[[[[[[[', "\\"]),
        (b"[" + b"[]," * 500 + b"[]]", [[]] * 501),
    ],
    ids=range(10),
)
def test_a_plain_document_is_read(data: bytes, value: object) -> None:
    """White space, escapes, pairs of surrogates and brackets inside strings are read as RFC 8259 says."""
    assert parse(data) == value


def test_true_is_not_read_as_a_number() -> None:
    """Booleans stay booleans, so that a type check tells them from integers."""
    assert [type(each) for each in parse(b"[true,1,null]")] == [bool, int, type(None)]
