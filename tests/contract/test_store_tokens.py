"""Contract of every store: tokens, and the notes about them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from app.service.store import FirstToken, Store, StoredToken, StoreUnavailable
from haltline.flips import Note, parse_entry
from tests.support.orders import AT, committed, kill_order

SHA = "0123456789abcdef" * 4


def _token(token_id: str = "abcdef012345", *, tenants: tuple[str, ...] | None = None) -> StoredToken:
    return StoredToken(token_id, SHA, "ann", "operator", tenants, AT, 1_800_000_000.25)


@pytest.mark.parametrize("tenants", [None, (), ("acme", "zeta")], ids=["unbound", "bound to none", "bound"])
def test_a_token_is_kept_as_it_is(store: Store, tenants: tuple[str, ...] | None) -> None:
    """What comes back is what was kept: a token bound to no tenant is not an unbound one."""
    token = _token(tenants=tenants)
    store.add_token(token, actor="root")
    assert store.token(token.token_id) == token


def test_a_token_is_noted_without_its_secret(store: Store) -> None:
    """The note token_created says who may what and until when, and nothing of the secret."""
    row = store.add_token(_token(tenants=("acme",)), actor="root")
    members = json.loads(row.body)
    assert parse_entry(members) == Note(row.position, members["prev_hash"], AT, "root", "token_created")
    assert {name: members[name] for name in ("token_id", "subject", "role", "tenants", "expires_at")} == {
        "token_id": "abcdef012345",
        "subject": "ann",
        "role": "operator",
        "tenants": ["acme"],
        "expires_at": "2027-01-15T08:00:00.250000Z",
    }
    assert SHA not in row.body
    assert store.head().position == row.position


def test_a_token_and_its_note_are_one_transaction(store: Store) -> None:
    """A token whose id is taken leaves neither a note nor a change."""
    store.add_token(_token(), actor="root")
    head = store.head()
    with pytest.raises(StoreUnavailable, match="nothing was changed"):
        store.add_token(_token(tenants=("acme",)), actor="root")
    assert store.head() == head
    assert store.token("abcdef012345") == _token()


def test_the_first_token_of_a_role(store: Store) -> None:
    """It is kept and noted with who shows it; later ones are not kept, and are told of it, revoked or not."""
    store.add_token(_token("000000000000"), actor="root")
    admin = replace(_token(), subject="admin", role="admin")
    first = store.add_first_token(admin, actor="admin", shown_by="host-a, 127.0.0.1:8701")
    assert first == FirstToken(admin, "host-a, 127.0.0.1:8701")
    head = store.head()
    row = store.entry(head.position.seq)
    assert row is not None
    members = json.loads(row.body)
    assert (members["topic"], members["token_id"], members["shown_by"]) == (
        "token_created",
        admin.token_id,
        first.shown_by,
    )
    assert SHA not in row.body
    later = replace(admin, token_id="111111111111")
    assert store.add_first_token(later, actor="admin", shown_by="host-b") == first
    assert store.head() == head
    assert store.token(later.token_id) is None
    store.revoke_token(admin.token_id, actor="root", at=AT)
    again = store.add_first_token(later, actor="admin", shown_by="host-b")
    assert (again.token.token_id, again.token.revoked_at, again.shown_by) == (admin.token_id, AT, first.shown_by)


def test_a_first_token_that_somebody_else_made(store: Store) -> None:
    """Who showed a token that was made by another way is not known, and is not guessed from another's note."""
    admin = replace(_token(), subject="admin", role="admin")
    store.add_token(admin, actor="root")
    store.add_first_token(replace(admin, token_id="222222222222", role="gateway"), actor="admin", shown_by="host-a")
    assert store.add_first_token(admin, actor="admin", shown_by="host-b") == FirstToken(admin, "")


def test_a_revoked_token_says_when(store: Store) -> None:
    """A revoked token stays, with the moment; the note token_revoked names it."""
    store.add_token(_token(), actor="root")
    row = store.revoke_token("abcdef012345", actor="root", at="2026-11-20T20:26:00.000000Z")
    assert row is not None
    members = json.loads(row.body)
    assert (members["kind"], members["topic"], members["actor"]) == ("note", "token_revoked", "root")
    assert (members["token_id"], members["subject"]) == ("abcdef012345", "ann")
    kept = store.token("abcdef012345")
    assert kept is not None
    assert kept.revoked_at == "2026-11-20T20:26:00.000000Z"


def test_only_a_live_token_is_revoked(store: Store) -> None:
    """Revoking an unknown or revoked token writes nothing."""
    store.add_token(_token(), actor="root")
    store.revoke_token("abcdef012345", actor="root", at=AT)
    head = store.head()
    assert store.revoke_token("abcdef012345", actor="root", at=AT) is None
    assert store.revoke_token("nobody", actor="root", at=AT) is None
    assert store.head() == head


def test_an_unknown_token_is_none(store: Store) -> None:
    """Also one whose id differs by case, or by a space at its end."""
    store.add_token(_token(), actor="root")
    assert [store.token(name) for name in ("ABCDEF012345", "abcdef012345 ", "")] == [None] * 3


def test_tokens_are_listed_in_pages(store: Store) -> None:
    """Tokens come in the order of their ids, after a cursor, revoked ones too."""
    for token_id in ("c", "a", "d", "b"):
        store.add_token(_token(token_id), actor="root")
    store.revoke_token("b", actor="root", at=AT)
    first = store.tokens(after=None, limit=3)
    assert [token.token_id for token in first] == ["a", "b", "c"]
    assert first[1].revoked_at == AT
    assert [token.token_id for token in store.tokens(after="c", limit=3)] == ["d"]


def test_live_tokens_of_some_roles(store: Store) -> None:
    """Neither revoked nor over, of the roles asked for, the newest first, so many at most."""
    for number, (token_id, role) in enumerate(
        [("a", "operator"), ("b", "worker"), ("c", "admin"), ("d", "operator"), ("e", "releaser"), ("f", "operator")]
    ):
        made = f"2026-11-20T20:26:0{number}.000000Z"
        store.add_token(replace(_token(token_id), role=role, created_at=made, expires_at=100.0 + number), actor="root")
    store.revoke_token("d", actor="root", at=AT)

    def live(*roles: str, at: float = 0.0, limit: int = 10) -> list[str]:
        return [each.token_id for each in store.live_tokens(roles, at=at, limit=limit)]

    assert live("operator", "admin", "releaser") == ["f", "e", "c", "a"]
    assert live("operator", "admin", "releaser", limit=2) == ["f", "e"]
    assert live("operator", at=100.0) == ["f"]
    assert live("gateway") == []
    assert store.live_tokens(["worker"], at=0.0, limit=1) == [store.token("b")]


def test_notes_and_flips_share_one_log(store: Store) -> None:
    """A note takes a seq, and changes no target."""
    killed = committed(store.kill(kill_order()))
    note = store.add_token(_token(), actor="root")
    assert note.position.seq == killed.row.position.seq + 1
    assert store.flag(killed.flag.target)[1] == killed.flag


def test_what_the_database_refuses_is_not_repeated(store: Store) -> None:
    """The error of a statement, its cause included, has none of the values that were to be written."""
    store.add_token(_token(), actor="root")
    with pytest.raises(StoreUnavailable) as raised:
        store.add_token(_token(), actor="root")
    assert raised.value.__cause__ is not None
    assert SHA not in f"{raised.value} {raised.value.__cause__}"
