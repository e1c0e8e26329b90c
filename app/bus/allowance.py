"""How much a channel may say: far more than there can be flips, far less than would keep a node busy."""

from __future__ import annotations

from typing import Final

MESSAGES: Final = 2_000
"""Messages a second. A log takes one flip at a time: there are never this many."""

BYTES: Final = 256 * 1024
"""Bytes a second."""


class Allowance:
    """Counts what comes within a second; the clock is its caller's."""

    def __init__(self, now_s: float) -> None:
        self._since_s = now_s
        self._messages = 0
        self._bytes = 0

    def exceeded(self, size: int, now_s: float) -> bool:
        """Count a message of so many bytes; return whether there were too many within the second."""
        if now_s - self._since_s >= 1.0:
            self._since_s, self._messages, self._bytes = now_s, 0, 0
        self._messages += 1
        self._bytes += size
        return self._messages > MESSAGES or self._bytes > BYTES
