"""A long log in a database: kills and revives, sealed as the service seals them, written in bulk."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import psycopg

from app.storage import open_store
from bench.agent import AT, EPOCH, NAMESPACE
from haltline.canonical import canonical
from haltline.flips import Position, seal

TARGETS: Final = 1_000
COLUMNS: Final = {
    "log": ("seq", "kind", "at", "actor", "scope", "target", "flip_id", "body", "hash"),
    "targets": ("target", "last_kill", "last_kill_at", "barrier", "version"),
    "holds": ("seq", "target", "actor", "at", "reason", "in_flight", "queued", "flip_id"),
}


def write(path: Path, entries: int, *, revived: bool = True) -> Position:
    """Make an SQLite database whose log has ``entries`` entries, and return where it ends.

    The entries are what the store would have written; only the waiting for the disk after each of them is left out.

    Args:
        path: the file.
        entries: how many.
        revived: whether every target is killed and revived in turn, so that the log is long and what it folds to stays
            small; otherwise each entry kills another one.
    """
    rows = Rows(_opened(f"sqlite:///{path}"), revived=revived)
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA synchronous = OFF")
        for table, values in rows.tables(entries):
            marks = ",".join("?" for _ in COLUMNS[table])
            database.executemany(f"INSERT INTO {table} ({','.join(COLUMNS[table])}) VALUES ({marks})", values)  # noqa: S608
        database.execute("UPDATE log_head SET seq = ?, hash = ?, active_holds = ?", rows.head())
    database.close()
    return rows.position


def copy(url: str, entries: int, *, revived: bool = True) -> Position:
    """Do the same in a PostgreSQL database that has the schema.

    Args:
        url: its address.
        entries: as above.
        revived: as above.
    """
    rows = Rows(_opened(url), revived=revived)
    with psycopg.connect(url, autocommit=False) as database, database.cursor() as cursor:
        for table, values in rows.tables(entries):
            with cursor.copy(f"COPY {table} ({','.join(COLUMNS[table])}) FROM STDIN".encode()) as copying:
                for row in values:
                    copying.write_row(row)
        cursor.execute("UPDATE log_head SET seq = %s, hash = %s, active_holds = %s", rows.head())
        database.commit()
        database.autocommit = True
        cursor.execute("VACUUM ANALYZE")  # as autovacuum would have by now; it is off in the server that benchmarks use
    return rows.position


def _opened(url: str) -> Position:
    store = open_store(url)
    try:
        return store.open_log(namespace=NAMESPACE, ttl_ms=1_000, at=AT, epoch=EPOCH).position
    finally:
        store.close()


class Rows:
    """The rows of the log, one after the other, and what they fold to.

    Attributes:
        position: the end of the log so far.
        active: per killed target, its kill.
    """

    def __init__(self, position: Position, *, revived: bool) -> None:
        self.position = position
        self._revived = revived
        self.active: dict[str, dict[str, Any]] = {}
        self._last: dict[str, tuple[int, int]] = {}

    def tables(self, seq: int) -> Iterator[tuple[str, Iterable[tuple[Any, ...]]]]:
        """Yield each table with its rows, the log up to ``seq`` first: the others are what it folds to."""
        yield "log", self.until(seq)
        yield "targets", self.targets()
        yield "holds", self.holds()

    def head(self) -> tuple[int, str, int]:
        """Return what the head says of the log: where it ends, and how many holds are active."""
        return self.position.seq, self.position.hash, len(self.active)

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
        name = f"run:r-{seq // 2 % TARGETS if self._revived else seq}"
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
