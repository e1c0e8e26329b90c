"""Text from elsewhere is made harmless before a terminal sees it."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from haltline.cli.inert import MAX_LENGTH, inert

HARMFUL = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@given(st.text(alphabet=st.characters(), max_size=50))
def test_nothing_harmful_is_left(text: str) -> None:
    """No control, format, separator, private or unassigned character is left, and nothing is silently dropped."""
    shown = inert(text)
    assert len(shown) == len(text)
    assert not any(unicodedata.category(each) in HARMFUL for each in shown)


@given(st.text(alphabet=st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=50))
def test_plain_text_is_kept(text: str) -> None:
    """What is harmless is shown as it is."""
    assert inert(text) == text


def test_length() -> None:
    """A text without end is cut."""
    assert len(inert("x" * 10 * MAX_LENGTH)) == MAX_LENGTH
    assert inert("x" * MAX_LENGTH) == "x" * MAX_LENGTH


def test_values() -> None:
    """What is not text is shown as JSON."""
    assert inert(7) == "7"
    assert inert({"a": "\x1b"}) == '{"a": "\\u001b"}'
