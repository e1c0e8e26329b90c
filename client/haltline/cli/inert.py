"""Text from elsewhere, made harmless for a terminal: a reason must not move a cursor, hide or turn text around.

The service refuses such characters, and this does not rely on it: what answers may not be the service.
"""

from __future__ import annotations

import json
import unicodedata
from typing import Final

MAX_LENGTH: Final = 1_000
"""Longer texts are cut, characters: twice what the service lets a reason have."""

_HARMFUL: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_GONE: Final = "\N{REPLACEMENT CHARACTER}"


def inert(value: object) -> str:
    """Return a value as one line that a terminal only shows.

    Control characters (ESC and line breaks among them), format characters (bidi controls among them), surrogates,
    private and unassigned characters are each replaced by U+FFFD, so that their absence can be seen.
    """
    text = value if isinstance(value, str) else json.dumps(value, default=repr)
    shown = text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 3]}..."
    if shown.isascii() and shown.isprintable():
        return shown
    return "".join(_GONE if unicodedata.category(each) in _HARMFUL else each for each in shown)
