"""Tokens as a use case: verified, remembered for a ttl at most, forgotten at once when revoked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final

import pytest

from app.domain.access import Permission, Principal, Role
from app.domain.lanes import Lane
from app.domain.tokens import Token, parse_token
from app.service.lookups import AT_ONCE, LookUps
from app.service.store import StoredToken, StoreUnavailable
from app.service.tokens import KNOWN_SIZE, REVOKED_S, Denied, Tokens
from app.storage.postgres_pools import LANES
from tests.unit.service.fakes import ManualClocks, MemoryStore

PLACES: Final = AT_ONCE[Lane.ALL]


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

    tokens._look_ups = LookUps(Slow().token)  # noqa: SLF001 - the race cannot be had otherwise
    tokens.verify(text)
    tokens._look_ups = LookUps(store.token)  # noqa: SLF001
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


def until(holds: Callable[[], bool]) -> None:
    """Wait for something that other threads do."""
    for _ in range(10_000):
        if holds():
            return
        time.sleep(0.001)
    raise AssertionError("it did not come")


def joined(tokens: Tokens, callers: int) -> bool:
    """Return whether so many callers wait for a look-up that another one makes."""
    looking: list[Any] = list(tokens._look_ups._under_way.values())  # noqa: SLF001 - what is asked is who waits inside
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


def strangers(number: int) -> list[str]:
    """Return made-up tokens."""
    return [Token("default", f"{each:012d}", "C" * 43).text for each in range(number)]


def outlasted(tokens: Tokens) -> None:
    """Forget what is remembered of every token, as the end of a ttl does."""
    tokens.use_ttl(200)
    tokens.use_ttl(1_000)


def test_strangers_have_a_few_places_and_the_proven_never_wait_for_them() -> None:
    """While made-up tokens fill every place, a token whose memory has ended is looked up at once, by anybody's id."""
    store = Held()
    store.append("note", topic="log_opened")
    store.gate.set()
    tokens = Tokens(store, ManualClocks(), namespace="default", embedded=True, ttl_ms=1_000)
    token_id, text = issue(tokens)
    assert isinstance(tokens.verify(text), Principal)
    outlasted(tokens)
    store.gate.clear()
    before = store.reads
    with ThreadPoolExecutor(PLACES + 8) as crowd:
        # One of them knows the id, and not the secret: its look-up is not what the holder has to wait for.
        wrong = crowd.submit(tokens.verify, Token("default", token_id, "B" * 43).text)
        asked = [crowd.submit(tokens.verify, each) for each in strangers(PLACES + 3)]
        try:
            until(lambda: tokens._look_ups._places.waiting == 4)  # noqa: SLF001 - nothing else says so
            assert store.reads - before == PLACES
            mine = crowd.submit(tokens.verify, text)
            until(lambda: store.reads - before == PLACES + 1)
        finally:
            store.gate.set()
        assert isinstance(mine.result(10), Principal)
        for each in (wrong, *asked):
            told = each.exception(10)
            assert told is not None or each.result() is Denied.INVALID
            assert told is None or isinstance(told, StoreUnavailable)


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.RELEASER, Role.ADMIN])
def test_who_may_flip_never_waits_for_strangers(role: Role) -> None:
    """A token that this process has never seen is looked up at once where it was learnt; with its secret only."""
    store = Held()
    store.append("note", topic="log_opened")
    made = Tokens(store, ManualClocks(), namespace="default", embedded=True, ttl_ms=1_000)
    token_id, text = issue(made, role)
    tokens = Tokens(store, ManualClocks(), namespace="default", embedded=True, ttl_ms=1_000)
    tokens.learn()
    with ThreadPoolExecutor(PLACES + 8) as crowd:
        asked = [crowd.submit(tokens.verify, each) for each in strangers(PLACES)]
        try:
            until(lambda: store.reads == PLACES)
            wrong = crowd.submit(tokens.verify, Token("default", token_id, "B" * 43).text)
            until(lambda: tokens._look_ups._places.waiting == 1)  # noqa: SLF001 - nothing else says so
            mine = crowd.submit(tokens.verify, text)
            until(lambda: store.reads == PLACES + 1)
        finally:
            store.gate.set()
        assert isinstance(mine.result(10), Principal)
        told = wrong.exception(10)
        assert isinstance(told, StoreUnavailable) if told else wrong.result() is Denied.INVALID
        assert [each.result(10) for each in asked] == [Denied.INVALID] * PLACES


def test_what_is_learnt_opens_nothing_by_itself() -> None:
    """A learnt token is looked up when it is shown: revoked meanwhile, it opens nothing, though no note has come."""
    tokens, store, clocks = build()
    token_id, text = issue(tokens, Role.OPERATOR)
    tokens.learn()
    store.kept[token_id] = replace(store.kept[token_id], revoked_at="now")
    assert tokens.verify(text) is Denied.INVALID
    assert known(tokens) == set()
    _, text = issue(tokens, Role.OPERATOR, days=1)
    tokens.learn()
    clocks.pass_s(86_401)
    assert tokens.verify(text) is Denied.INVALID
    assert known(tokens) == set(), "or its holder could flood the database with it"


def known(tokens: Tokens) -> set[str]:
    """Return the ids of the tokens that need no place."""
    return set(tokens._proven)  # noqa: SLF001 - from outside it shows under a flood only


