"""Reasons: what an operator may write beside a flip, so that a log line never lies on a terminal."""

from __future__ import annotations

import re
from typing import Final

MAX_LENGTH: Final = 500
"""The longest reason, in characters."""

# Cc, Cf, Cs, Co, Zl and Zp as the Unicode character database has them (a test compares): controls move a cursor,
# format characters turn text around or hide it, line and paragraph separators start a new line in a log.
_REFUSED: Final = (
    "\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u0600-\\u0605\\u061c\\u06dd\\u070f\\u0890-\\u0891\\u08e2\\u180e"
    "\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u2064\\u2066-\\u206f\\ud800-\\uf8ff\\ufeff\\ufff9-\\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0001\U000e0020-\U000e007f\U000f0000-\U000ffffd\U00100000-\U0010fffd"
)
_SPACES: Final = "\\u0020\\u00a0\\u1680\\u2000-\\u200a\\u202f\\u205f\\u3000"

_TOLD: Final = _REFUSED.replace("\\ud800-\\uf8ff", "\\ue000-\\uf8ff")

REASON_PATTERN: Final = f"^[^{_TOLD}]*[^{_TOLD}{_SPACES}][^{_TOLD}]*$"
"""The same as an anchored pattern, for schemas in other languages.

Beyond U+FFFF it is written with characters, not escapes: escapes differ by language. Surrogates are left out: many
engines refuse to compile them, and text in UTF-8 has none.
"""

_REASON: Final = re.compile(f"[^{_REFUSED}]*[^{_REFUSED}{_SPACES}][^{_REFUSED}]*")


LINE_PATTERN: Final = f"^[^{_TOLD}]*$"
"""One line of such characters, perhaps of none, as an anchored pattern."""

_LINE: Final = re.compile(f"[^{_REFUSED}]*")


def check_line(text: str, *, shortest: int, longest: int) -> str:
    """Return ``text`` if it is one line of plain text; see :func:`check_reason`.

    Args:
        text: the candidate.
        shortest: its least length, characters.
        longest: its greatest length, characters.

    Raises:
        ValueError: it is not.
    """
    if not shortest <= len(text) <= longest:
        raise ValueError(f"this has {shortest} to {longest} characters, not {len(text)}")
    if _LINE.fullmatch(text) is None:
        raise ValueError("this is one line of plain text: no control characters, no line breaks, no hidden ones")
    return text


def check_reason(text: str) -> str:
    """Return ``text`` if it is a valid reason.

    Args:
        text: the candidate; 1 to 500 characters, not only spaces, without control characters, without characters
            that turn or hide text, and without line breaks.

    Raises:
        ValueError: it is not.
    """
    if not 1 <= len(text) <= MAX_LENGTH:
        raise ValueError(f"a reason has 1 to {MAX_LENGTH} characters, this one {len(text)}")
    if _REASON.fullmatch(text) is None:
        if not text.strip():
            raise ValueError("a reason is more than spaces: say why")
        raise ValueError(
            "a reason is one line of plain text: no control characters, no line breaks, no characters that turn or "
            "hide text"
        )
    return text
