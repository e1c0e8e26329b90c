"""What a node publishes: one immutable object that says how the log stood, and when that was read.

Requests load the object once and work on it alone, so that position, flags and age always belong together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.service.store import Ttl
from haltline.flips import Entry, Kill, Position, Revive
from haltline.replica import Replica
from haltline.scopes import Target

TAIL_LENGTH: Final = 10_000
"""How many of the newest entries a node can send without a snapshot."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One entry of the tail, ready to be sent.

    Attributes:
        position: its place.
        target: what it flipped; None for a note.
        body: its canonical JSON.
        stub: the JSON of its stub.
    """

    position: Position
    target: Target | None
    body: str
    stub: str


def kept(entry: Entry, body: str) -> Kept:
    """Return an entry as the tail keeps it."""
    target = entry.target if isinstance(entry, Kill | Revive) else None
    return Kept(entry.position, target, body, stub(entry.position))


def stub(position: Position) -> str:
    """Return the JSON of an entry's stub."""
    return f'{{"seq":{position.seq},"hash":"{position.hash}"}}'


@dataclass(frozen=True, slots=True)
class Tail:
    """The newest entries. Growing one makes a new object; the old one keeps showing what it showed.

    Attributes:
        base: the position before its first entry.
        entries: a list that is only ever appended to, shared by the tails that grew from one another.
        length: how many of them belong to this tail.
    """

    base: Position
    entries: list[Kept]
    length: int

    def grown(self, more: Sequence[Kept]) -> Tail:
        """Return the tail with ``more`` behind it; only the newest tail may be grown.

        Old entries are dropped in one go when twice as many as needed have gathered.
        """
        self.entries.extend(more)
        length = self.length + len(more)
        if length < 2 * TAIL_LENGTH:
            return Tail(self.base, self.entries, length)
        newest = self.entries[-TAIL_LENGTH:]
        return Tail(self.entries[-TAIL_LENGTH - 1].position, newest, TAIL_LENGTH)

    def position(self, seq: int) -> Position | None:
        """Return the position at ``seq``, or None if it is not in the tail."""
        if seq == self.base.seq:
            return self.base
        index = seq - self.base.seq - 1
        return self.entries[index].position if 0 <= index < self.length else None

    def after(self, seq: int) -> Sequence[Kept]:
        """Return the entries after ``seq``, which is in the tail."""
        return self.entries[seq - self.base.seq : self.length]


@dataclass(frozen=True, slots=True, eq=False)
class Published:
    """How the log stood at one moment.

    Attributes:
        replica: the fold of the log.
        tail: its newest entries, up to the replica's position.
        ttl: the lease ttl, read in the same transaction.
        read_at_us: when the read of it all began: raw clock of this process, microseconds, rounded down.
    """

    replica: Replica
    tail: Tail
    ttl: Ttl
    read_at_us: int

    def age_us(self, now_us: int) -> int:
        """Return how old the read is, microseconds.

        Args:
            now_us: the raw clock, rounded up.
        """
        return now_us - self.read_at_us

    def fresh(self, now_us: int) -> bool:
        """Return whether the read is young enough to build on: not older than half a ttl."""
        return self.age_us(now_us) * 2 <= self.ttl.ttl_ms * 1000
