"""Tokens as a use case: verified, remembered for a ttl at most, forgotten at once when revoked."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from app.domain.access import Permission, Principal, Role
from app.domain.tokens import Token, parse_token
from app.service.store import StoredToken, StoreUnavailable
from app.service.tokens import Denied, Tokens
from tests.unit.service.fakes import ManualClocks, MemoryStore


def build(*, embedded: bool = True) -> tuple[Tokens, MemoryStore, ManualClocks]:
    """Return the use case over fakes."""
    store, clocks = MemoryStore(), ManualClocks()
    store.append("note", topic="log_opened")
    return Tokens(store, clocks, namespace="default", embedded=embedded, ttl_ms=1_000), store, clocks


def issue(tokens: Tokens, role: Role = Role.WORKER, days: int | None = None) -> tuple[str, str]:
    """Make a token and return its id and its text."""
    issued = tokens.issue(subject="mailer", role=role, actor="ada", days=days)
    return issued.stored.token_id, issued.text


def test_a_token_names_its_subject() -> None:
    """A token that was issued is verified as who it was issued for."""
    tokens, _, _ = build()
    _, text = issue(tokens)
    principal = tokens.verify(text)
    assert isinstance(principal, Principal)
    assert (principal.subject, principal.role) == ("mailer", Role.WORKER)
    assert principal.permissions == {Permission.LEASE}


def test_the_secret_is_stored_nowhere() -> None:
    """What the store keeps, and every repr on the way, lacks the secret."""
    tokens, store, _ = build()
    issued = tokens.issue(subject="mailer", role=Role.WORKER, actor="ada")
    token = parse_token(issued.text)
    assert token is not None
    everything = repr([issued, store.kept, [row.body for row in store.rows], tokens.verify(issued.text)])
    assert token.secret not in everything
    assert issued.text not in everything


def test_the_memory_spares_the_store() -> None:
    """Within a ttl a token is looked up once."""
    tokens, store, clocks = build()
    _, text = issue(tokens)
    for _ in range(5):
        tokens.verify(text)
        clocks.pass_s(0.1)
    assert store.reads == 1


def test_the_memory_lasts_a_ttl_at_most() -> None:
    """After a ttl a token is looked up again, however often it was used in between."""
    tokens, store, clocks = build()
    _, text = issue(tokens)
    for _ in range(11):
        tokens.verify(text)
        clocks.pass_s(0.1)
    assert store.reads == 2


def test_the_memory_follows_the_ttl_of_the_log() -> None:
    """When the log's ttl is shorter than configured, so is the memory."""
    tokens, store, clocks = build()
    tokens.use_ttl(200)
    _, text = issue(tokens)
    tokens.verify(text)
    clocks.pass_s(0.25)
    tokens.verify(text)
    assert store.reads == 2


def test_a_remembered_token_still_needs_its_secret() -> None:
    """Another secret for a remembered id opens nothing."""
    tokens, _, _ = build()
    token_id, text = issue(tokens)
    tokens.verify(text)
    assert tokens.verify(Token("default", token_id, "B" * 43).text) is Denied.INVALID


def test_revoked_here_is_revoked_now() -> None:
    """A token that this node revoked opens nothing any more, remembered or not."""
    tokens, _, _ = build()
    token_id, text = issue(tokens)
    principal = tokens.verify(text)
    assert isinstance(principal, Principal)
    assert tokens.revoke(token_id, actor="ada")
    assert tokens.verify(text) is Denied.INVALID
    assert not tokens.holds(principal)
    assert not tokens.revoke(token_id, actor="ada")


def test_revoked_elsewhere_is_forgotten_by_its_note() -> None:
    """A token that another node revoked is refused as soon as the note of it was seen."""
    tokens, store, _ = build()
    token_id, text = issue(tokens)
    principal = tokens.verify(text)
    assert isinstance(principal, Principal)
    store.revoke_token(token_id, actor="ada", at="now")
    assert tokens.holds(principal)  # remembered: this is what the note is for
    tokens.forget(token_id)
    assert not tokens.holds(principal)
    assert tokens.verify(text) is Denied.INVALID


