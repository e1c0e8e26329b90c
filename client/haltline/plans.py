"""What a process remembers of planned work: since when it has its stamp keys, and what was discarded."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from haltline.lineage import Lineage
from haltline.verdict import Refusal

if TYPE_CHECKING:
    from haltline.keys import StampKey
    from haltline.stamps import Stamp

KEPT_MAX: Final = 1_000
"""How many discarded pieces of work are remembered, the newest."""

RIPE_S: Final = 600.0
"""How long a process waits before it seals with a key that is new to it, while it has an older one, seconds.

By then every other process has it: a node gives out new keys within seconds, and each stream, which is never older than
10 s, begins with them. Until then a stamp of the new key would be called forged there.
"""


@dataclass(frozen=True, slots=True)
class Discarded:
    """Planned work that was refused for good, with what planning it anew takes.

    Attributes:
        reason: why.
        detail: the same in a sentence, with the kill where there was one.
        at: when that was found, epoch seconds.
        lineage: the run that planned it, and for whom.
        capability: the capability that it would have used.
        seq: the log position at which it was planned.
        made_at: when it was planned, epoch seconds.
        payload_hash: the hash of what was to be done, as the planner gave it, if it did.
        stamp: its stamp; None for a timer, which never had one.
        what: the function that a timer would have called; empty for a stamp.
    """

    reason: Refusal
    detail: str
    at: float
    lineage: Lineage
    capability: str | None
    seq: int
    made_at: int
    payload_hash: str | None = None
    stamp: str | None = None
    what: str = ""

    @property
    def run(self) -> str:
        """The id of the run that planned it."""
        return self.lineage.id


def discarded_of(
    stamp: Stamp, reason: Refusal, detail: str, *, at: float, text: str | None = None, what: str = ""
) -> Discarded:
    """Return the record of a discarded stamp."""
    return Discarded(
        reason,
        detail,
        at,
        stamp.lineage,
        stamp.capability,
        stamp.seq,
        stamp.made_at,
        stamp.payload_hash,
        text,
        what,
    )


class Plans:
    """What one switch in this process remembers of planned work. It takes no lock, so it survives a fork as it is."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._discarded: deque[Discarded] = deque(maxlen=KEPT_MAX)

    def key(self, keys: Sequence[StampKey], now: float) -> StampKey:
        """Return the key to seal with: the newest that others can be expected to have.

        Args:
            keys: the stamp keys of this process, the newest first; at least one.
            now: a clock that only goes on, seconds.
        """
        since = {key.id: self._since.get(key.id, now) for key in keys}
        self._since = since
        return next((key for key in keys if now - since[key.id] >= RIPE_S), keys[-1] if len(keys) == 1 else keys[1])

    def note(self, record: Discarded) -> None:
        """Remember what was discarded. It neither waits nor raises; a stamp that comes again is remembered once."""
        if record.stamp is None or all(each.stamp != record.stamp for each in tuple(self._discarded)):
            self._discarded.append(record)

    def discarded(self) -> tuple[Discarded, ...]:
        """Return what was discarded, the oldest first."""
        return tuple(self._discarded)


def say(record: Discarded) -> None:
    """Log what was discarded; not from a thread that must not wait."""
    import logging  # 5 ms that importing the client need not cost

    logging.getLogger("haltline").warning(
        "planned work was refused for good (%s): run %s, capability %s, planned at position %d%s%s: %s",
        record.reason.value,
        record.run,
        record.capability,
        record.seq,
        f", {record.what}" if record.what else "",
        f", stamp {record.stamp}" if record.stamp else "",
        record.detail,
    )
