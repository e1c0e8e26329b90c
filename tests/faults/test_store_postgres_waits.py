"""PostgreSQL that keeps a flip waiting, for a lock, a commit or a standby: it ends in time, and nothing is guessed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg
import pytest
from sqlalchemy import Connection, make_url

from app.service.store import FlipResult, OutcomeUnknown, Store, StoreUnavailable
from app.storage.database import Done
from app.storage.postgres import LOG_LOCK, PostgresDatabase
from tests.support.hasty import BOUND, killing, kills, within
from tests.support.orders import committed, kill_order
from tests.support.places import Place
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.timeout(60)


def test_a_held_lock_costs_the_lock_timeout(hasty_store: Store, postgres_place: Place) -> None:
    """A flip that waits for the log lock gives up in time, certain that nothing was changed."""
    with psycopg.connect(postgres_place.owner_url) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(%s)", [LOG_LOCK])
        with within(BOUND), pytest.raises(StoreUnavailable, match=r"lock timeout.*nothing was changed"):
            hasty_store.kill(kill_order())
    assert kills(postgres_place) == 0
    committed(hasty_store.kill(kill_order()))


def test_reads_need_no_lock(hasty_store: Store, postgres_place: Place) -> None:
    """While a flip holds the log lock, everything can be read."""
    with psycopg.connect(postgres_place.owner_url) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(%s)", [LOG_LOCK])
        assert hasty_store.head().position.seq == 1
        assert hasty_store.load(remember_since="2020-01-01T00:00:00.000000Z").replica.position.seq == 1


def test_a_paused_node_gives_the_lock_back(postgres_place: Place) -> None:
    """A node that is stopped between two statements of a flip holds the lock for half a second, then loses it."""
    postgres_place.opened().close()
    with closing(PostgresDatabase(make_url(postgres_place.url), timeout=10)) as paused:
        inside, go = threading.Event(), threading.Event()
        outcome: list[object] = []

        def pause(_: Connection) -> None:
            inside.set()
            go.wait(20)

        def flip() -> None:
            try:
                outcome.append(paused.write(killing(kill_order("run:paused"), pause)))
            except (StoreUnavailable, OutcomeUnknown) as error:
                outcome.append(error)

        thread = threading.Thread(target=flip)
        thread.start()
        assert inside.wait(10)
        with closing(postgres_place.open(timeout=4)) as store, within(2.0):
            committed(store.kill(kill_order()))
        go.set()
        thread.join()
    assert isinstance(outcome[0], StoreUnavailable | OutcomeUnknown)
    assert kills(postgres_place) == 1


def test_time_that_ran_out_before_the_commit_is_certain(
    hasty_database: PostgresDatabase, postgres_place: Place
) -> None:
    """COMMIT is not begun after the deadline."""
    slow = killing(kill_order(), lambda connection: connection.exec_driver_sql("SELECT pg_sleep(0.35)"))

    def slower(connection: Connection) -> Done[FlipResult]:
        done = slow(connection)
        time.sleep(0.35)
        return done

    with pytest.raises(StoreUnavailable, match="before the commit"):
        hasty_database.write(slower)
    assert kills(postgres_place) == 0


def test_a_commit_near_the_deadline_still_gets_its_time(postgres_place: Place) -> None:
    """A flip that spent most of its time is not turned into an unknown one by a commit that takes a moment."""
    postgres_place.opened().close()
    slow_commit = (
        "SELECT pg_sleep(1.1)",
        (
            "CREATE FUNCTION pg_temp.slow() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN PERFORM pg_sleep(0.65); RETURN NULL; END'"
        ),
        "CREATE TEMP TABLE deferred (x int)",
        (
            "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON deferred DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION pg_temp.slow()"
        ),
        "INSERT INTO deferred VALUES (1)",
    )

    def late(connection: Connection) -> None:
        for statement in slow_commit:
            connection.exec_driver_sql(statement)

    with closing(PostgresDatabase(make_url(postgres_place.url), timeout=1.6)) as database:
        committed(database.write(killing(kill_order(), late)))
    assert kills(postgres_place) == 1


@contextmanager
def _no_standby(server: PostgresServer) -> Iterator[None]:
    """Have every commit wait for a standby that does not exist, for as long as the block lasts."""
    server.configure("synchronous_standby_names", "ghost")
    try:
        yield
    finally:
        server.configure("synchronous_standby_names", "")


def test_a_standby_that_does_not_confirm_is_unknown(
    hasty_store: Store, postgres_place: Place, postgres_server: PostgresServer
) -> None:
    """The commit waits for its standby, and statement_timeout does not end that wait: our deadline does."""
    order = kill_order()
    with _no_standby(postgres_server), within(BOUND), pytest.raises(OutcomeUnknown):
        hasty_store.kill(order)
    committed(hasty_store.kill(order))
    assert kills(postgres_place) == 1


def test_a_wait_for_the_standby_that_is_cancelled_is_unknown(
    postgres_place: Place, postgres_server: PostgresServer
) -> None:
    """A cancelled wait ends in a COMMIT that looks like success, with a warning beside it: that is no ack."""
    cancelled, over = threading.Event(), threading.Event()

    def cancel() -> None:
        with psycopg.connect(postgres_place.owner_url, autocommit=True) as connection:
            while not (cancelled.is_set() or over.is_set()):
                found = connection.execute(
                    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity "
                    "WHERE wait_event = 'SyncRep' AND datname = current_database()"
                ).fetchall()
                if found:
                    cancelled.set()

    order = kill_order()
    with closing(postgres_place.opened(timeout=10)) as store:
        thread = threading.Thread(target=cancel)
        thread.start()
        try:
            with _no_standby(postgres_server), pytest.raises(OutcomeUnknown, match="synchronous replication"):
                store.kill(order)
        finally:
            over.set()
            thread.join()
        assert cancelled.is_set()
        assert committed(store.kill(order)).replayed
