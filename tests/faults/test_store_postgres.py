"""PostgreSQL whose connections are cut and which is started anew: an error in time, never a false success."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, make_url

from app.service.store import Committed, FlipResult, OutcomeUnknown, Store, StoreUnavailable
from app.storage import flipping
from app.storage.database import Done
from app.storage.migrate import upgrade
from app.storage.postgres import PostgresDatabase
from app.storage.postgres_connection import BoundedConnection, DeadlineExceeded
from tests.support.hasty import backend, killing, kills, within
from tests.support.orders import committed, kill_order
from tests.support.places import Place
from tests.support.postgres import SERVICE, PostgresServer

pytestmark = pytest.mark.timeout(60)


def test_backends_that_are_terminated_never_make_a_false_success(
    hasty_store: Store, postgres_place: Place, postgres_server: PostgresServer, postgres_database: str
) -> None:
    """Connections are cut all the time, at any moment: each flip_id ends as exactly one entry, and acks are true."""
    done = threading.Event()
    orders = [kill_order(f"run:r-{number}") for number in range(100)]
    errors: list[Exception] = []

    def cut() -> None:
        with postgres_server.connect() as connection:
            while not done.is_set():
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND random() < 0.5",
                    [postgres_database],
                )
                time.sleep(0.004)

    cutting = threading.Thread(target=cut)
    cutting.start()
    acked: list[Committed] = []
    try:
        for order in orders:
            while True:
                try:
                    result = hasty_store.kill(order)
                except (StoreUnavailable, OutcomeUnknown) as error:
                    errors.append(error)
                    continue
                acked.append(committed(result))
                break
    finally:
        done.set()
        cutting.join()
    assert errors
    assert kills(postgres_place) == 100
    assert [hasty_store.entry(each.row.position.seq) for each in acked] == [each.row for each in acked]


def test_a_backend_terminated_before_the_commit_is_certain(
    hasty_database: PostgresDatabase, postgres_place: Place
) -> None:
    """If the connection is cut before COMMIT is sent, nothing was changed, and that is said."""
    order = kill_order()
    cut: list[int] = []

    def work(connection: Connection) -> Done[FlipResult]:
        flipping.kill(connection, order, max_active_holds=100)
        cut.append(backend(connection))
        postgres_place.execute(f"SELECT pg_terminate_backend({cut[0]}, 5000)")
        connection.exec_driver_sql("SELECT 1")
        raise AssertionError("the connection is gone")

    with pytest.raises(StoreUnavailable, match="nothing was changed"):
        hasty_database.write(work)
    assert kills(postgres_place) == 0


def test_a_commit_that_meets_a_dead_connection_is_unknown(
    hasty_database: PostgresDatabase, postgres_place: Place
) -> None:
    """If the connection is found cut by COMMIT itself, nobody can know; the repeat by flip_id makes one entry."""
    order = kill_order()

    def cut(connection: Connection) -> None:
        postgres_place.execute(f"SELECT pg_terminate_backend({backend(connection)}, 5000)")

    with pytest.raises(OutcomeUnknown):
        hasty_database.write(killing(order, cut))
    for _ in range(2):
        committed(hasty_database.write(killing(order, lambda _: None)))
    assert kills(postgres_place) == 1


def test_half_an_exchange_ends_its_connection(postgres_url: str) -> None:
    """After a deadline passed in the middle of an answer, nothing more is said on that connection."""
    with BoundedConnection.connect(postgres_url) as connection:
        connection.deadline = time.monotonic() + 0.3
        with within(2), pytest.raises(DeadlineExceeded, match="did not answer in time"):
            connection.execute("SELECT pg_sleep(10)")
        assert connection.closed


def test_without_time_nothing_is_sent(postgres_url: str) -> None:
    """An exchange whose deadline has passed is not begun: the connection has not even opened a transaction."""
    with BoundedConnection.connect(postgres_url) as connection:
        connection.deadline = time.monotonic() - 1
        with pytest.raises(DeadlineExceeded, match="no time was left"):
            connection.execute("SELECT 1")
        assert connection.info.transaction_status == TransactionStatus.IDLE
        connection.deadline = time.monotonic() + 10
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_restarted_server_costs_no_flip(other_server: PostgresServer) -> None:
    """Connections that the server dropped are found before anything was sent: the first kill and read succeed."""
    name = other_server.create_database()
    upgrade(other_server.url(name))
    with closing(Place(url := other_server.url(name), url).opened()) as store:
        committed(store.kill(kill_order()))
        other_server.stop()
        with pytest.raises(StoreUnavailable, match=r"cannot be reached|did not do its work"):
            store.kill(kill_order())
        other_server.start()
        committed(store.kill(kill_order()))
        assert store.head().position.seq == 3
        for _ in range(2):
            other_server.stop()
            other_server.start()
            committed(store.kill(kill_order()))
            assert store.entry(1) is not None
        assert store.head().position.seq == 5


def test_many_dropped_connections_cost_no_flip(
    postgres_place: Place, postgres_server: PostgresServer, postgres_database: str
) -> None:
    """However many pooled connections the server has ended: the next kill and the next read find a good one."""
    postgres_place.opened().close()
    with closing(PostgresDatabase(make_url(postgres_place.url), timeout=10)) as database:
        _fill(database)
        with postgres_server.connect() as connection:
            ended = connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = %s AND application_name = 'haltline'",
                [postgres_database],
            ).fetchall()
        assert len(ended) >= 9
        for _ in range(4):
            committed(database.write(killing(kill_order(), lambda _: None)))
            assert database.read(lambda connection: connection.exec_driver_sql("SELECT 7").scalar_one()) == 7
    assert kills(postgres_place) == 4


def _fill(database: PostgresDatabase) -> None:
    """Have four connections made for flips and four for reads: each is lent while the others wait."""
    together = threading.Barrier(4)

    def read(_: Connection) -> None:
        together.wait(10)

    def write(_: Connection) -> Done[None]:
        time.sleep(0.1)  # the other three have connected by then, and wait for the lock
        return Done(None, write=True)

    for work in (lambda: database.read(read), lambda: database.write(write)):
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def test_the_service_role_is_what_the_contract_runs_as(postgres_place: Place) -> None:
    """The tests of the contract connect as the role of config/postgres-roles.sql, not as a superuser."""
    assert make_url(postgres_place.url).username == SERVICE
    query = "SELECT usename, usesuper FROM pg_user WHERE usename = current_user"
    assert [tuple(row) for row in postgres_place.execute(query, service=True)] == [(SERVICE, False)]