def test_what_is_learnt_is_bounded() -> None:
    """The newest live tokens that may flip are learnt, and nobody else's; no revocation is undone by a slow read."""
    tokens, store, clocks = build()
    _, text = issue(tokens, Role.WORKER)
    assert isinstance(parse_token(text), Token)
    ended, _ = issue(tokens, Role.OPERATOR, days=1)
    clocks.pass_s(86_400)
    ids = []
    for _ in range(3):
        clocks.pass_s(1)
        ids.append(issue(tokens, Role.OPERATOR)[0])
    assert ended not in ids
    tokens.forget(ids[0])  # its note has come, and this read is of before
    tokens.learn()
    assert known(tokens) == set(ids[1:])
    for number in range(KNOWN_SIZE):
        token_id = f"{number:012d}"
        store.kept[token_id] = replace(store.kept[ids[1]], token_id=token_id, created_at="2099")
    other = Tokens(store, clocks, namespace="default", embedded=True, ttl_ms=1_000)
    other.learn()
    assert len(known(other)) == KNOWN_SIZE
    assert not known(other) & set(ids)


def test_revocations_are_not_remembered_for_ever() -> None:
    """After ten minutes an id is dropped, and the token still opens nothing: neither a request nor a stream's next."""
    tokens, _, clocks = build()
    token_id, text = issue(tokens)
    principal = tokens.verify(text)
    assert isinstance(principal, Principal)
    assert tokens.stands(principal)
    assert tokens.revoke(token_id, actor="ada")
    revoked = tokens.revoked
    assert not tokens.stands(principal)
    for number in range(1_000):
        tokens.forget(f"{number:012d}")
        assert (token_id in revoked) == (number * 10 <= REVOKED_S)
        clocks.pass_s(10)
    assert len(revoked) <= REVOKED_S / 10 + 1
    assert tokens.verify(text) is Denied.INVALID
    assert not tokens.stands(principal)
    assert not tokens.holds(principal)


def test_strangers_leave_connections_to_others() -> None:
    """Every lane has more connections for reads than strangers have places."""
    left = {lane: pools.reads - AT_ONCE[lane] for lane, pools in LANES.items()}
    assert left == {Lane.ALL: 2, Lane.CONTROL: 2, Lane.WORKER: 1}


def test_a_stranger_waits_for_a_place_and_not_for_long() -> None:
    """Who gets no place in time is told that nothing was looked up; the next one finds the places given back."""
    store = Held()
    look_ups = LookUps(store.token, places=PLACES, patience_s=0.05)
    with ThreadPoolExecutor(PLACES) as crowd:
        asked = [crowd.submit(look_ups.find, f"t{each}", proven=False) for each in range(PLACES)]
        until(lambda: store.reads == PLACES)
        with pytest.raises(StoreUnavailable, match="too many unknown tokens"):
            look_ups.find("late", proven=False)
        assert store.reads == PLACES
        store.gate.set()
        assert [each.result(10) for each in asked] == [None] * PLACES
    for number in range(2 * PLACES):
        store.failure = StoreUnavailable("gone") if number % 2 else None
        if store.failure is None:
            assert look_ups.find("late", proven=False) is None
        else:
            with pytest.raises(StoreUnavailable, match="gone"):
                look_ups.find("late", proven=False)


def test_a_stranger_costs_one_look_up_a_request() -> None:
    """What the server has found out before it asks the application, the application does not look up again."""
    tokens, store, _ = build()
    (text,) = strangers(1)
    for request in range(1, 4):
        assert tokens.verify(text) is Denied.INVALID  # the server
        assert tokens.admit(text) is Denied.INVALID  # the application
        assert store.reads == request


def test_a_failed_look_up_is_not_tried_again_for_the_same_request() -> None:
    """Where the store could not be read for the server, the application says so without another try."""
    tokens, store, _ = build()
    _, text = issue(tokens)
    store.failure = StoreUnavailable("gone")
    with pytest.raises(StoreUnavailable):
        tokens.verify(text)
    store.failure = None
    with pytest.raises(StoreUnavailable):
        tokens.admit(text)
    assert isinstance(tokens.admit(text), Principal)
    outlasted(tokens)
    store.failure = StoreUnavailable("gone")
    with pytest.raises(StoreUnavailable):
        tokens.admit(text)
    store.failure = None
    assert isinstance(tokens.admit(text), Principal)


def test_a_token_made_elsewhere_works_at_once() -> None:
    """A refusal is nobody's memory: the next request with that very token is looked up, whoever asked before."""
    tokens, store, clocks = build()
    other = Tokens(store, clocks, namespace="default", embedded=True, ttl_ms=1_000)
    _, text = issue(other)
    row = store.kept.copy()
    for ask in (tokens.admit, lambda shown: (tokens.verify(shown), tokens.admit(shown))[1]):
        store.kept.clear()
        assert ask(text) is Denied.INVALID
        store.kept.update(row)
        assert isinstance(tokens.admit(text), Principal)
        outlasted(tokens)


def test_a_refusal_is_of_one_token_and_one_thread_of_work() -> None:
    """What the server refused is not said of another token, nor to another request that is served meanwhile."""
    tokens, store, _ = build()
    _, text = issue(tokens)
    (stranger,) = strangers(1)
    assert tokens.verify(stranger) is Denied.INVALID
    with ThreadPoolExecutor(1) as elsewhere:
        assert elsewhere.submit(tokens.admit, stranger).result(10) is Denied.INVALID
        assert store.reads == 2
    assert isinstance(tokens.admit(text), Principal)
    assert tokens.admit(Token("staging", "k3v9x0q2m7ab", "A" * 43).text) is Denied.FOREIGN


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
