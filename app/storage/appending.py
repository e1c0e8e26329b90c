"""Append one entry to the log: the only writer of ``log`` and ``log_head``. Runs under the exclusive log lock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, bindparam, insert, update

from app.service.store import Head, LogRow
from app.storage.rows import Stand
from app.storage.tables import log, log_head
from haltline.canonical import canonical
from haltline.flips import VERSION, Entry, Note, Position, parse_entry, seal

_APPEND: Final = insert(log)
_ADVANCE: Final = update(log_head).values(
    seq=bindparam("to_seq"), hash=bindparam("to_hash"), at=bindparam("to_at"), active_holds=bindparam("to_holds")
)


@dataclass(frozen=True, slots=True)
class Appended:
    """An entry that is in the log once the transaction commits."""

    row: LogRow
    members: Mapping[str, Any]
    entry: Entry


def sealed(head: Head, content: Mapping[str, Any], *, at: str) -> Appended:
    """Return ``content`` as the entry that follows ``head``.

    Args:
        head: where the log stands.
        content: ``kind``, ``actor`` and what the kind adds.
        at: RFC 3339 with six fraction digits.

    Raises:
        InvalidDocument: it would be an entry that no reader understands; such a one must never be stored, because
            every reader stops at it.
    """
    common = {"v": VERSION, "namespace": head.namespace, "epoch": head.epoch, "at": at}
    members = seal({**common, **content}, after=head.position)
    entry = parse_entry(members, namespace=head.namespace, epoch=head.epoch)
    return Appended(LogRow(entry.position, canonical(members).decode("utf-8")), members, entry)


def insert_entry(connection: Connection, appended: Appended) -> None:
    """Write the entry's row; the head is the caller's."""
    entry = appended.entry
    flip = None if isinstance(entry, Note) else entry
    connection.execute(
        _APPEND,
        {
            "seq": entry.position.seq,
            "kind": appended.members["kind"],
            "at": entry.at,
            "actor": entry.actor,
            "scope": None if flip is None else flip.target.scope.value,
            "target": None if flip is None else str(flip.target),
            "flip_id": None if flip is None else flip.flip_id,
            "body": appended.row.body,
            "hash": entry.position.hash,
        },
    )


def append(
    connection: Connection, stand: Stand, content: Mapping[str, Any], *, at: str, more_holds: int = 0
) -> Appended:
    """Append an entry and move the head.

    Args:
        connection: inside a transaction that holds the log lock.
        stand: the head row, read after the lock was granted.
        content: ``kind``, ``actor`` and what the kind adds.
        at: when; an earlier moment than the newest entry's becomes that one, so that ``at`` never goes backwards.
        more_holds: how many holds become active; negative where some are released.

    Raises:
        InvalidDocument: it would be an entry that no reader understands.
    """
    appended = sealed(stand.head, content, at=max(at, stand.at))
    insert_entry(connection, appended)
    position: Position = appended.entry.position
    connection.execute(
        _ADVANCE,
        {
            "to_seq": position.seq,
            "to_hash": position.hash,
            "to_at": appended.entry.at,
            "to_holds": stand.active_holds + more_holds,
        },
    )
    return appended