def test_a_late_lookup_does_not_undo_a_revocation() -> None:
    """A look-up that began before the revocation and ended after it is not remembered."""
    tokens, store, _ = build()
    token_id, text = issue(tokens)
    stored = store.kept[token_id]

    class Slow(MemoryStore):
        def token(self, token_id: str) -> StoredToken:
            tokens.forget(token_id)  # the note arrives while the old row is on its way
            store.kept[token_id] = replace(stored, revoked_at="now")
            return stored

    tokens._store = Slow()  # noqa: SLF001 - the race cannot be had otherwise
    tokens.verify(text)
    tokens._store = store  # noqa: SLF001
    assert tokens.verify(text) is Denied.INVALID


class Held(MemoryStore):
    """A store whose look-ups wait until they are let go."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.gate = threading.Semaphore(0), threading.Event()

    def token(self, token_id: str) -> StoredToken | None:
        found = super().token(token_id)
        self.begun.release()
        assert self.gate.wait(10)
        self._ready()
        return found


def held() -> tuple[Tokens, Held, str, str]:
    """Return the use case over such a store, and a token's id and text."""
    store = Held()
    store.append("note", topic="log_opened")
    tokens = Tokens(store, ManualClocks(), namespace="default", embedded=True, ttl_ms=1_000)
    return tokens, store, *issue(tokens)


def joined(tokens: Tokens, callers: int) -> bool:
    """Return whether so many callers wait for a look-up that another one makes."""
    looking: list[Any] = list(tokens._looking.values())  # noqa: SLF001 - what is asked is who waits inside
    return sum(len(each._condition._waiters) for each in looking) == callers  # noqa: SLF001


@pytest.mark.parametrize("failure", [None, StoreUnavailable("gone")])
def test_a_fleet_that_shows_one_token_costs_one_look_up(failure: Exception | None) -> None:
    """Whoever asks for a token while it is being read is answered by that read, be it that it fails."""
    tokens, store, _, text = held()
    with ThreadPoolExecutor(8) as fleet:
        asked = [fleet.submit(tokens.verify, text) for _ in range(8)]
        while not joined(tokens, 7):
            time.sleep(0.001)
        store.failure = failure
        store.gate.set()
    assert store.reads == 1
    assert [each.exception() for each in asked] == [failure] * 8
    if failure is None:
        assert all(isinstance(each.result(), Principal) for each in asked)


def test_nobody_joins_a_look_up_from_before_a_revocation() -> None:
    """Who asks after a revocation is not answered by a look-up that began before it."""
    tokens, store, token_id, text = held()
    with ThreadPoolExecutor(2) as callers:
        before = callers.submit(tokens.verify, text)
        assert store.begun.acquire(timeout=10)
        assert tokens.revoke(token_id, actor="ada")
        after = callers.submit(tokens.verify, text)
        assert store.begun.acquire(timeout=10)
        store.gate.set()
        assert isinstance(before.result(), Principal)
        assert after.result() is Denied.INVALID
    assert tokens.verify(text) is Denied.INVALID


def test_expiry_is_asked_at_each_use() -> None:
    """A remembered token ends at its expiry, not when the memory does."""
    tokens, _, clocks = build()
    _, text = issue(tokens, days=1)
    clocks.pass_s(86_399.9)
    principal = tokens.verify(text)
    assert isinstance(principal, Principal)
    clocks.pass_s(0.2)
    assert tokens.verify(text) is Denied.INVALID
    assert not tokens.holds(principal)


def test_another_namespace_is_told_apart() -> None:
    """A whole token of another namespace is foreign; a broken one is merely invalid."""
    tokens, _, _ = build()
    other = Token("staging", "k3v9x0q2m7ab", "A" * 43).text
    assert tokens.verify(other) is Denied.FOREIGN
    assert tokens.verify(other[:-1] + "!") is Denied.INVALID


def test_an_unreadable_store_opens_nothing() -> None:
    """Without the store a token that is not remembered raises; it is never let through."""
    tokens, store, _ = build()
    _, text = issue(tokens)
    store.failure = StoreUnavailable("gone")
    with pytest.raises(StoreUnavailable):
        tokens.verify(text)


def test_an_admin_does_everything_only_when_embedded() -> None:
    """In production an admin makes tokens and reads; it neither kills nor revives nor works."""
    for embedded, expected in (
        (True, set(Permission)),
        (False, {Permission.READ, Permission.TOKENS, Permission.SETTINGS}),
    ):
        tokens, _, _ = build(embedded=embedded)
        _, text = issue(tokens, Role.ADMIN)
        principal = tokens.verify(text)
        assert isinstance(principal, Principal)
        assert principal.permissions == expected
