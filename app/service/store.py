"""The store port: what the service needs of a database that keeps one flip log.

One contract suite (tests/contract) runs against every implementation. A decision is a value: a refused flip is
returned, not raised; what is raised is that the store itself could not do its work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from haltline.flips import InFlight, Position, Queued
from haltline.replica import Mark, Replica
from haltline.scopes import Target
from haltline.verdict import Hold


class StoreUnavailable(Exception):
    """The store could not do its work, and it is certain that nothing was changed."""


class OutcomeUnknown(Exception):
    """The connection was lost, or time ran out, while a commit was under way: it may or may not have happened."""


class LogDiverged(Exception):
    """The database holds another log than the one this process has already read: restored, reset or edited."""


@dataclass(frozen=True, slots=True)
class Ttl:
    """The store-wide lease ttl.

    Attributes:
        ttl_ms: how long a lease lasts at most, milliseconds, 200 to 5000.
        changed_at: a moment at which its last change was in force for every read, seconds since the Unix epoch; 0.0 if
            it was never changed, infinity as long as that moment is not known.
        before_ms: for how long after that moment a lease of an earlier ttl may still run.
    """

    ttl_ms: int
    changed_at: float = 0.0
    before_ms: int = 0


@dataclass(frozen=True, slots=True)
class Head:
    """Where the log stands."""

    namespace: str
    epoch: str
    position: Position
    ttl: Ttl


@dataclass(frozen=True, slots=True)
class LogRow:
    """One stored entry: its place, and its canonical JSON exactly as it was hashed and stored."""

    position: Position
    body: str


@dataclass(frozen=True, slots=True)
class Page:
    """What one refresh reads, in one transaction.

    Attributes:
        head: where the log stands.
        rows: the entries after the position asked for, in order, at most the limit.
        last: whether ``rows`` reach the head.
    """

    head: Head
    rows: Sequence[LogRow]
    last: bool


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a node starts with, read in one transaction.

    Attributes:
        head: where the log stands.
        replica: what it folds to, up to there.
        newest: its newest entries, ascending, as many as were asked for and there are.
    """

    head: Head
    replica: Replica
    newest: Sequence[LogRow]


@dataclass(frozen=True, slots=True)
class Flag:
    """What the store knows of one target.

    Attributes:
        target: the target.
        holds: its active holds, in the order of their seq; it is killed while there is one.
        mark: what it remembers of kills; None if it was never killed.
        version: the seq of the last flip on it, 0 if none; part of its ETag.
    """

    target: Target
    holds: tuple[Hold, ...]
    mark: Mark | None
    version: int


@dataclass(frozen=True, slots=True)
class KillOrder:
    """A kill to be written.

    Attributes:
        at: RFC 3339 with six fraction digits.
        in_flight: what happens to calls that are running.
        queued: what happens to planned work.
    """

    target: Target
    reason: str
    actor: str
    flip_id: str
    at: str
    in_flight: InFlight = "abort"
    queued: Queued = "discard"


@dataclass(frozen=True, slots=True)
class ReviveOrder:
    """A revive to be written.

    Attributes:
        holds: the seq of each hold to release, ascending, at least one.
        seen_versions: the versions of the target that the caller's ``If-Match`` names for this epoch.
    """

    target: Target
    holds: tuple[int, ...]
    reason: str
    actor: str
    flip_id: str
    at: str
    seen_versions: frozenset[int]


@dataclass(frozen=True, slots=True)
class Committed:
    """A flip that is durable.

    Attributes:
        row: its entry.
        members: the same, parsed.
        flag: the target as it stands after it (for a replay: as it stands now).
        ttl: the ttl read in the same transaction.
        replayed: whether the same flip_id had been committed before.
    """

    row: LogRow
    members: Mapping[str, Any]
    flag: Flag
    ttl: Ttl
    replayed: bool


@dataclass(frozen=True, slots=True)
class FlipIdTaken:
    """The flip_id belongs to another flip; nothing was written."""

    seq: int


@dataclass(frozen=True, slots=True)
class StaleView:
    """The target was flipped since the caller saw it; nothing was written."""

    flag: Flag


@dataclass(frozen=True, slots=True)
class NoSuchHold:
    """Some of the holds are not active on the target; nothing was written."""

    missing: tuple[int, ...]
    flag: Flag


@dataclass(frozen=True, slots=True)
class StoreFull:
    """The cap on active holds is reached; nothing was written."""

    limit: int


