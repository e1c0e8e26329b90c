"""Tokens, reasons, ETags and moments as text: what is accepted, and what never leaks."""

from __future__ import annotations

import json
import re
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.access import Role
from app.domain.etags import etag, matches, seen_versions
from app.domain.moments import moment, moment_after, parse_moment
from app.domain.promises import effective_at
from app.domain.reasons import REASON_PATTERN, check_reason
from app.domain.tokens import BASE62, Token, check_binding, lifetime, mask, parse_token

EPOCH = "0123456789abcdef"
TOKEN = Token("default", "k3v9x0q2m7ab", "A" * 43)


def test_token_round_trips() -> None:
    """A token's text is read back as the token it is of."""
    assert parse_token(TOKEN.text) == TOKEN
    assert len(TOKEN.text) == len("hlt_default_") + 12 + 1 + 43 + 6


@given(st.integers(0, len(TOKEN.text) - 1), st.sampled_from(BASE62))
def test_one_mistyped_character_is_found(index: int, character: str) -> None:
    """A token with one other character is no token of the same text."""
    text = TOKEN.text[:index] + character + TOKEN.text[index + 1 :]
    assert text == TOKEN.text or parse_token(text) is None


@pytest.mark.parametrize(
    "text", ["", "hlt_", TOKEN.text + " ", TOKEN.text + "\n", TOKEN.text.upper(), "x" * 10_000, TOKEN.text[:-1]]
)
def test_what_is_not_a_token(text: str) -> None:
    """Anything but the exact text is refused without an exception."""
    assert parse_token(text) is None


def test_no_secret_in_any_form_of_a_token() -> None:
    """repr, str and format of a token do not show its secret."""
    for shown in (repr(TOKEN), str(TOKEN), f"{TOKEN}", f"{[TOKEN]}"):
        assert TOKEN.secret not in shown
    assert TOKEN.secret not in TOKEN.secret_sha256


def test_mask_keeps_the_id_only() -> None:
    """A line that holds tokens loses their secrets, whole or cut short, and keeps their ids."""
    line = mask(f"a {TOKEN.text} b {TOKEN.text[:-9]} c")
    assert "AAAA" not in line
    assert line.count("hlt_default_k3v9x0q2m7ab_****") == 2


def test_lifetime_bounds() -> None:
    """A token lasts 90 days unless asked otherwise, never more than 366."""
    assert lifetime(None) == 90 * 86_400
    assert lifetime(366) == 366 * 86_400
    for days in (0, -1, 367):
        with pytest.raises(ValueError, match="1 to 366"):
            lifetime(days)


def test_binding_is_for_workers_and_operators() -> None:
    """Only worker and operator tokens are bound to tenants, and a binding is never empty."""
    assert check_binding(Role.WORKER, ("b", "a")) == ("a", "b")
    assert check_binding(Role.ADMIN, None) is None
    for role, tenants in ((Role.ADMIN, ("a",)), (Role.WORKER, ()), (Role.OPERATOR, ("a", "a")), (Role.WORKER, ("*",))):
        with pytest.raises(ValueError, match=r"."):
            check_binding(role, tenants)


def test_reasons_refuse_exactly_the_controls() -> None:
    """A character is refused if and only if Unicode calls it control, format, surrogate, private or a separator."""
    refused = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
    wrong = []
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        try:
            check_reason(f"a{character}b")
            accepted = True
        except ValueError:
            accepted = False
        category = unicodedata.category(character)
        # Cn: not assigned in this Python's Unicode, perhaps in the next one's.
        if category != "Cn" and accepted == (category in refused):
            wrong.append(hex(code))
    assert wrong == []


@pytest.mark.parametrize("text", ["", " ", "\u00a0\u2003", "x" * 501, "a\nb", "a\u202eb", "a\x00b"])
def test_bad_reasons(text: str) -> None:
    """Empty, blank, overlong and treacherous reasons are refused, by the check and by the published pattern."""
    with pytest.raises(ValueError, match="reason"):
        check_reason(text)
    assert len(text) > 500 or re.fullmatch(json.loads(json.dumps(REASON_PATTERN)), text) is None


def test_reasons_are_not_normalised() -> None:
    """A reason is kept as it was written, spaces and accents too."""
    for text in (" x ", "e\u0301", "naïve 🙂 日本", "x" * 500):
        assert check_reason(text) == text
        assert re.fullmatch(REASON_PATTERN, text)


def test_if_match_names_versions_of_this_log_only() -> None:
    """Strong tags of this epoch count; weak ones, other epochs and other texts do not."""
    header = f'"{EPOCH}.7", W/"{EPOCH}.8", "ffffffffffffffff.9", "x", "{EPOCH}.07", "{EPOCH}.0"'
    assert seen_versions(header, epoch=EPOCH) == {7, 0}


@pytest.mark.parametrize("header", ["", "x", '"', f"{EPOCH}.7", f'"{EPOCH}.7', f'"{EPOCH}.7";', '"a" "b"', '"' * 3000])
def test_malformed_if_match(header: str) -> None:
    """What is not a list of quoted ETags is refused, fast."""
    with pytest.raises(ValueError, match="If-Match"):
        seen_versions(header, epoch=EPOCH)


def test_if_none_match() -> None:
    """If-None-Match compares weakly, and nonsense matches nothing."""
    current = etag(EPOCH, 7)
    assert matches(current, current)
    assert matches(f'"a", W/{current}', current)
    assert matches("*", current)
    assert not matches("a", current)
    assert not matches(etag(EPOCH, 8), current)


def test_moments_sort_as_text() -> None:
    """Moments have six digits, and parse_moment brings others to the same form."""
    assert moment(1_800_000_000.5) == "2027-01-15T08:00:00.500000Z"
    assert parse_moment("2027-01-15T08:00:00Z") == "2027-01-15T08:00:00.000000Z"
    assert parse_moment("2027-01-15T08:00:00.12Z") == "2027-01-15T08:00:00.120000Z"
    for text in ("2027-01-15", "2027-02-30T08:00:00Z", "2027-01-15T08:00:00+00:00", "2027-01-15T25:00:00Z", "\u0662"):
        with pytest.raises(ValueError, match=r"moment|no such"):
            parse_moment(text)


@given(st.floats(1_600_000_000, 2_000_000_000))
def test_promises_never_come_early(seconds: float) -> None:
    """moment_after never names a moment before the one it stands for."""
    assert moment_after(seconds) >= moment(seconds)


def test_effective_at_covers_the_ttl_before_a_change() -> None:
    """A kill right after the ttl was shortened is effective only when the longest old lease has ended."""
    assert effective_at(100.0, ttl_ms=1_000) == 101.0
    assert effective_at(100.0, ttl_ms=200, changed_at=99.9, before_ms=5_000) == pytest.approx(104.9)
    assert effective_at(100.0, ttl_ms=2_000, changed_at=50.0, before_ms=5_000) == 102.0
    assert effective_at(100.0, ttl_ms=60_000) == 105.0
