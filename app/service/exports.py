"""Exports: the log as JSON lines, page by page, in constant memory, up to a head that is fixed at the start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from app.service.frames import View
from app.service.places import Places
from app.service.store import LogDiverged, LogRow, Store
from app.service.views import shown
from haltline.flips import GENESIS_HASH, Position

PAGE: Final = 2_000
"""How many entries are read at a time."""


@dataclass(frozen=True, slots=True)
class Range:
    """What an export covers.

    Attributes:
        after: the position before its first entry.
        end: the position of its last entry.
    """

    after: int
    end: Position


class Exports:
    """Makes exports.

    Attributes:
        places: how many may run at once.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.places: Final = Places()

    def range(self, *, first: int, last: int | None) -> Range:
        """Return what an export from ``first`` to ``last`` covers; it ends at the head where ``last`` lies beyond.

        Args:
            first: the seq of the first entry, 1 or more.
            last: the seq of the last one; None for the head of the log as it is now.
        """
        end = self._store.head().position
        if last is not None and last < end.seq:
            row = self._store.entry(last) if last > 0 else None
            end = row.position if row is not None else Position(0, GENESIS_HASH)
        return Range(first - 1, end)

    def lines(self, span: Range, view: View) -> Iterator[bytes]:
        """Yield the entries of a range as JSON lines, some 64 KiB at a time.

        Raises:
            LogDiverged: entries are missing: the caller must not let the output end as if it were whole.
            StoreUnavailable: a page could not be read.
        """
        after = span.after
        while after < span.end.seq:
            rows = self._store.export(after=after, up_to=span.end.seq, limit=PAGE)
            if not rows:
                raise LogDiverged(f"the log has no entry {after + 1}, though its head is {span.end.seq}")
            gathered: list[str] = []
            size = 0
            for row in rows:
                self._check(row, after + 1, span)
                after = row.position.seq
                line = shown(row, view)
                gathered.append(line)
                size += len(line)
                if size >= 65_536:
                    yield _bytes(gathered)
                    gathered, size = [], 0
            if gathered:
                yield _bytes(gathered)

    @staticmethod
    def _check(row: LogRow, expected: int, span: Range) -> None:
        seq = row.position.seq
        if seq != expected or (seq == span.end.seq and row.position != span.end):
            raise LogDiverged(f"entry {expected} of the log should come next, but it is {seq}, or was changed")


def _bytes(lines: list[str]) -> bytes:
    lines.append("")
    return "\n".join(lines).encode("utf-8")
