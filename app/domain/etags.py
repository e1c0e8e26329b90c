"""ETags: which view of a target an operator saw, so that nobody's hold is released by accident.

A target's ETag is strong and reads ``"<epoch>.<version>"``; the version is the ``seq`` of the last flip on it.
"""

from __future__ import annotations

import re
from typing import Final

TAGS_PATTERN: Final = r'^[ \t]*(W/)?"[!#-~]*"[ \t]*(,[ \t]*(W/)?"[!#-~]*"[ \t]*)*$'
"""A list of quoted ETags (RFC 9110 section 8.8.3), as an anchored pattern."""

_LIST: Final = re.compile(TAGS_PATTERN.removeprefix("^").removesuffix("$"), re.ASCII)
_TAG: Final = re.compile(r'(W/)?"([\x21\x23-\x7e]*)"', re.ASCII)
_OURS: Final = re.compile(r"([0-9a-f]{16})\.(0|[1-9][0-9]{0,15})", re.ASCII)
_MAX_LENGTH: Final = 1_000


def etag(epoch: str, version: int) -> str:
    """Return the ETag of a target, with its quotes."""
    return f'"{epoch}.{version}"'


def seen_versions(header: str, *, epoch: str) -> frozenset[int]:
    """Return the versions that an ``If-Match`` header names for this log; none for weak or foreign tags.

    Args:
        header: the header's value; the caller has dealt with ``*``.
        epoch: the log's epoch.

    Raises:
        ValueError: it is not a list of quoted ETags (RFC 9110 section 8.8.3).
    """
    if len(header) > _MAX_LENGTH or _LIST.fullmatch(header) is None:
        raise ValueError('If-Match is not a list of quoted ETags, as in "0123456789abcdef.42"')
    versions = set()
    for weak, opaque in _TAG.findall(header):
        ours = _OURS.fullmatch(opaque)
        if not weak and ours is not None and ours[1] == epoch:
            versions.add(int(ours[2]))
    return frozenset(versions)


def matches(header: str, current: str) -> bool:
    """Return whether an ``If-None-Match`` header names ``current``, by the weak comparison of RFC 9110."""
    if header.strip() == "*":
        return True
    if len(header) > _MAX_LENGTH or _LIST.fullmatch(header) is None:
        return False
    return any(f'"{opaque}"' == current for _, opaque in _TAG.findall(header))
