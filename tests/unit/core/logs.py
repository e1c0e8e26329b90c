"""A flip log built entry by entry, as the service seals it, for the tests of the pure core."""

from __future__ import annotations

from typing import Any, Final

from haltline.canonical import canonical
from haltline.flips import Entry, Position, follow, seal
from haltline.replica import Replica

NAMESPACE: Final = "default"
EPOCH: Final = "0123456789abcdef"


class Log:
    """A log of one namespace and epoch; its first entry is the note that it was opened."""

    def __init__(self, *, namespace: str = NAMESPACE, epoch: str = EPOCH) -> None:
        self.namespace = namespace
        self.epoch = epoch
        self.members: list[dict[str, Any]] = []
        self.note("log_opened", ttl_ms=1000)

    @property
    def head(self) -> Position:
        """Where the log ends."""
        if not self.members:
            return Position()
        return Position(self.members[-1]["seq"], self.members[-1]["hash"])

    def append(self, kind: str, **members: Any) -> int:
        """Seal one entry and return its seq."""
        after = self.head
        sealed = seal(
            {
                "v": 1,
                "namespace": self.namespace,
                "epoch": self.epoch,
                "kind": kind,
                "at": f"2026-11-20T20:25:11.{after.seq + 1:06d}Z",
                "actor": "alice",
                **members,
            },
            after=after,
        )
        self.members.append(sealed)
        return after.seq + 1

    def note(self, topic: str, **members: Any) -> int:
        """Append a note."""
        return self.append("note", topic=topic, **members)

    def kill(self, target: str, **members: Any) -> int:
        """Append a kill and return the id of its hold."""
        flip = {"flip_id": f"k-{self.head.seq + 1}", "reason": "stop it", "in_flight": "finish", "queued": "discard"}
        return self.append("kill", **{**flip, "target": target, **members})

    def revive(self, target: str, *holds: int, **members: Any) -> int:
        """Append a revive of the holds named."""
        flip = {"flip_id": f"r-{self.head.seq + 1}", "reason": "mended"}
        return self.append("revive", **{**flip, "target": target, "holds": sorted(holds), **members})

    def entries(self) -> list[Entry]:
        """Return the entries as the fold takes them, each proven to follow the one before."""
        return list(follow(self.members, after=Position()))

    def lines(self) -> list[bytes]:
        """Return the log as it is exported: one canonical entry a line."""
        return [canonical(each) for each in self.members]

    def empty(self) -> Replica:
        """Return the replica of this log before its first entry."""
        return Replica(self.namespace, self.epoch)

    def replica(self) -> Replica:
        """Return the fold of the whole log."""
        return self.empty().extend(self.entries())
