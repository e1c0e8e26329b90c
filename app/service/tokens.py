"""Tokens: made, revoked, and verified on every request.

What was verified is remembered for at most one lease ttl, and forgotten at once when the log says that a token was
revoked. Nothing that decides a flag is ever remembered here or anywhere else in the service.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

import structlog
from cachetools import LRUCache, TTLCache

from app.domain.access import Principal, Role, permissions
from app.domain.lanes import Lane
from app.domain.moments import moment
from app.domain.tokens import parse_token
from app.service.clocks import Clocks
from app.service.drawing import Issued, draw
from app.service.lookups import AT_ONCE, LookUps
from app.service.store import Store, StoredToken, StoreUnavailable

CACHE_SIZE: Final = 4_096

PROVEN_SIZE: Final = 65_536
"""Of how many tokens the hash of the secret is known, each newly read or proven here: some 20 MB."""

KNOWN_SIZE: Final = 4_096
"""Of how many of them it is known before anybody has shown them: those that may kill or revive."""

FLIPPERS: Final = (Role.OPERATOR, Role.RELEASER, Role.ADMIN)
"""The roles of those, the last of them on an embedded install: elsewhere it makes the tokens of the others."""

REVOKED_S: Final = 600.0
"""For how long a revoked token is remembered as such, seconds. Each look-up that began before, and each stream that was
granted on it, has ended long since; whoever asks for it again asks the database."""

_log: Final[Any] = structlog.get_logger(__name__)


class Denied(Enum):
    """Why a token opens nothing."""

    INVALID = "invalid"
    """Malformed, unknown, expired or revoked; which of them is nobody's business."""
    FOREIGN = "foreign"
    """Well formed, but of another namespace."""


@dataclass(frozen=True, slots=True)
class _Verified:
    secret_sha256: str = field(repr=False)
    principal: Principal


@dataclass(frozen=True, slots=True)
class _Refused:
    """What came of a token that the server has shown for a request, before the application is asked to serve it."""

    digest: bytes = field(repr=False)
    outcome: Denied | StoreUnavailable


_refused: ContextVar[_Refused | None] = ContextVar("haltline_refused", default=None)
"""Of the request that this thread of work serves; :meth:`Tokens.admit` takes it."""


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


