"""Stamp keys as a node gives them out: derived for a view, a new one each day, the same at every node, never shown."""

from __future__ import annotations

import json
import threading
from base64 import urlsafe_b64decode
from itertools import pairwise
from typing import Any, Final

import pytest
import structlog

from app.service.frames import View
from app.service.stamp_keys import KEPT, LIFE_S, ROTATE_S, VIEWS, StampKeys, new_secret, stamp_key
from app.service.store import LogDiverged, OutcomeUnknown, StampSecret, StoreUnavailable
from haltline.keys import StampKey, parse_keys
from tests.unit.service.fakes import ManualClocks, MemoryStore

DAY_S: Final = 86_400.0
MONTH_S: Final = 30 * DAY_S


class Counting(MemoryStore):
    """A store that counts how often secrets are read, and may be slow at it."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0
        self.gate = threading.Event()
        self.gate.set()

    def stamp_secrets(self) -> Any:
        self.looks += 1
        assert self.gate.wait(10)
        return super().stamp_secrets()


def build() -> tuple[StampKeys, Counting, ManualClocks]:
    """Return the keys of a node over fakes, a first secret in the store."""
    store, clocks = Counting(), ManualClocks()
    store.secrets = [new_secret(clocks.wall())]
    return StampKeys(store, clocks), store, clocks


def given(keys: StampKeys, view: View = None) -> tuple[StampKey, ...]:
    """Return what a client makes of the keys of a view."""
    text = keys.text(view)
    assert text is not None
    return parse_keys(json.loads(text))


def test_nothing_is_given_before_anything_was_read() -> None:
    """And reading goes on until it succeeds: at most once a second for requests, at each round of the chores after."""
    keys, store, clocks = build()
    assert keys.text(None) is None
    assert keys.age_s is None
    store.failure = StoreUnavailable("gone")
    for _ in range(5):
        keys.ensure()
    assert (store.looks, keys.text(None)) == (1, None)
    store.failure = None
    keys.ensure()
    assert keys.text(None) is None
    clocks.pass_s(1)
    keys.ensure()
    assert given(keys)
    keys.ensure()
    assert store.looks == 2


def test_a_control_lane_reads_none() -> None:
    """Where nobody asks for keys, the chores leave them alone."""
    keys, store, _ = build()
    keys.look()
    assert (store.looks, keys.text(None)) == (0, None)


def test_requests_share_the_first_read() -> None:
    """A fleet that comes at once has the secrets read once, and each of it gets keys."""
    keys, store, _ = build()
    store.gate.clear()
    threads = [threading.Thread(target=keys.ensure) for _ in range(8)]
    for thread in threads:
        thread.start()
    store.gate.set()
    for thread in threads:
        thread.join(10)
    assert store.looks == 1
    assert given(keys)


def test_the_keys_of_a_view_are_its_own() -> None:
    """No two views share a key, however their tenants are called; the same view always has the same."""
    views: list[View] = [None, (), ("null",), ("acme",), ("acme", "beta"), ("acme,beta",), ('acme","beta',), ("beta",)]
    secret = bytes(range(32))
    made = [stamp_key(secret, view) for view in views]
    assert len(set(made)) == len(views)
    assert [len(key) for key in made] == [32] * len(views)
    assert [stamp_key(secret, view) for view in views] == made
    assert stamp_key(bytes(32), None) != made[0]
    assert secret not in made


def test_every_node_gives_out_the_same() -> None:
    """From the same secrets, for each view."""
    keys, store, clocks = build()
    other = StampKeys(store, clocks)
    keys.ensure()
    other.ensure()
    for view in (None, ("acme",)):
        assert keys.text(view) == other.text(view)
    assert given(keys) != given(keys, ("acme",))
    assert [key.id for key in given(keys)] == [key.id for key in given(keys, ("acme",))]


def test_a_log_without_secrets_gets_one() -> None:
    """As one from before there were any."""
    keys, store, _ = build()
    store.secrets = []
    keys.ensure()
    assert [key.id for key in given(keys)] == [store.secrets[0].id]


def test_there_is_a_new_key_each_day() -> None:
    """Not sooner; it comes first, those of before behind it, each as it was."""
    keys, store, clocks = build()
    keys.ensure()
    first = given(keys)
    clocks.pass_s(DAY_S - 1)
    keys.look()
    assert given(keys) == first
    clocks.pass_s(1)
    keys.look()
    newest, *others = given(keys)
    assert tuple(others) == first
    assert newest.id == store.secrets[0].id
    assert newest.until - first[0].until == DAY_S
    assert keys.age_s == 0


def test_a_key_outlives_every_stamp_of_it() -> None:
    """A stamp made on a key's last day as the newest may be redeemed for 30 more; and none is given out for ever."""
    keys, store, clocks = build()
    keys.ensure()
    first = given(keys)[0]
    made_at = store.secrets[0].made_at
    assert first.until - (made_at + ROTATE_S) >= MONTH_S
    counts = []
    for _ in range(40):
        clocks.pass_s(DAY_S)
        keys.look()
        listed = given(keys)
        counts.append(len(listed))
        assert all(key.until > clocks.wall() for key in listed)
        assert all(later.until > earlier.until for later, earlier in pairwise(listed))
        assert (first in listed) == (clocks.wall() < made_at + LIFE_S)
    assert max(counts) <= KEPT
    assert len(store.secrets) <= KEPT


