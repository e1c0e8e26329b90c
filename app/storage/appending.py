"""Append one entry to the log: the only writer of ``log`` and ``log_head``. Runs under the exclusive log lock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, Delete, Insert, Update, bindparam, insert, update

from app.service.store import Head, LogRow
from app.storage.rows import Stand
from app.storage.tables import log, log_head
from haltline.canonical import canonical
from haltline.flips import VERSION, Entry, Note, parse_entry, seal

Writing: TypeAlias = Insert | Update | Delete

_APPEND: Final = insert(log).values({column.name: bindparam(f"entry_{column.name}") for column in log.c})
_ADVANCE: Final = update(log_head).values(
    seq=bindparam("to_seq"), hash=bindparam("to_hash"), at=bindparam("to_at"), active_holds=bindparam("to_holds")
)


class Together:
    """Statements that write together; on PostgreSQL one statement, and so one round trip under the log lock.

    There they run with one snapshot, and none sees what another of them writes: each may only touch rows of its own.

    It is not psycopg's pipeline: measured on PostgreSQL 18, a session that is left idle in its transaction after a
    pipeline is not ended by idle_in_transaction_session_timeout, and a node paused there would hold the log lock for
    ever.

    Attributes:
        whole: the one statement.
    """

    def __init__(self, *statements: Writing) -> None:
        """Put them together.

        Args:
            statements: whose parameters all have names of their own, that are the name of no column.
        """
        self._each = statements
        *others, last = statements
        self.whole = last.add_cte(*(each.cte(f"part_{number}") for number, each in enumerate(others)))

    def run(self, connection: Connection, values: Mapping[str, Any]) -> None:
        """Write, with the values of all of them together."""
        for statement in (self.whole,) if connection.dialect.name == "postgresql" else self._each:
            connection.execute(statement, values)


def with_entry(*statements: Writing) -> Together:
    """Return statements together with those that append an entry and move the head; see :func:`write_entry`."""
    return Together(_APPEND, _ADVANCE, *statements)


_ALONE: Final = with_entry()


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


def _entry_values(appended: Appended) -> dict[str, Any]:
    entry = appended.entry
    flip = None if isinstance(entry, Note) else entry
    return {
        "entry_seq": entry.position.seq,
        "entry_kind": appended.members["kind"],
        "entry_at": entry.at,
        "entry_actor": entry.actor,
        "entry_scope": None if flip is None else flip.target.scope.value,
        "entry_target": None if flip is None else str(flip.target),
        "entry_flip_id": None if flip is None else flip.flip_id,
        "entry_body": appended.row.body,
        "entry_hash": entry.position.hash,
    }


def insert_entry(connection: Connection, appended: Appended) -> None:
    """Write the entry's row; the head is the caller's."""
    connection.execute(_APPEND, _entry_values(appended))


def next_entry(stand: Stand, content: Mapping[str, Any], *, at: str) -> Appended:
    """Return the entry that follows the newest one, not yet written.

    Args:
        stand: the head row, read after the lock was granted.
        content: ``kind``, ``actor`` and what the kind adds.
        at: when; an earlier moment than the newest entry's becomes that one, so that ``at`` never goes backwards.

    Raises:
        InvalidDocument: it would be an entry that no reader understands.
    """
    return sealed(stand.head, content, at=max(at, stand.at))


def write_entry(
    connection: Connection,
    together: Together,
    stand: Stand,
    appended: Appended,
    values: Mapping[str, Any],
    *,
    more_holds: int = 0,
) -> None:
    """Append an entry, move the head, and write what goes with it.

    Args:
        connection: inside a transaction that holds the log lock.
        together: what :func:`with_entry` returned.
        stand: the head row, read after the lock was granted.
        appended: what :func:`next_entry` made of it.
        values: those of the further statements.
        more_holds: how many holds become active; negative where some are released.
    """
    position = appended.entry.position
    head = {
        "to_seq": position.seq,
        "to_hash": position.hash,
        "to_at": appended.entry.at,
        "to_holds": stand.active_holds + more_holds,
    }
    together.run(connection, {**_entry_values(appended), **head, **values})


def append(connection: Connection, stand: Stand, content: Mapping[str, Any], *, at: str) -> Appended:
    """Append an entry that changes nothing beside the log, and move the head.

    Args:
        connection: inside a transaction that holds the log lock.
        stand: the head row, read after the lock was granted.
        content: ``kind``, ``actor`` and what the kind adds.
        at: when, as in :func:`next_entry`.

    Raises:
        InvalidDocument: it would be an entry that no reader understands.
    """
    appended = next_entry(stand, content, at=at)
    write_entry(connection, _ALONE, stand, appended, {})
    return appended
