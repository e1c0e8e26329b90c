"""A long log in an SQLite database: kills and revives in turn, sealed as the service seals them, written in bulk."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from app.storage import open_store
from bench.agent import AT, EPOCH, NAMESPACE
from haltline.canonical import canonical
from haltline.flips import Position, seal

TARGETS: Final = 1_000
COLUMNS: Final = "seq, kind, at, actor, scope, target, flip_id, body, hash"


def write(path: Path, entries: int) -> Position:
    """Make a database whose log has ``entries`` entries, and return where it ends.

    Every target is killed and revived in turn, so that the log is long and what it folds to stays small. The entries
    are what the store would have written; only the waiting for the disk after each of them is left out.
    """
    store = open_store(f"sqlite:///{path}")
    try:
        first = store.open_log(namespace=NAMESPACE, ttl_ms=1_000, at=AT, epoch=EPOCH).position
    finally:
        store.close()
    rows = Rows(first)
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA synchronous = OFF")
        database.executemany(f"INSERT INTO log ({COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)", rows.until(entries))  # noqa: S608
        database.executemany("INSERT INTO targets VALUES (?,?,?,?,?)", rows.targets())
        database.executemany("INSERT INTO holds VALUES (?,?,?,?,?,?,?,?)", rows.holds())
        head = (rows.position.seq, rows.position.hash, len(rows.active))
        database.execute("UPDATE log_head SET seq = ?, hash = ?, active_holds = ?", head)
    database.close()
    return rows.position


class Rows:
    """The rows of the log, one after the other, and what they fold to.

    Attributes:
        position: the end of the log so far.
        active: per killed target, its kill.
    """

    def __init__(self, position: Position) -> None:
        self.position = position
        self.active: dict[str, dict[str, Any]] = {}
        self._last: dict[str, tuple[int, int]] = {}

    def until(self, seq: int) -> Iterator[tuple[Any, ...]]:
        """Yield rows of ``log`` up to ``seq``."""
        while self.position.seq < seq:
            yield self._row(self._entry())

    def targets(self) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of ``targets``."""
        for name, (killed, version) in self._last.items():
            yield (name, killed, AT, killed, version)

    def holds(self) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of ``holds``."""
        for name, kill in self.active.items():
            policy = (kill["in_flight"], kill["queued"])
            yield (kill["seq"], name, kill["actor"], kill["at"], kill["reason"], *policy, kill["flip_id"])

    def _entry(self) -> dict[str, Any]:
        seq = self.position.seq + 1
        name = f"run:r-{seq // 2 % TARGETS}"
        killed = self.active.pop(name, None)
        common = {"v": 1, "namespace": NAMESPACE, "epoch": EPOCH, "at": AT, "actor": "alice", "target": name}
        content: dict[str, Any] = {"kind": "kill", "in_flight": "finish", "queued": "discard"}
        if killed is not None:
            content = {"kind": "revive", "holds": [killed["seq"]]}
        told = {"flip_id": f"f-{seq:032x}", "reason": "it sends the same mail twice"}
        entry = seal({**common, **content, **told}, after=self.position)
        self.position = Position(entry["seq"], entry["hash"])
        if killed is None:
            self.active[name] = entry
            self._last[name] = (seq, seq)
        else:
            self._last[name] = (killed["seq"], seq)
        return entry

    @staticmethod
    def _row(entry: dict[str, Any]) -> tuple[Any, ...]:
        common = (entry["seq"], entry["kind"], entry["at"], entry["actor"])
        return (*common, "run", entry["target"], entry["flip_id"], canonical(entry).decode("utf-8"), entry["hash"])
