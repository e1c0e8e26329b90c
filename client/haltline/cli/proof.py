"""The proof of a log that comes entry by entry: each one follows the one before, across every connection."""

from __future__ import annotations

from typing import Any, Final

from haltline.canonical import parse
from haltline.cli.sse import Event
from haltline.errors import ChainBroken, InvalidDocument
from haltline.flips import Position, follow, parse_stub

STUB: Final = "stub"
"""What an event is called that tells no more of an entry than its place."""


class Proof:
    """What was proven so far.

    Attributes:
        position: how far; None before the first connection has said where it begins.
    """

    def __init__(self) -> None:
        self.position: Position | None = None
        self._log: tuple[object, object] | None = None

    @property
    def expected(self) -> int:
        """The seq of the entry that comes next; 1 before anything is known."""
        return self.position.seq + 1 if self.position is not None else 1

    def begin(self, position: Position) -> None:
        """Take note that a connection says that it goes on behind ``position``.

        Raises:
            ChainBroken: that is not where the one before ended.
        """
        known = self.position
        if known is not None and position != known:
            other = "another entry" if position.seq == known.seq else f"entry {position.seq}"
            raise ChainBroken(
                f"the log goes on behind {other}, not behind the entry {known.seq} seen", seq=known.seq + 1
            )
        self.position = position

    def take(self, event: Event) -> dict[str, Any]:
        """Return the members of the entry, or of the stub, that an event tells of, proven to come next.

        Raises:
            ChainBroken: it is missing, doubled, out of order, altered, or of another log.
        """
        seq = self.expected
        if self.position is None:
            raise ChainBroken("an entry came before it was said what it follows", seq=seq)
        try:
            members = parse((event.data or "").encode("utf-8"))
            if not isinstance(members, dict):
                raise ChainBroken(f"at position {seq}: what came is no entry", seq=seq)
            if event.name == STUB:
                reached = parse_stub(members).position
                if reached.seq != seq:
                    raise ChainBroken(f"entry {seq} should come next, but it is {reached.seq}", seq=seq)
            else:
                (entry,) = follow([members], after=self.position)
                reached = entry.position
                self._same_log(members, seq)
        except InvalidDocument as error:
            raise ChainBroken(f"at position {seq}: {error}", seq=seq) from error
        if event.id != seq or event.name != members.get("kind", STUB):
            raise ChainBroken(f"entry {seq} was announced as {event.name or 'nothing'} {event.id}", seq=seq)
        self.position = reached
        return members

    def _same_log(self, members: dict[str, Any], seq: int) -> None:
        log = (members["namespace"], members["epoch"])
        if self._log is not None and log != self._log:
            raise ChainBroken(f"entry {seq} is of another log than the one before", seq=seq)
        self._log = log
