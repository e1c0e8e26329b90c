"""Contract of every store: what is kept beside the log, which no flip waits for: stamp secrets and outcomes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from alembic import command
from sqlalchemy.exc import DBAPIError

from app.service.store import OutcomeQuery, StampSecret, Store, StoredOutcome, StoredToken
from app.storage import migrate
from haltline.errors import InvalidEntry
from tests.support.orders import AT, committed, kill_order
from tests.support.places import EPOCH, NAMESPACE, OPENED_AT, Place

NOW = 1_800_000_000.0


def secret(number: int, *, name: str = "s") -> StampSecret:
    """Return a secret that no other number has."""
    return StampSecret(f"{name}{number:07}", bytes([number]) * 32, NOW + number)


def outcome(run: str = "r-1", flip: int = 2, **changes: Any) -> StoredOutcome:
    """Return an outcome."""
    made = StoredOutcome(run, flip, "mailer", "i-1", "the-worker", None, AT, "cleanup", "[]", NOW)
    return replace(made, **changes)


def opened(place: Place, **more: Any) -> Store:
    """Return a store whose log is begun with a stamp secret."""
    store = place.open()
    store.open_log(namespace=NAMESPACE, ttl_ms=1000, at=OPENED_AT, epoch=EPOCH, **more)
    return store


def test_a_new_log_has_its_first_secret(place: Place) -> None:
    """It is kept with the log, and one that a later opening brings is not."""
    with closing(opened(place, stamp_secret=secret(1))) as store:
        assert store.stamp_secrets() == [secret(1)]
    with closing(opened(place, stamp_secret=secret(2))) as store:
        assert store.stamp_secrets() == [secret(1)]


def test_a_log_that_is_not_made_has_no_secret(place: Place) -> None:
    """Secret and log are one transaction: where the log was refused, nothing is kept."""
    with closing(place.open()) as store:
        with pytest.raises(InvalidEntry):
            store.open_log(namespace="\x00", ttl_ms=1000, at=OPENED_AT, epoch=EPOCH, stamp_secret=secret(1))
        assert store.stamp_secrets() == []


def test_secrets_follow_one_another(store: Store) -> None:
    """Each is added after the newest that the caller knows, and listed newest first."""
    assert store.stamp_secrets() == []
    assert store.add_stamp_secret(secret(1), after=None, keep=9) == [secret(1)]
    assert store.add_stamp_secret(secret(2), after=secret(1).id, keep=9) == [secret(2), secret(1)]
    assert store.stamp_secrets() == [secret(2), secret(1)]


def test_a_secret_after_another_than_the_newest_is_not_added(store: Store) -> None:
    """Who comes second is told what is there."""
    store.add_stamp_secret(secret(1), after=None, keep=9)
    for stale in (None, "unknown"):
        assert store.add_stamp_secret(secret(7), after=stale, keep=9) == [secret(1)]
    assert store.stamp_secrets() == [secret(1)]


def test_old_secrets_are_removed(store: Store) -> None:
    """As many as are wanted are kept, the newest."""
    last = None
    for number in range(1, 7):
        last = store.add_stamp_secret(secret(number), after=last, keep=3)[0].id
    assert store.stamp_secrets() == [secret(6), secret(5), secret(4)]


def test_a_race_of_secrets_has_one_winner(place: Place) -> None:
    """Many that add after the same one at once: each is told of the same new one, and there is no other."""
    with closing(opened(place, stamp_secret=secret(1))) as store:
        told: list[str] = []

        def add(number: int) -> None:
            told.append(store.add_stamp_secret(secret(number), after=secret(1).id, keep=9)[0].id)

        threads = [threading.Thread(target=add, args=(number,)) for number in range(2, 10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(told) == 8
        assert set(told) == {store.stamp_secrets()[0].id}
        assert len(store.stamp_secrets()) == 2


def test_nodes_that_add_a_secret_at_once_agree(postgres_place: Place) -> None:
    """Several processes' stores on one database: one new secret, and all of them have it."""
    opened(postgres_place, stamp_secret=secret(1)).close()
    stores = [postgres_place.open() for _ in range(4)]
    ready = threading.Barrier(len(stores))
    told: list[list[StampSecret]] = []

    def add(store: Store, number: int) -> None:
        ready.wait(10)
        told.append([*store.add_stamp_secret(secret(number), after=secret(1).id, keep=9)])

    try:
        threads = [threading.Thread(target=add, args=(each, number)) for number, each in enumerate(stores, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(told) == len(stores)
        assert all([*each.stamp_secrets()] == told[0] for each in stores)
        assert all(each == told[0] for each in told)
    finally:
        for each in stores:
            each.close()


def test_a_secret_is_not_shown(store: Store) -> None:
    """Neither its repr nor what a store says of an error has it."""
    assert secret(65).secret.decode() == "A" * 32
    assert "A" * 32 not in repr(secret(65))
    assert secret(65).secret.hex() not in repr(store.add_stamp_secret(secret(65), after=None, keep=9))


def test_a_database_from_before_has_neither_and_takes_both(place: Place) -> None:
    """A log of the schema before is migrated as it is, its holds too, and serves what it could not."""
    with closing(place.opened()) as store:
        killed = committed(store.kill(kill_order())).flag
    with migrate.lent_connection(place.owner_url) as connection:
        command.downgrade(migrate.configuration(connection), "0001")
        connection.commit()
    migrate.upgrade(place.owner_url)
    if not place.sqlite:
        place.execute("GRANT SELECT, INSERT, DELETE ON stamp_secrets, outcomes TO haltline_service")
    with closing(place.open()) as store:
        assert store.flag(killed.target)[1] == killed
        assert store.stamp_secrets() == []
        assert store.add_stamp_secret(secret(1), after=None, keep=9) == [secret(1)]
        assert store.keep_outcomes([outcome()]) == 1


def test_outcomes_are_kept_as_they_were_told(store: Store) -> None:
    """Every member comes back."""
    told = outcome(tenants=("acme", "beta"), cleanups='[{"ms":7,"name":"close","outcome":"done"}]', ended="killed")
    others = [outcome("r-2"), outcome("r-1", 3)]
    assert store.keep_outcomes([told, *others]) == 3
    assert store.outcomes(OutcomeQuery(run="r-1", flip=2)) == [told]
    assert store.outcomes(OutcomeQuery(flip=2)) == [told, others[0]]
    assert store.outcomes(OutcomeQuery(run="r-1")) == [told, others[1]]
    assert store.outcomes(OutcomeQuery(run="r-9")) == []


def test_the_first_outcome_of_a_run_and_flip_stays(store: Store) -> None:
    """Repeated, also within one batch, it is kept once, as it was told first; the others of the batch are kept."""
    assert store.keep_outcomes([outcome(), outcome(worker="other")]) == 1
    assert store.keep_outcomes([outcome(worker="late"), outcome("r-2")]) == 1
    assert [each.worker for each in store.outcomes(OutcomeQuery(flip=2))] == ["mailer", "mailer"]


def test_outcomes_are_listed_page_by_page(store: Store) -> None:
    """In the order of flip and run, each once, whatever the size of a page."""
    told = [outcome(f"r-{run}", flip) for flip in (2, 3, 40) for run in range(7)]
    store.keep_outcomes(told)
    listed: list[StoredOutcome] = []
    after = None
    while page := store.outcomes(OutcomeQuery(after=after, limit=4)):
        listed += page
        after = (page[-1].flip, page[-1].run)
    assert listed == told
    only = store.outcomes(OutcomeQuery(flip=3, after=(3, "r-4"), limit=9))
    assert [each.run for each in only] == ["r-5", "r-6"]


def test_a_view_shows_what_its_tenants_tokens_told(store: Store) -> None:
    """Not what an unbound token told, nor what another tenant's did, nor one that was bound to more."""
    bound = {"a": ("acme",), "b": ("beta",), "ab": ("acme", "beta"), "all": None}
    for number, tenants in enumerate(bound.values()):
        token = StoredToken(f"{number:012}", "0" * 64, "somebody", "worker", tenants, AT, NOW)
        store.add_token(token, actor="ann")
    store.keep_outcomes([outcome(run, tenants=tenants) for run, tenants in bound.items()])

    def seen(*view: str) -> list[str]:
        return [each.run for each in store.outcomes(OutcomeQuery(flip=2, view=view))]

    assert seen("acme") == ["a"]
    assert seen("acme", "beta") == ["a", "ab", "b"]
    assert seen("gamma") == []


def test_old_outcomes_are_removed_a_batch_at_a_time(store: Store) -> None:
    """The oldest first, no more than asked, and never a younger one."""
    store.keep_outcomes([outcome(f"r-{number}", kept_at=NOW + 9 - number) for number in range(10)])
    assert store.forget_outcomes(before=NOW + 6, limit=4) == 4
    assert [each.run for each in store.outcomes(OutcomeQuery(flip=2))] == [f"r-{number}" for number in range(6)]
    assert store.forget_outcomes(before=NOW + 6, limit=4) == 2
    assert store.forget_outcomes(before=NOW + 6, limit=4) == 0
    assert len(store.outcomes(OutcomeQuery(flip=2))) == 4


def test_no_flip_and_nothing_beside_the_log_wait_for_each_other(postgres_place: Place) -> None:
    """While one holds the log lock, outcomes and secrets are written."""
    done: list[int] = []

    def beside(store: Store) -> Callable[[], float]:
        def work() -> float:
            # Called under the log lock.
            done.append(store.keep_outcomes([outcome(f"r-{len(done)}")]))
            done.append(len(store.add_stamp_secret(secret(1), after=None, keep=9)))
            return NOW

        return work

    with closing(postgres_place.opened()) as store:
        store.set_ttl(700, actor="ann", at=AT, wall=beside(store))
    assert done[:2] == [1, 1]


@pytest.mark.parametrize("table", ["stamp_secrets", "outcomes"])
def test_the_service_changes_nothing_that_is_kept(postgres_place: Place, table: str) -> None:
    """Its role adds and removes rows, and never changes one."""
    postgres_place.opened().close()
    column = "secret" if table == "stamp_secrets" else "cleanups"
    for statement in (f"UPDATE {table} SET {column} = ''", f"TRUNCATE {table}"):  # noqa: S608 - names of ours
        with pytest.raises(DBAPIError, match="permission denied"):
            postgres_place.execute(statement, service=True)