FlipResult: TypeAlias = Committed | FlipIdTaken | StaleView | NoSuchHold | StoreFull


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which entries of the log to list; every given filter must hold.

    Attributes:
        after: in ascending order, entries with a greater seq; in descending order, with a smaller one, 0 for the head.
        order: ``asc`` or ``desc``.
        limit: 1 to 1000.
        since, until: moments, RFC 3339 with six fraction digits; since <= at < until.
    """

    after: int = 0
    order: Literal["asc", "desc"] = "asc"
    limit: int = 100
    since: str | None = None
    until: str | None = None
    scope: str | None = None
    target: str | None = None
    actor: str | None = None
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class StoredToken:
    """A token as it is kept: never its secret, only the SHA-256 of it."""

    token_id: str
    secret_sha256: str
    subject: str
    role: str
    tenants: tuple[str, ...] | None
    created_at: str
    expires_at: float
    revoked_at: str | None = None


@dataclass(frozen=True, slots=True)
class FirstToken:
    """The first token that was ever made of a role.

    Attributes:
        token: what is kept of it.
        shown_by: who showed it to somebody, as its note says; empty if that does not.
    """

    token: StoredToken
    shown_by: str


@dataclass(frozen=True, slots=True)
class StampSecret:
    """What the stamp keys of one day are derived from.

    Attributes:
        id: its random name, which its keys have as well.
        secret: 32 random bytes.
        made_at: when, seconds since the Unix epoch.
    """

    id: str
    secret: bytes = field(repr=False)
    made_at: float


@dataclass(frozen=True, slots=True)
class StoredOutcome:
    """What one run's clean-up after one flip came to, as its worker says.

    Attributes:
        run: the run's id.
        flip: the seq of the flip that ended it.
        worker: the name of the worker.
        instance: the random id of its process.
        subject: whom the token named that it was told with.
        tenants: the tenants which that token was bound to; None where it was not.
        at: when, on the worker's clock, RFC 3339 with six fraction digits.
        ended: ``cleanup`` where the clean-up ended, ``killed`` where the process was ended.
        cleanups: what each of them came to, canonical JSON.
        kept_at: when it was heard, seconds since the Unix epoch.
    """

    run: str
    flip: int
    worker: str
    instance: str
    subject: str
    tenants: tuple[str, ...] | None
    at: str
    ended: str
    cleanups: str
    kept_at: float


@dataclass(frozen=True, slots=True)
class OutcomeQuery:
    """Which outcomes to list, in the order of their flip, then of their run.

    Attributes:
        flip: those of this flip.
        run: those of this run.
        after: those that come after this flip and run.
        limit: 1 to 1000.
        view: those told with a token that was bound to some of these tenants and no other; None for all.
    """

    flip: int | None = None
    run: str | None = None
    after: tuple[int, str] | None = None
    limit: int = 100
    view: tuple[str, ...] | None = None


class Store(Protocol):
    """A database that keeps one flip log. Safe to call from several threads."""

    def open_log(
        self, *, namespace: str, ttl_ms: int, at: str, epoch: str, stamp_secret: StampSecret | None = None
    ) -> Head:
        """Return the head of the log, making the log (entry 1, note ``log_opened``) if the database has none.

        Args:
            namespace: the namespace of the log.
            ttl_ms: the lease ttl of a new log.
            at: when a new log begins.
            epoch: the random name of a new log.
            stamp_secret: the first stamp secret of a new log, kept in the same transaction; None for none yet.

        Raises:
            LogDiverged: the database holds the log of another namespace.
        """

    def head(self) -> Head:
        """Return where the log stands."""

    def refresh(self, after: Position, *, limit: int) -> Page:
        """Return the head and the entries after ``after``, read in one transaction that begins inside this call.

        Raises:
            LogDiverged: the log is shorter than ``after``, or has another hash there.
        """

    def load(self, *, remember_since: str, newest: int = 0) -> Loaded:
        """Return the fold as the tables hold it: the start of a node's replica, read in one transaction.

        Args:
            remember_since: marks of targets that are not killed and whose newest kill is older than this moment are
                left out; ``floor_seq`` is then the newest of those.
            newest: how many of the newest entries to read as well.
        """

    def kill(self, order: KillOrder) -> FlipResult:
        """Write a kill: the flip transaction. Returns Committed, FlipIdTaken or StoreFull."""

    def revive(self, order: ReviveOrder) -> FlipResult:
        """Write a revive: the flip transaction. Returns Committed, FlipIdTaken, StaleView or NoSuchHold."""

    def settings(self) -> Ttl:
        """Return the store-wide lease ttl."""

    def wall(self) -> float | None:
        """Return what time it is by the database's own clock, seconds since the Unix epoch; None if it has none."""

    def set_ttl(self, ttl_ms: int, *, actor: str, at: str, wall: Callable[[], float]) -> tuple[LogRow | None, Ttl]:
        """Change the store-wide lease ttl, and write the note ``settings_changed``.

        Args:
            ttl_ms: 200 to 5000.
            actor: who changes it.
            at: when, RFC 3339 with six fraction digits.
            wall: reads the clock, seconds since the Unix epoch: called under the log lock.

        Returns:
            the note, None where the ttl is ``ttl_ms`` already; and the ttl as it is now. Its ``changed_at`` is infinite
            where the change is durable and its moment could not be written down: call it again to have that done.
        """

    def flag(self, target: Target) -> tuple[Head, Flag]:
        """Return the head and what is known of one target (an empty flag for one never flipped), one transaction."""

    def flags(self, *, after: str | None, limit: int) -> tuple[Head, Sequence[Flag]]:
        """Return the head and the killed targets whose text is greater than ``after``, in that order."""

    def log(self, query: LogQuery) -> tuple[Head, Sequence[LogRow]]:
        """Return the head and the entries that a query names, in its order."""

    def entry(self, seq: int) -> LogRow | None:
        """Return one entry, or None."""

    def export(self, *, after: int, up_to: int, limit: int) -> Sequence[LogRow]:
        """Return one page of entries with ``after`` < seq <= ``up_to``, ascending."""

    def add_token(self, token: StoredToken, *, actor: str) -> LogRow:
        """Keep a token and write the note ``token_created``, in one transaction."""

    def add_first_token(self, token: StoredToken, *, actor: str, shown_by: str) -> FirstToken:
        """Keep a token as :meth:`add_token` does, unless there was ever one of its role: then return that.

        Of any number of callers at once, in any number of processes, one has its token kept.

        Args:
            token: the token.
            actor: who makes it.
            shown_by: who is going to show it; written into the note.
        """

    def revoke_token(self, token_id: str, *, actor: str, at: str) -> LogRow | None:
        """Revoke a token and write the note ``token_revoked``; None if there is no such live token."""

    def token(self, token_id: str) -> StoredToken | None:
        """Return one token, revoked or not, or None."""

    def tokens(self, *, after: str | None, limit: int) -> Sequence[StoredToken]:
        """Return tokens whose id is greater than ``after``, in that order."""

    def live_tokens(self, roles: Sequence[str], *, at: float, limit: int) -> Sequence[StoredToken]:
        """Return the tokens of some roles that are neither revoked nor over, the newest first.

        Args:
            roles: the roles.
            at: the moment at which they are not over, seconds since the Unix epoch.
            limit: how many at most.
        """

    def stamp_secrets(self) -> Sequence[StampSecret]:
        """Return the stamp secrets, the newest first."""

    def add_stamp_secret(self, secret: StampSecret, *, after: str | None, keep: int) -> Sequence[StampSecret]:
        """Keep a stamp secret if the newest is still the one that the caller knows; takes no log lock.

        Args:
            secret: the new one.
            after: the id of the newest that the caller knows; None if it knows none.
            keep: how many are kept; the oldest beyond that are removed.

        Returns:
            those that there are then, the newest first: ``secret`` first if it was added, else somebody else's.
        """

    def keep_outcomes(self, outcomes: Sequence[StoredOutcome]) -> int:
        """Keep outcomes, but of each run and flip the first one only; takes no log lock.

        Returns:
            how many of them were not known before.
        """

    def outcomes(self, query: OutcomeQuery) -> Sequence[StoredOutcome]:
        """Return the outcomes that a query names."""

    def forget_outcomes(self, *, before: float, limit: int) -> int:
        """Remove outcomes that were heard before a moment, ``limit`` at most, the oldest first.

        Args:
            before: seconds since the Unix epoch.
            limit: how many at most.

        Returns:
            how many were removed.
        """

    def close(self) -> None:
        """Give back every connection; later calls raise StoreUnavailable."""
