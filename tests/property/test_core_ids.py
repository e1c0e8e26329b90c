"""Laws of the id grammar: what is accepted is kept byte for byte, and nothing else is accepted."""

from __future__ import annotations

import string
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from haltline.canonical import canonical, parse
from haltline.errors import InvalidTarget
from haltline.scopes import Scope, check_capability, check_id, check_namespace, parse_target, target
from tests.support.counts import NIGHTLY

pytestmark = pytest.mark.timeout(1_800 if NIGHTLY else 60)  # the full counts take minutes

# Written out here once more, without a pattern, so that the law does not repeat the code it judges.
FIRST: Final = frozenset(string.ascii_letters + string.digits)
REST: Final = FIRST | frozenset("._:-")

many = settings(max_examples=10_000 if NIGHTLY else 1_000)

ids = st.text(sorted(REST), min_size=1, max_size=128).filter(lambda text: text[0] in FIRST)
near = st.text(st.sampled_from([*"aZ9._:-", *"\n\r\t \x00%*/\\'\"", *"\u00e9\u0430\u212a\uff41\u200b\u202e\u0663"]))
anything = st.one_of(ids, near, st.text(), st.text(sorted(REST), max_size=200))


def within(text: str, rest: frozenset[str] = REST, longest: int = 128) -> bool:
    """Return whether a text is within the grammar."""
    return 1 <= len(text) <= longest and text[0] in rest & FIRST and set(text) <= rest


def taken(check: object, text: str) -> bool:
    """Return whether a check takes a text, and takes it as it is."""
    assert callable(check)
    try:
        assert check(text) == text
    except InvalidTarget:
        return False
    return True


@many
@given(anything)
@example("a\n")
@example("a" * 129)
@example("caf\u00e9")
def test_an_id_is_taken_as_it_is_or_refused(text: str) -> None:
    """The grammar decides alone, and what it accepts comes back unchanged."""
    lower = frozenset(string.ascii_lowercase + string.digits)
    assert taken(check_id, text) is within(text)
    assert taken(check_capability, text) is within(text, lower | frozenset("._:-"))
    assert taken(check_namespace, text) is within(text, lower | frozenset("-"), 32)


@many
@given(st.sampled_from([scope for scope in Scope if scope is not Scope.GLOBAL]), ids)
def test_a_target_goes_round_byte_for_byte(scope: Scope, identifier: str) -> None:
    """Text to target to text, through canonical JSON and back, changes nothing."""
    if scope is Scope.CAPABILITY:
        identifier = identifier.lower()
    made = target(scope, identifier)
    text = str(made)
    assert parse_target(text) == made
    assert parse(canonical({"target": text})) == {"target": text}
    assert str(parse_target(parse(canonical(text)))).encode() == f"{scope.value}:{identifier}".encode()


@many
@given(anything)
def test_a_target_is_understood_or_refused(text: str) -> None:
    """Any text is a target that is written exactly so, or is refused: nothing is repaired."""
    try:
        made = parse_target(text)
    except InvalidTarget:
        return
    assert str(made) == text


@given(ids, ids)
def test_two_ids_are_one_only_if_their_bytes_are(one: str, other: str) -> None:
    """No two different texts name the same target."""
    assert (target("run", one) == target("run", other)) is (one.encode() == other.encode())
