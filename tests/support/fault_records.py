"""What a fault proxy answers by itself: pages, redirects, and replies that it has seen go by."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final

from tests.support.fault_modes import Mode

RECORD_MAX: Final = 512 * 1024
"""How much of one reply is remembered, bytes."""

_HTML: Final = b"<html>log in to the hotel</html>"


@dataclass
class Record:
    """One reply as it went by: a first piece, and later ones with the time after it at which they came."""

    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    size: int = 0
    begun: float = 0.0

    def add(self, data: bytes) -> None:
        """Remember a piece."""
        now = time.monotonic()
        if not self.pieces:
            self.begun = now
        if self.size + len(data) <= RECORD_MAX:
            self.pieces.append((now - self.begun, data))
            self.size += len(data)


class Tape:
    """The replies to lease requests that went by, the first and the last few."""

    def __init__(self) -> None:
        self._records: list[Record] = []

    def begin(self) -> Record:
        """Return the record of a reply that begins now."""
        record = Record()
        self._records = [*self._records[:1], *self._records[1:][-3:], record]
        return record

    def first(self) -> Record:
        """Return the oldest reply that is known; an empty one if there is none."""
        return next((each for each in self._records if each.pieces), Record())

    def last(self) -> Record:
        """Return the newest reply."""
        return next((each for each in reversed(self._records) if each.pieces), Record())


def answer(mode: Mode, tape: Tape, *, url: str) -> list[tuple[float, bytes]]:
    """Return what is answered in place of the service: pieces, and how many seconds from now each leaves."""
    if mode is Mode.REDIRECT:
        head = f"HTTP/1.1 301 Moved Permanently\r\nLocation: {url}/v1/lease\r\nContent-Length: 0\r\n\r\n"
        return [(0.0, head.encode())]
    if mode is Mode.HTML:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(_HTML)}\r\n\r\n"
        return [(0.0, head.encode() + _HTML)]
    return (tape.first() if mode is Mode.REPLAY else tape.last()).pieces


def take_request(data: bytes) -> bytes | None:
    """Return what follows the first whole request in ``data``; None while it is not whole."""
    head, found, rest = data.partition(b"\r\n\r\n")
    if not found:
        return None
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            length = int(value)
    return rest[length:] if len(rest) >= length else None
