"""The store on SQL: every operation of the port as statements that both dialects understand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, insert, select, update

from app.service.store import (
    FirstToken,
    Flag,
    FlipResult,
    Head,
    KillOrder,
    Loaded,
    LogDiverged,
    LogQuery,
    LogRow,
    OutcomeQuery,
    OutcomeUnknown,
    Page,
    ReviveOrder,
    StampSecret,
    StoredOutcome,
    StoredToken,
    StoreUnavailable,
    Ttl,
)
from app.storage import beside, flipping, ttl
from app.storage.appending import append, insert_entry, sealed
from app.storage.clock import read_clock
from app.storage.database import Database, Done
from app.storage.first_token import find_first
from app.storage.folding import load_replica
from app.storage.rows import (
    Stand,
    bounded,
    entries_between,
    entry_at,
    entry_statement,
    find_live_tokens,
    find_stand,
    find_token,
    log_row,
    read_flag,
    read_flags,
    read_next,
    read_stand,
    token_row,
    token_values,
)
from app.storage.tables import log, log_head, tokens
from haltline.flips import Position
from haltline.scopes import Target

SELF = "haltline"
"""The actor of what the service writes by itself."""


class SqlStore:
    """The store port on a database."""

    def __init__(self, database: Database, *, max_active_holds: int) -> None:
        """Keep the log in ``database``, which has the schema of this code.

        Args:
            database: the dialect.
            max_active_holds: active holds beyond which kills of runs, and of nothing broader, are refused.
        """
        self._database = database
        self._max_active_holds = max_active_holds

    def open_log(
        self, *, namespace: str, ttl_ms: int, at: str, epoch: str, stamp_secret: StampSecret | None = None
    ) -> Head:
        """See :meth:`app.service.store.Store.open_log`."""

        def opened(stand: Stand) -> Head:
            if stand.head.namespace != namespace:
                raise LogDiverged(
                    f"the database holds the log of namespace {stand.head.namespace}, not {namespace}: "
                    f"one database is one log; name another database"
                )
            return stand.head

        # A log that is there is opened without its lock: a node starts while somebody holds it. It is the refresher's
        # connection that is there by then.
        found = self._database.glance(find_stand, use="refresh")
        if found is not None:
            return opened(found)

        def work(connection: Connection) -> Done[Head]:
            stand = find_stand(connection)
            if stand is not None:
                return Done(opened(stand), write=False)
            if connection.execute(select(func.count()).select_from(log)).scalar_one() > 0:
                raise LogDiverged("the database has entries but no head: it was edited; restore it")
            nothing = Head(namespace, epoch, Position(), Ttl(ttl_ms))
            note = {"kind": "note", "actor": SELF, "topic": "log_opened", "ttl_ms": ttl_ms}
            first = sealed(nothing, note, at=at)
            insert_entry(connection, first)
            head = Head(namespace, epoch, first.row.position, nothing.ttl)
            connection.execute(insert(log_head), _head_values(head, at))
            if stamp_secret is not None:
                beside.insert_secret(connection, stamp_secret, number=1)
            return Done(head, write=True)

        return self._database.write(work)

    def head(self) -> Head:
        """See :meth:`app.service.store.Store.head`."""
        return self._database.glance(lambda connection: read_stand(connection).head)

    def refresh(self, after: Position, *, limit: int) -> Page:
        """See :meth:`app.service.store.Store.refresh`."""
        # The entry at `after` itself is read again each time: it proves that this is still the same log.
        first = max(after.seq - 1, 0)
        head, rows = self._database.glance(lambda connection: read_next(connection, first, limit + 1), use="refresh")
        return _continued(head, rows, after, limit)

    def load(self, *, remember_since: str, newest: int = 0) -> Loaded:
        """See :meth:`app.service.store.Store.load`."""
        return self._database.read(lambda connection: load_replica(connection, remember_since, newest), unhurried=True)

    def kill(self, order: KillOrder) -> FlipResult:
        """See :meth:`app.service.store.Store.kill`."""
        limit = self._max_active_holds
        return self._database.write(lambda connection: flipping.kill(connection, order, max_active_holds=limit))

    def revive(self, order: ReviveOrder) -> FlipResult:
        """See :meth:`app.service.store.Store.revive`."""
        return self._database.write(lambda connection: flipping.revive(connection, order))

    def settings(self) -> Ttl:
        """See :meth:`app.service.store.Store.settings`."""
        return self.head().ttl

    def wall(self) -> float | None:
        """See :meth:`app.service.store.Store.wall`."""
        return self._database.glance(read_clock)

    def set_ttl(self, ttl_ms: int, *, actor: str, at: str, wall: Callable[[], float]) -> tuple[LogRow | None, Ttl]:
        """See :meth:`app.service.store.Store.set_ttl`."""
        row, changed = self._database.write(
            lambda connection: ttl.change(connection, ttl_ms, actor=actor, at=at, wall=wall)
        )
        try:
            return row, self._database.write(lambda connection: ttl.settle(connection, wall=wall))
        except (StoreUnavailable, OutcomeUnknown):
            return row, changed  # durable; until it is settled, kills promise the longer of the two ttls

    def flag(self, target: Target) -> tuple[Head, Flag]:
        """See :meth:`app.service.store.Store.flag`."""
        return self._database.read(lambda connection: (read_stand(connection).head, read_flag(connection, target)))

    def flags(self, *, after: str | None, limit: int) -> tuple[Head, Sequence[Flag]]:
        """See :meth:`app.service.store.Store.flags`."""
        return self._database.read(
            lambda connection: (read_stand(connection).head, read_flags(connection, after or "", limit))
        )

    def log(self, query: LogQuery) -> tuple[Head, Sequence[LogRow]]:
        """See :meth:`app.service.store.Store.log`."""
        down = query.order == "desc"
        statement = entry_statement().where(*_filters(query))
        statement = statement.order_by(log.c.seq.desc() if down else log.c.seq).limit(query.limit)
        return self._database.read(
            lambda connection: (
                read_stand(connection).head,
                [log_row(row) for row in connection.execute(statement)],
            )
        )

    def entry(self, seq: int) -> LogRow | None:
        """See :meth:`app.service.store.Store.entry`."""
        return self._database.glance(lambda connection: entry_at(connection, seq))

    def export(self, *, after: int, up_to: int, limit: int) -> Sequence[LogRow]:
        """See :meth:`app.service.store.Store.export`."""
        return self._database.glance(lambda connection: entries_between(connection, after, up_to, limit), use="bulk")

    def add_token(self, token: StoredToken, *, actor: str) -> LogRow:
        """See :meth:`app.service.store.Store.add_token`."""
        return self._database.write(lambda connection: Done(_keep(connection, token, actor), write=True))

    def add_first_token(self, token: StoredToken, *, actor: str, shown_by: str) -> FirstToken:
        """See :meth:`app.service.store.Store.add_first_token`."""

        def find(connection: Connection) -> FirstToken | None:
            return find_first(connection, token.role, actor)

        # Nearly every start finds one, and does without the lock.
        found = self._database.glance(find, use="refresh")
        if found is not None:
            return found

        def work(connection: Connection) -> Done[FirstToken]:
            first = find(connection)
            if first is not None:
                return Done(first, write=False)
            _keep(connection, token, actor, shown_by=shown_by)
            return Done(FirstToken(token, shown_by), write=True)

        return self._database.write(work)

    def revoke_token(self, token_id: str, *, actor: str, at: str) -> LogRow | None:
        """See :meth:`app.service.store.Store.revoke_token`."""

        def work(connection: Connection) -> Done[LogRow | None]:
            token = find_token(connection, token_id)
            if token is None or token.revoked_at is not None:
                return Done(None, write=False)
            connection.execute(update(tokens).where(tokens.c.token_id == token_id).values(revoked_at=at))
            note = _token_note("token_revoked", token, actor)
            return Done(append(connection, read_stand(connection), note, at=at).row, write=True)

        return self._database.write(work)

    def token(self, token_id: str) -> StoredToken | None:
        """See :meth:`app.service.store.Store.token`."""
        return self._database.glance(lambda connection: find_token(connection, token_id))

    def tokens(self, *, after: str | None, limit: int) -> Sequence[StoredToken]:
        """See :meth:`app.service.store.Store.tokens`."""
        page = select(tokens).where(tokens.c.token_id > (after or "")).order_by(tokens.c.token_id).limit(limit)
        return self._database.glance(lambda connection: [token_row(row) for row in connection.execute(page)])

    def live_tokens(self, roles: Sequence[str], *, at: float, limit: int) -> Sequence[StoredToken]:
        """See :meth:`app.service.store.Store.live_tokens`."""
        # Nobody waits for it: not with the connections of those who do.
        return self._database.glance(lambda connection: find_live_tokens(connection, roles, at, limit), use="bulk")

    def stamp_secrets(self) -> Sequence[StampSecret]:
        """See :meth:`app.service.store.Store.stamp_secrets`."""
        return self._database.glance(beside.read_secrets)

    def add_stamp_secret(self, secret: StampSecret, *, after: str | None, keep: int) -> Sequence[StampSecret]:
        """See :meth:`app.service.store.Store.add_stamp_secret`."""
        return self._database.write_beside(
            lambda connection: beside.add_secret(connection, secret, after=after, keep=keep)
        )

    def keep_outcomes(self, outcomes: Sequence[StoredOutcome]) -> int:
        """See :meth:`app.service.store.Store.keep_outcomes`."""
        return self._database.write_beside(lambda connection: beside.keep_outcomes(connection, outcomes))

    def outcomes(self, query: OutcomeQuery) -> Sequence[StoredOutcome]:
        """See :meth:`app.service.store.Store.outcomes`."""
        return self._database.read(lambda connection: beside.read_outcomes(connection, query))

    def forget_outcomes(self, *, before: float, limit: int) -> int:
        """See :meth:`app.service.store.Store.forget_outcomes`."""
        return self._database.write_beside(
            lambda connection: beside.forget_outcomes(connection, before=before, limit=limit)
        )

    def close(self) -> None:
        """See :meth:`app.service.store.Store.close`."""
        self._database.close()


def _head_values(head: Head, at: str) -> dict[str, Any]:
    return {
        "id": 1,
        "namespace": head.namespace,
        "epoch": head.epoch,
        "seq": head.position.seq,
        "hash": head.position.hash,
        "at": at,
        "active_holds": 0,
        "ttl_ms": head.ttl.ttl_ms,
        "ttl_changed_at": head.ttl.changed_at,
        "ttl_before_ms": head.ttl.before_ms,
    }


def _keep(connection: Connection, token: StoredToken, actor: str, **more: str) -> LogRow:
    """Keep a token and write its note, with more members; under the log lock."""
    note = _token_note("token_created", token, actor) | {"role": token.role} | more
    # A fraction of a second has no canonical JSON: the moment is written as text, like every other.
    note["expires_at"] = datetime.fromtimestamp(token.expires_at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if token.tenants is not None:
        note["tenants"] = list(token.tenants)
    connection.execute(insert(tokens), token_values(token))
    return append(connection, read_stand(connection), note, at=token.created_at).row


def _token_note(topic: str, token: StoredToken, actor: str) -> dict[str, Any]:
    return {"kind": "note", "actor": actor, "topic": topic, "token_id": token.token_id, "subject": token.subject}


def _continued(head: Head, rows: list[LogRow], after: Position, limit: int) -> Page:
    """Return the page after ``after``, proving that it is of the log that ``after`` was read from."""
    if after.seq > head.position.seq:
        raise LogDiverged(f"the log ends at {head.position.seq}, but this process has read it up to {after.seq}")
    if after.seq > 0:
        if not rows or rows[0].position != after:
            raise LogDiverged(f"entry {after.seq} is not the one that this process has read: another log, or edited")
        rows = rows[1:]
    rows = rows[:limit]
    reached = rows[-1].position if rows else after
    expected = min(after.seq + limit, head.position.seq)
    if reached.seq != expected or len(rows) != expected - after.seq:
        raise LogDiverged(f"entries are missing between {after.seq} and {expected}: the log was truncated or edited")
    last = reached.seq == head.position.seq
    if last and reached != head.position:
        raise LogDiverged(f"entry {reached.seq} is not the one that the head names: the log was edited")
    return Page(head, rows, last)


def _filters(query: LogQuery) -> list[ColumnElement[bool]]:
    exact = (
        (log.c.scope, query.scope),
        (log.c.target, query.target),
        (log.c.actor, query.actor),
        (log.c.kind, query.kind),
    )
    filters: list[ColumnElement[bool]] = [column == value for column, value in exact if value is not None]
    if query.order == "asc":
        filters.append(log.c.seq > bounded(query.after))
    elif query.after > 0:
        filters.append(log.c.seq < bounded(query.after))
    # `at` never goes backwards along the log, so a time is a position: found by index, and no long log is scanned.
    if query.since is not None:
        filters.append(log.c.seq >= _first_at(query.since))
    if query.until is not None:
        filters.append(log.c.seq < _first_at(query.until))
    return filters


def _first_at(moment: str) -> ColumnElement[int]:
    """Return the position of the first entry at or after a moment, or the one after the head."""
    first = select(log.c.seq).where(log.c.at >= moment).order_by(log.c.at, log.c.seq).limit(1).scalar_subquery()
    beyond = select(func.max(log.c.seq) + 1).scalar_subquery()
    return func.coalesce(first, beyond)
