# ruff: noqa: ARG002 - the arguments are the port's, whatever a fake makes of them
"""Fakes behind the service's ports: clocks that stand still, and a store in memory that fails on demand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from app.domain.moments import moment
from app.domain.promises import outlasting_ms
from app.service.store import (
    Committed,
    FirstToken,
    Flag,
    FlipIdTaken,
    FlipResult,
    Head,
    KillOrder,
    Loaded,
    LogDiverged,
    LogQuery,
    LogRow,
    NoSuchHold,
    OutcomeQuery,
    Page,
    ReviveOrder,
    StaleView,
    StampSecret,
    StoredOutcome,
    StoredToken,
    Ttl,
)
from haltline.canonical import canonical
from haltline.flips import Entry, Position, parse_entry, seal
from haltline.replica import Mark, Replica
from haltline.scopes import Target, parse_target

EPOCH: Final = "0123456789abcdef"
NAMESPACE: Final = "default"


class ManualClocks:
    """Clocks that move only when they are told to."""

    def __init__(self, wall: float = 1_800_000_000.0) -> None:
        self.now_us = 1_000_000
        self._wall = wall

    def pass_us(self, microseconds: int) -> None:
        """Let time pass."""
        self.now_us += microseconds

    def pass_s(self, seconds: float) -> None:
        """Let time pass."""
        self.pass_us(round(seconds * 1_000_000))

    def wall(self) -> float:
        return self._wall + self.now_us / 1_000_000

    def monotonic(self) -> float:
        return self.now_us / 1_000_000

    def raw_us_floor(self) -> int:
        return self.now_us

    def raw_us_ceil(self) -> int:
        return self.now_us


class MemoryStore:
    """A flip log in memory.

    Attributes:
        failure: raised by every call until it is None again.
        on_read: called as each refresh begins, before it reads.
        page_limit: the most entries that one refresh hands out, whatever it was asked for.
        clock: its own clock; None for one that has none.
        reads: how many refreshes there were.
    """

    def __init__(self, *, ttl_ms: int = 1_000, epoch: str = EPOCH) -> None:
        self.rows: list[LogRow] = []
        self.replica = Replica(NAMESPACE, epoch)
        self.versions: dict[str, int] = {}
        self.flips: dict[str, Mapping[str, Any]] = {}
        self.kept: dict[str, StoredToken] = {}
        self.shown_by: dict[str, str] = {}
        self.secrets: list[StampSecret] = []
        self.told: dict[tuple[int, str], StoredOutcome] = {}
        self.ttl = Ttl(ttl_ms)
        self.epoch = epoch
        self.failure: Exception | None = None
        self.on_read: Callable[[], None] = lambda: None
        self.page_limit = 1_000_000
        self.clock: Callable[[], float | None] = lambda: None
        self.reads = 0
        self._lock = threading.RLock()

    def _ready(self) -> None:
        if self.failure is not None:
            raise self.failure

    def append(self, kind: str, /, **members: Any) -> LogRow:
        """Write an entry of any kind, be it one that this version does not know."""
        with self._lock:
            after = self.rows[-1].position if self.rows else Position()
            sealed = seal(
                {
                    "v": 1,
                    "namespace": NAMESPACE,
                    "epoch": self.epoch,
                    "kind": kind,
                    "at": moment(1_800_000_000.0),
                    "actor": "ada",
                    **members,
                },
                after=after,
            )
            row = LogRow(Position(sealed["seq"], sealed["hash"]), canonical(sealed).decode())
            self.rows.append(row)
            if kind in {"kill", "revive", "note"}:
                entry: Entry = parse_entry(sealed)
                self.replica = self.replica.extend([entry])
            return row

    def open_log(
        self, *, namespace: str, ttl_ms: int, at: str, epoch: str, stamp_secret: StampSecret | None = None
    ) -> Head:
        self._ready()
        if namespace != NAMESPACE:
            raise LogDiverged(f"the database holds namespace {NAMESPACE}")
        if not self.rows:
            self.append("note", topic="log_opened", ttl_ms=ttl_ms)
            self.secrets = [stamp_secret] if stamp_secret is not None else []
        return self.head()

    def head(self) -> Head:
        self._ready()
        position = self.rows[-1].position if self.rows else Position()
        return Head(NAMESPACE, self.epoch, position, self.ttl)

    def refresh(self, after: Position, *, limit: int) -> Page:
        self.on_read()
        self._ready()
        with self._lock:
            self.reads += 1
            if after.seq > len(self.rows) or (after.seq and self.rows[after.seq - 1].position != after):
                raise LogDiverged(f"the log does not continue position {after.seq}")
            rows = self.rows[after.seq : after.seq + min(limit, self.page_limit)]
            return Page(self.head(), rows, after.seq + len(rows) == len(self.rows))

    def load(self, *, remember_since: str, newest: int = 0) -> Loaded:
        self.on_read()
        self._ready()
        with self._lock:
            return Loaded(self.head(), self.replica, self.rows[max(len(self.rows) - newest, 0) :])

    def _flag(self, target: Target) -> Flag:
        key = str(target)
        mark: Mark | None = self.replica.marks.get(key)
        return Flag(target, self.replica.holds.get(key, ()), mark, self.versions.get(key, 0))

    def _commit(self, kind: str, target: Target, flip_id: str, **members: Any) -> FlipResult:
        self._ready()
        with self._lock:
            before = self.flips.get(flip_id)
            wanted = {"kind": kind, "target": str(target), **members}
            if before is not None:
                seq = before["seq"]
                if any(before[name] != wanted[name] for name in wanted if name != "at"):
                    return FlipIdTaken(seq)
                return Committed(self.rows[seq - 1], before, self._flag(target), self.ttl, replayed=True)
            row = self.append(kind, target=str(target), flip_id=flip_id, **members)
            self.versions[str(target)] = row.position.seq
            entry = {**wanted, "seq": row.position.seq, "hash": row.position.hash, "flip_id": flip_id}
            entry |= {"namespace": NAMESPACE, "epoch": self.epoch}
            self.flips[flip_id] = entry
            return Committed(row, entry, self._flag(target), self.ttl, replayed=False)

    def kill(self, order: KillOrder) -> FlipResult:
        return self._commit(
            "kill",
            order.target,
            order.flip_id,
            reason=order.reason,
            actor=order.actor,
            at=order.at,
            in_flight=order.in_flight,
            queued=order.queued,
        )

    def revive(self, order: ReviveOrder) -> FlipResult:
        self._ready()
        if order.flip_id not in self.flips:
            flag = self._flag(order.target)
            if flag.version not in order.seen_versions:
                return StaleView(flag)
            missing = tuple(set(order.holds) - {hold.seq for hold in flag.holds})
            if missing:
                return NoSuchHold(missing, flag)
        return self._commit(
            "revive",
            order.target,
            order.flip_id,
            holds=list(order.holds),
            reason=order.reason,
            actor=order.actor,
            at=order.at,
        )

    def settings(self) -> Ttl:
        self._ready()
        return self.ttl

    def wall(self) -> float | None:
        self._ready()
        return self.clock()

    def set_ttl(self, ttl_ms: int, *, actor: str, at: str, wall: Callable[[], float]) -> tuple[LogRow | None, Ttl]:
        self._ready()
        before = self.ttl
        if ttl_ms == before.ttl_ms:
            return None, before
        with self._lock:
            row = self.append("note", topic="settings_changed", ttl_ms=ttl_ms, before_ms=before.ttl_ms)
            now = wall()
            left = outlasting_ms(now, ttl_ms=before.ttl_ms, changed_at=before.changed_at, before_ms=before.before_ms)
            self.ttl = Ttl(ttl_ms, now, left)
        return row, self.ttl

    def flag(self, target: Target) -> tuple[Head, Flag]:
        self._ready()
        return self.head(), self._flag(target)

    def flags(self, *, after: str | None, limit: int) -> tuple[Head, Sequence[Flag]]:
        self._ready()
        keys = sorted(key for key in self.replica.holds if after is None or key > after)[:limit]
        return self.head(), [self._flag(parse_target(key)) for key in keys]

    def log(self, query: LogQuery) -> tuple[Head, Sequence[LogRow]]:
        self._ready()
        return self.head(), self.rows[query.after : query.after + query.limit]

    def entry(self, seq: int) -> LogRow | None:
        self._ready()
        return self.rows[seq - 1] if 1 <= seq <= len(self.rows) else None

    def export(self, *, after: int, up_to: int, limit: int) -> Sequence[LogRow]:
        self._ready()
        return self.rows[after : min(up_to, after + limit)]

    def add_token(self, token: StoredToken, *, actor: str) -> LogRow:
        self._ready()
        self.kept[token.token_id] = token
        return self.append("note", topic="token_created", token_id=token.token_id, role=token.role)

    def add_first_token(self, token: StoredToken, *, actor: str, shown_by: str) -> FirstToken:
        first = next((each for each in self.kept.values() if each.role == token.role), None)
        if first is None:
            self.add_token(token, actor=actor)
            self.shown_by[token.token_id] = shown_by
        kept = first or token
        return FirstToken(kept, self.shown_by.get(kept.token_id, ""))

    def revoke_token(self, token_id: str, *, actor: str, at: str) -> LogRow | None:
        self._ready()
        token = self.kept.get(token_id)
        if token is None or token.revoked_at is not None:
            return None
        self.kept[token_id] = replace(token, revoked_at=at)
        return self.append("note", topic="token_revoked", token_id=token_id)

    def token(self, token_id: str) -> StoredToken | None:
        self._ready()
        self.reads += 1
        return self.kept.get(token_id)

    def tokens(self, *, after: str | None, limit: int) -> Sequence[StoredToken]:
        self._ready()
        ids = sorted(each for each in self.kept if after is None or each > after)[:limit]
        return [self.kept[each] for each in ids]

    def live_tokens(self, roles: Sequence[str], *, at: float, limit: int) -> Sequence[StoredToken]:
        self._ready()
        live = [each for each in self.kept.values() if each.revoked_at is None and each.expires_at > at]
        newest = sorted(live, key=lambda each: each.created_at, reverse=True)
        return [each for each in newest if each.role in roles][:limit]

    def stamp_secrets(self) -> Sequence[StampSecret]:
        self._ready()
        return [*self.secrets]

    def add_stamp_secret(self, secret: StampSecret, *, after: str | None, keep: int) -> Sequence[StampSecret]:
        self._ready()
        with self._lock:
            if (self.secrets[0].id if self.secrets else None) == after:
                self.secrets = [secret, *self.secrets][:keep]
            return [*self.secrets]

    def keep_outcomes(self, outcomes: Sequence[StoredOutcome]) -> int:
        self._ready()
        with self._lock:
            before = len(self.told)
            for each in outcomes:
                self.told.setdefault((each.flip, each.run), each)
            return len(self.told) - before

    def outcomes(self, query: OutcomeQuery) -> Sequence[StoredOutcome]:
        self._ready()
        listed = [self.told[key] for key in sorted(self.told) if query.after is None or key > query.after]
        listed = [each for each in listed if query.flip in (None, each.flip) and query.run in (None, each.run)]
        if query.view is not None:
            listed = [each for each in listed if each.tenants is not None and set(each.tenants) <= set(query.view)]
        return listed[: query.limit]

    def forget_outcomes(self, *, before: float, limit: int) -> int:
        self._ready()
        old = sorted(
            (key for key in self.told if self.told[key].kept_at < before), key=lambda key: self.told[key].kept_at
        )
        for key in old[:limit]:
            del self.told[key]
        return len(old[:limit])

    def close(self) -> None:
        return
