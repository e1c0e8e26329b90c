"""Tokens: made, revoked, and verified on every request.

What was verified is remembered for at most one lease ttl, and forgotten at once when the log says that a token was
revoked. Nothing that decides a flag is ever remembered here or anywhere else in the service.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

import structlog
from cachetools import TTLCache

from app.domain.access import Principal, Role, permissions
from app.domain.moments import moment
from app.domain.tokens import (
    BASE62,
    ID_ALPHABET,
    ID_LENGTH,
    SECRET_LENGTH,
    Token,
    check_binding,
    lifetime,
    parse_token,
)
from app.service.clocks import Clocks
from app.service.store import Store, StoredToken, StoreUnavailable
from haltline.scopes import check_id

CACHE_SIZE: Final = 4_096

_log: Final[Any] = structlog.get_logger(__name__)


class Denied(Enum):
    """Why a token opens nothing."""

    INVALID = "invalid"
    """Malformed, unknown, expired or revoked; which of them is nobody's business."""
    FOREIGN = "foreign"
    """Well formed, but of another namespace."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A token that was just made.

    Attributes:
        text: the token itself; it is shown once and kept nowhere.
        stored: what is kept of it.
    """

    text: str = field(repr=False)
    stored: StoredToken


@dataclass(frozen=True, slots=True)
class _Verified:
    secret_sha256: str = field(repr=False)
    principal: Principal


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
        ring: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Set up an empty memory.

        Args:
            store: where tokens are kept.
            clocks: the wall clock decides expiry, the monotonic one ages the memory.
            namespace: the namespace that tokens are made for and must be of.
            embedded: whether an admin may do everything.
            ttl_ms: the lease ttl, milliseconds: how long a verification may be remembered.
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
        self._evictions = 0
        self._revoked: set[str] = set()
        self._looking: dict[str, Future[StoredToken | None]] = {}

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
        bound = check_binding(role, tenants)
        ends = self._clocks.wall() + lifetime(days)
        token = Token(
            self._namespace,
            "".join(secrets.choice(ID_ALPHABET) for _ in range(ID_LENGTH)),
            "".join(secrets.choice(BASE62) for _ in range(SECRET_LENGTH)),
        )
        stored = StoredToken(
            token_id=token.id,
            secret_sha256=token.secret_sha256,
            subject=check_id(subject, "subject"),
            role=role.value,
            tenants=bound,
            created_at=moment(self._clocks.wall()),
            expires_at=ends,
        )
        self._store.add_token(stored, actor=actor)
        _log.info("token_created", token_id=token.id, subject=subject, role=role.value, actor=actor)
        return Issued(token.text, stored)

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

        Raises:
            StoreUnavailable: it is not remembered and could not be looked up.
        """
        token = parse_token(text)
        if token is None:
            return Denied.INVALID
        if token.namespace != self._namespace:
            return Denied.FOREIGN
        shown = token.secret_sha256
        with self._lock:
            known = self._verified.get(token.id)
            evictions = self._evictions
        found = known is None
        if known is None:
            stored = self._look_up(token.id)
            if stored is None or stored.revoked_at is not None:
                return Denied.INVALID
            known = _Verified(stored.secret_sha256, self._principal(stored))
        # The comparison takes as long for a wrong secret as for a right one.
        if not hmac.compare_digest(known.secret_sha256, shown) or not self._live(known.principal):
            return Denied.INVALID
        with self._lock:
            # A revocation that arrived while the token was being read must not be undone by remembering it now.
            if found and evictions == self._evictions:
                self._verified.setdefault(token.id, known)
        return known.principal

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
        stored = self._look_up(principal.token_id)
        return stored is not None and stored.revoked_at is None

    @property
    def revoked(self) -> AbstractSet[str]:
        """The ids of the tokens revoked in the life of this process: a live view, which needs no look-up.

        Every revocation stands in the log that this process follows.
        """
        return self._revoked

    def stands(self, principal: Principal) -> bool:
        """Return whether a token that was good before has neither ended nor been revoked since, without a look-up."""
        return self._live(principal) and principal.token_id not in self._revoked

    def forget(self, token_id: str) -> None:
        """Remember nothing of a token but that it was revoked."""
        with self._lock:
            self._revoked.add(token_id)
            self._evictions += 1
            self._verified.pop(token_id, None)
            # Nobody who asks from now on joins a look-up that may have begun before the revocation.
            self._looking.pop(token_id, None)

    def use_ttl(self, ttl_ms: int) -> None:
        """Remember verifications for at most ``ttl_ms`` from now on: the lease ttl of the log."""
        with self._lock:
            if ttl_ms != self._ttl_ms:
                self._ttl_ms = ttl_ms
                self._verified = self._memory(ttl_ms)

    def _look_up(self, token_id: str) -> StoredToken | None:
        """Return what is kept of a token; whoever asks while it is being read waits for that one read.

        A whole fleet may show one token: each time its memory ends, all of them would ask the database at once.
        """
        with self._lock:
            under_way = self._looking.get(token_id)
            mine: Future[StoredToken | None] = Future()
            if under_way is None:
                self._looking[token_id] = mine
        if under_way is not None:
            return under_way.result()
        try:
            stored = self._store.token(token_id)
        except Exception as error:
            mine.set_exception(error)
            raise
        else:
            mine.set_result(stored)
            return stored
        finally:
            with self._lock:
                if self._looking.get(token_id) is mine:
                    del self._looking[token_id]
            if not mine.done():  # this very thread of work was ended; those who wait are told so
                mine.set_exception(StoreUnavailable("a look-up was broken off"))

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