class Tokens:
    """The tokens of one namespace."""

    def __init__(
        self,
        store: Store,
        clocks: Clocks,
        *,
        namespace: str,
        embedded: bool,
        ttl_ms: int,
        places: int = AT_ONCE[Lane.ALL],
        ring: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Set up an empty memory.

        Args:
            store: where tokens are kept.
            clocks: the wall clock decides expiry, the monotonic one ages the memory.
            namespace: the namespace that tokens are made for and must be of.
            embedded: whether an admin may do everything.
            ttl_ms: the lease ttl, milliseconds: how long a verification may be remembered.
            places: how many unknown tokens are looked up at once.
            ring: called with the position of each revocation after its commit, so that every node ends the token's
                streams now; must return at once.
        """
        self._ring = ring
        self._store = store
        self._clocks = clocks
        self._namespace = namespace
        self._embedded = embedded
        self._lock = threading.Lock()
        self._ttl_ms = ttl_ms
        self._verified = self._memory(ttl_ms)
        self._revoked: dict[str, float] = {}
        self._proven: LRUCache[str, str] = LRUCache(PROVEN_SIZE)
        self._look_ups = LookUps(store.token, places=places)

    def _memory(self, ttl_ms: int) -> TTLCache[str, _Verified]:
        return TTLCache(CACHE_SIZE, ttl_ms / 1000, timer=self._clocks.monotonic)

    def issue(
        self,
        *,
        subject: str,
        role: Role,
        actor: str,
        tenants: tuple[str, ...] | None = None,
        days: int | None = None,
    ) -> Issued:
        """Make a token and write the note of it.

        Args:
            subject: whom it names, an id.
            role: what it is for.
            actor: the subject who makes it.
            tenants: the tenants it is bound to; None for none.
            days: how long it lasts, 1 to 366 days; None for 90.

        Raises:
            ValueError: one of them is out of range.
            StoreUnavailable: nothing was made.
            OutcomeUnknown: it may have been made; nobody knows its secret.
        """
        issued = draw(self._clocks, namespace=self._namespace, subject=subject, role=role, tenants=tenants, days=days)
        token_id = issued.stored.token_id
        self._store.add_token(issued.stored, actor=actor)
        _log.info("token_created", token_id=token_id, subject=subject, role=role.value, actor=actor)
        return issued

    def revoke(self, token_id: str, *, actor: str) -> bool:
        """Revoke a token; return whether there was a live one of that id."""
        row = self._store.revoke_token(token_id, actor=actor, at=moment(self._clocks.wall()))
        self.forget(token_id)
        if row is None:
            return False
        self._ring(row.position.seq)
        _log.info("token_revoked", token_id=token_id, actor=actor, seq=row.position.seq)
        return True

    def listed(self, *, after: str | None, limit: int) -> Sequence[StoredToken]:
        """Return tokens, revoked ones too, whose id is greater than ``after``."""
        return self._store.tokens(after=after, limit=limit)

    def verify(self, text: str) -> Principal | Denied:
        """Return who shows a token, or why it opens nothing.

        A refusal is kept for :meth:`admit`, which comes next in the same thread of work.

        Raises:
            StoreUnavailable: it is not remembered and could not be looked up.
        """
        _refused.set(None)
        try:
            found = self._decided(text)
        except StoreUnavailable as error:
            _refused.set(_Refused(_digest(text), error))
            raise
        if isinstance(found, Denied):
            _refused.set(_Refused(_digest(text), found))
        return found

    def admit(self, text: str) -> Principal | Denied:
        """Return who makes a request; see :meth:`verify`, with which the server may have asked before.

        What was refused then is refused now without another look-up: strangers cost one a request. A token that was
        made since then is looked up with the next request.

        Raises:
            StoreUnavailable: it is not remembered and could not be looked up.
        """
        before = _refused.get()
        _refused.set(None)  # it was of this request, and is of no other
        if before is None or before.digest != _digest(text):
            return self._decided(text)
        if isinstance(before.outcome, StoreUnavailable):
            raise before.outcome
        return before.outcome

    def _decided(self, text: str) -> Principal | Denied:
        token = parse_token(text)
        if token is None:
            return Denied.INVALID
        if token.namespace != self._namespace:
            return Denied.FOREIGN
        return self._verified_as(token.id, token.secret_sha256)

    def _verified_as(self, token_id: str, shown: str) -> Principal | Denied:
        with self._lock:
            known = self._verified.get(token_id)
            proven = hmac.compare_digest(self._proven.get(token_id, ""), shown)
        found = known is None
        if known is None:
            stored = self._look_ups.find(token_id, proven=proven)
            if stored is None or stored.revoked_at is not None:
                self._unlearn(token_id)
                return Denied.INVALID
            known = _Verified(stored.secret_sha256, self._principal(stored))
        # The comparison takes as long for a wrong secret as for a right one.
        if not hmac.compare_digest(known.secret_sha256, shown):
            return Denied.INVALID
        if not self._live(known.principal):
            self._unlearn(token_id)
            return Denied.INVALID
        with self._lock:
            # A revocation that arrived while the token was being read must not be undone by remembering it now.
            if found and token_id not in self._revoked:
                self._verified.setdefault(token_id, known)
                self._proven[token_id] = shown
        return known.principal

    def learn(self) -> None:
        """Know the tokens that may kill or revive, so that none of them waits among strangers when it is first shown.

        It is the hash of a secret that is known then, and no more: the token is looked up when it is shown.

        Raises:
            StoreUnavailable: they could not be read.
        """
        roles = [role.value for role in FLIPPERS]
        newest = self._store.live_tokens(roles, at=self._clocks.wall(), limit=KNOWN_SIZE)
        with self._lock:
            for each in reversed(newest):
                if each.token_id not in self._revoked:
                    self._proven[each.token_id] = each.secret_sha256

    def _unlearn(self, token_id: str) -> None:
        with self._lock:
            self._proven.pop(token_id, None)

    def holds(self, principal: Principal) -> bool:
        """Return whether a token that was verified earlier in this request is still good.

        Asked after a lease request has waited for a read of the log: if that read brought the token's revocation, no
        lease is granted on it.

        Raises:
            StoreUnavailable: it is not remembered any more and could not be looked up.
        """
        if not self._live(principal):
            return False
        with self._lock:
            if principal.token_id in self._verified:
                return True
        stored = self._look_ups.find(principal.token_id, proven=True)
        return stored is not None and stored.revoked_at is None

    @property
    def revoked(self) -> AbstractSet[str]:
        """The ids of the tokens revoked in the last ten minutes: a live view, which needs no look-up.

        Every revocation stands in the log that this process follows. A stream lasts for less, unless :meth:`stands`
        lets another one follow it.
        """
        return self._revoked.keys()

    def stands(self, principal: Principal) -> bool:
        """Return whether a token that was good before has neither ended nor been revoked since, without a look-up.

        False also where that is not known any more: too many others were shown since.
        """
        # What is known of a token is dropped with its revocation, and nothing brings it back.
        return self._live(principal) and principal.token_id in self._proven

    def forget(self, token_id: str) -> None:
        """Remember nothing of a token but that it was revoked."""
        with self._lock:
            now = self._clocks.monotonic()
            while self._revoked and now - next(iter(self._revoked.values())) > REVOKED_S:
                del self._revoked[next(iter(self._revoked))]
            self._revoked.pop(token_id, None)  # it stands behind those before it
            self._revoked[token_id] = now
            self._verified.pop(token_id, None)
            self._proven.pop(token_id, None)
            # Nobody who asks from now on joins a look-up that may have begun before the revocation.
            self._look_ups.part_from(token_id)

    def use_ttl(self, ttl_ms: int) -> None:
        """Remember verifications for at most ``ttl_ms`` from now on: the lease ttl of the log."""
        with self._lock:
            if ttl_ms != self._ttl_ms:
                self._ttl_ms = ttl_ms
                self._verified = self._memory(ttl_ms)

    def _live(self, principal: Principal) -> bool:
        return self._clocks.wall() < principal.expires_at

    def _principal(self, stored: StoredToken) -> Principal:
        role = Role(stored.role)
        return Principal(
            token_id=stored.token_id,
            subject=stored.subject,
            role=role,
            tenants=stored.tenants,
            permissions=permissions(role, embedded=self._embedded),
            expires_at=stored.expires_at,
        )
