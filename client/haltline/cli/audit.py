"""An exported log, proven line by line: chain, gaps, contents, and what the flips add up to.

Most lines are kills and revives in canonical form, exactly as the service writes them. For those one pattern says that
the bytes ARE the canonical JSON of a valid entry, so that their hash can be taken from the bytes themselves: four times
as fast as parsing and encoding them again. A line that the pattern does not accept proves nothing and goes the long
way, through :func:`haltline.flips.follow`. A test holds the two ways to the same answers.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from haltline.canonical import parse
from haltline.errors import ChainBroken, InvalidDocument
from haltline.flips import Kill, Position, Revive, follow
from haltline.scopes import ID_PATTERN, TARGET_PATTERN

MAX_LINE_BYTES: Final = 1024 * 1024
"""The longest line that is read: an entry takes less than 16 KiB."""

_ID: Final = ID_PATTERN.strip("^$")
_TARGET: Final = TARGET_PATTERN.strip("^$").replace("(", "(?:")
_HASH: Final = "[0-9a-f]{64}"
_SEQ: Final = "[1-9][0-9]{0,15}"
_AT: Final = "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[.][0-9]{6}Z"
# What stands unescaped in canonical JSON; a text with an escape in it goes the long way.
_TEXT: Final = r'[^"\\\x00-\x1f]+'

# Members in the order of their names, which is the canonical one. No other member may stand between.
_FAST: Final = re.compile(
    rf'\{{"actor":"(?P<actor>{_ID})","at":"(?P<at>{_AT})","epoch":"(?P<epoch>[0-9a-f]{{16}})","flip_id":"{_ID}",'
    rf'(?P<own>"hash":"(?P<hash>{_HASH})",)'
    rf'(?:"holds":\[(?P<holds>{_SEQ}(?:,{_SEQ})*)\],"kind":"revive",'
    rf'|"in_flight":"(?:abort|finish)","kind":"(?P<kill>kill)",)'
    rf'"namespace":"(?P<namespace>[a-z0-9][a-z0-9-]{{0,31}})","prev_hash":"(?P<prev>{_HASH})",'
    rf'(?(kill)"queued":"(?:discard|drain)",)'
    rf'"reason":"(?P<reason>{_TEXT})","seq":(?P<seq>{_SEQ}),"target":"(?P<target>{_TARGET})","v":1\}}'
)


class Held(NamedTuple):
    """A hold that is active at the end of a log."""

    seq: int
    target: str
    actor: str
    at: str
    reason: str

    def members(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return self._asdict()


class Audit:
    """What a log was proven to say so far.

    Args:
        after: the position that its first entry must continue.
        witness: a position seen elsewhere, which the log must have.
        fast: whether lines may take the short way; for the test that compares the two.

    Attributes:
        position: how far it was proven.
        namespace: the namespace of its entries; empty before the first.
        epoch: their epoch; empty before the first.
        kills: how many of them are kills.
        revives: how many of them are revives.
        active: the holds active at ``position``, by their seq; those made after ``after``.
        witnessed: whether the witness was met.
    """

    def __init__(self, *, after: Position = Position(), witness: Position | None = None, fast: bool = True) -> None:
        self.after = self.position = after
        self.namespace = self.epoch = ""
        self.kills = self.revives = 0
        self.active: dict[int, Held] = {}
        self.witness = witness
        self.witnessed = witness == after
        self._fast = fast

    @property
    def entries(self) -> int:
        """How many entries were proven."""
        return self.position.seq - self.after.seq

    def take(self, lines: Iterable[bytes]) -> None:
        """Prove that lines continue the log.

        Args:
            lines: one JSON object each, with or without a line feed at its end.

        Raises:
            ChainBroken: an entry is missing, doubled, out of order, altered, of another log, or not what the witness
                saw; or a revive names a hold that is not on its target.
        """
        for line in lines:
            if not (self._fast and self._take_fast(line)):
                self._take_slowly(line)
            if self.witness is not None and self.position.seq == self.witness.seq:
                if self.position != self.witness:
                    seq = self.position.seq
                    raise ChainBroken(f"entry {seq} is not the one that --head saw: the chain was redone", seq=seq)
                self.witnessed = True

    def end(self) -> None:
        """Prove that the log may end here.

        Raises:
            ChainBroken: it ends before the witness, or before its first entry.
        """
        if self.witness is not None and not self.witnessed:
            raise ChainBroken(
                f"the log ends at entry {self.position.seq}, but --head saw entry {self.witness.seq}: it was cut off",
                seq=self.position.seq + 1,
            )
        if self.position.seq == 0:
            raise ChainBroken("there is no entry: a log has at least the note that opened it", seq=1)

    def _take_fast(self, line: bytes) -> bool:
        """Take a line if it is plainly a kill or revive that follows; if it is not, nothing has happened."""
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            return False
        found = _FAST.match(text)
        if found is None or text[found.end() :] not in ("\n", ""):
            return False
        actor, at, epoch, _own, digest, holds, kill, namespace, prev, reason, digits, target = found.groups()
        seq = self.position.seq + 1
        if prev != self.position.hash or digits != str(seq) or namespace != self.namespace or epoch != self.epoch:
            return False
        covered = text[: found.start("own")] + text[found.end("own") : found.end()]
        if hashlib.sha256(covered.encode("utf-8")).hexdigest() != digest:
            return False
        if kill is None:
            released = [int(each) for each in holds.split(",")]
            if released != sorted(set(released)) or released[-1] >= seq:
                return False
            self._release(seq, target, released)
        else:
            self.kills += 1
            self.active[seq] = Held(seq, target, actor, at, reason)
        self.position = Position(seq, digest)
        return True

    def _take_slowly(self, line: bytes) -> None:
        expected = self.position.seq + 1
        try:
            members = parse(line)
        except InvalidDocument as error:
            raise ChainBroken(f"at position {expected}: {error}", seq=expected) from error
        if isinstance(members, dict) and members.keys() == {"seq", "hash"}:
            raise ChainBroken(
                f"entry {expected} is a stub: this was exported with a token that may not see all of the log; "
                f"export it with one that may",
                seq=expected,
            )
        (entry,) = follow([members], after=self.position)
        if self.namespace and (members["namespace"], members["epoch"]) != (self.namespace, self.epoch):
            raise ChainBroken(f"entry {expected} is of another log than the one before", seq=expected)
        self.namespace, self.epoch = members["namespace"], members["epoch"]
        if isinstance(entry, Kill):
            self.kills += 1
            self.active[expected] = Held(expected, str(entry.target), entry.actor, entry.at, entry.reason)
        elif isinstance(entry, Revive):
            self._release(expected, str(entry.target), entry.holds)
        self.position = entry.position

    def _release(self, seq: int, target: str, holds: Iterable[int]) -> None:
        for hold in holds:
            if hold <= self.after.seq:
                continue  # made before the first entry of this export
            held = self.active.get(hold)
            if held is None or held.target != target:
                raise ChainBroken(f"entry {seq} releases hold {hold}, which is not on {target}", seq=seq)
            del self.active[hold]
        self.revives += 1