def test_nodes_that_rotate_at_once_agree() -> None:
    """Whose secret it is, the database says; the others take that one."""
    keys, store, clocks = build()
    nodes = [keys, *(StampKeys(store, clocks) for _ in range(3))]
    for node in nodes:
        node.ensure()
    clocks.pass_s(DAY_S)
    threads = [threading.Thread(target=node.look) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(store.secrets) == 2
    assert len({node.text(None) for node in nodes}) == 1


@pytest.mark.parametrize("failure", [StoreUnavailable("gone"), OutcomeUnknown("lost"), LogDiverged("moved")])
def test_keys_stay_while_they_cannot_be_read(failure: Exception) -> None:
    """What was given out before is given out still, and the next round mends it."""
    keys, store, clocks = build()
    keys.ensure()
    before = keys.text(None)
    clocks.pass_s(DAY_S)
    store.failure = failure
    keys.look()
    assert keys.text(None) == before
    store.failure = None
    keys.look()
    assert len(given(keys)) == 2


class ReadOnly(MemoryStore):
    """A store that takes no new secret."""

    def add_stamp_secret(self, secret: StampSecret, *, after: str | None, keep: int) -> Any:
        raise StoreUnavailable(f"no right to write {secret.id} after {after}, keeping {keep}")


def test_old_keys_are_better_than_none() -> None:
    """Where no new secret can be written, those that are there are given out."""
    store, clocks = ReadOnly(), ManualClocks()
    store.secrets = [new_secret(clocks.wall() - 2 * DAY_S)]
    keys = StampKeys(store, clocks)
    keys.ensure()
    assert [key.id for key in given(keys)] == [store.secrets[0].id]


def test_the_text_is_made_once_for_a_view() -> None:
    """Until the keys change; and for no more views than there is room for."""
    keys, _, clocks = build()
    keys.ensure()
    text = keys.text(("acme",))
    keys.look()
    assert keys.text(("acme",)) is text
    clocks.pass_s(DAY_S)
    keys.look()
    assert keys.text(("acme",)) != text
    views = [(f"t-{number}",) for number in range(VIEWS + 1)]
    texts = [keys.text(view) for view in views]
    assert keys.text(views[0]) is texts[0]
    assert keys.text(views[-1]) == texts[-1]
    assert keys.text(views[-1]) is not texts[-1]


def test_nothing_that_is_said_has_a_secret() -> None:
    """Not the journal, not a repr: neither the stored secret, nor a key of it."""
    keys, store, clocks = build()
    with structlog.testing.capture_logs() as journal:
        keys.ensure()
        clocks.pass_s(DAY_S)
        keys.look()
        clocks.pass_s(DAY_S)
        store.failure = StoreUnavailable("gone")
        keys.look()
    assert [line["event"] for line in journal] == ["stamp_secret_made", "stamp_keys_unreadable"]
    said = f"{journal} {keys!r} {store.secrets!r} {vars(keys)!r} {given(keys)!r}"
    told = json.loads(keys.text(None) or b"")
    for hidden in (
        *(each.secret for each in store.secrets),
        *(urlsafe_b64decode(each["key"] + "=") for each in told),
    ):
        assert repr(hidden) not in said
        assert hidden.hex() not in said
    assert all(each["key"] not in said for each in told)
