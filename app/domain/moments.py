"""Moments: the log's time stamps, RFC 3339 in UTC with six fraction digits, so that they sort as text."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Final

_GIVEN: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?Z", re.ASCII)

MOMENT_PATTERN: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z$"
"""What :func:`parse_moment` reads, as an anchored pattern; the date must exist as well."""


def moment(seconds: float) -> str:
    """Return a time as the log writes it.

    Args:
        seconds: seconds since the Unix epoch.
    """
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def moment_after(seconds: float) -> str:
    """Return the first moment that is not before ``seconds``: for promises, which must never come too early."""
    return moment(math.ceil(seconds * 1_000_000) / 1_000_000)


def parse_moment(text: str) -> str:
    """Return the moment that ``text`` names, with six fraction digits.

    Raises:
        ValueError: it is not RFC 3339 in UTC (a ``Z`` at its end), or there is no such day or hour.
    """
    given = _GIVEN.fullmatch(text)
    if given is None:
        raise ValueError("write a moment in UTC, as in 2026-11-20T20:25:11Z or 2026-11-20T20:25:11.123456Z")
    whole, fraction = given.groups()
    try:
        datetime.fromisoformat(f"{whole}+00:00")
    except ValueError:
        raise ValueError("there is no such day or time of day") from None
    return f"{whole}.{fraction or '':0<6}Z"
