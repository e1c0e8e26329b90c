"""PostgreSQL that dies, freezes, waits or is configured against us: an error in time, and never a false success."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, make_url

from app.service.store import Committed, FlipResult, OutcomeUnknown, Store, StoreUnavailable
from app.storage import StoreRefused, flipping, open_store
from app.storage.database import Done
from app.storage.migrate import upgrade
from app.storage.postgres import LOG_LOCK, PostgresDatabase
from app.storage.postgres_connection import BoundedConnection, DeadlineExceeded
from tests.support.orders import committed, kill_order
from tests.support.places import Place
from tests.support.postgres import SERVICE, PostgresServer

TIMEOUT: Final = 0.6
# A transaction's own time, the half of it that a commit may take longer, and what a busy machine adds.
BOUND: Final = TIMEOUT * 1.5 + 1.0

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def store(postgres_place: Place) -> Iterator[Store]:
    """An impatient store with a log on PostgreSQL."""
    with closing(postgres_place.opened(timeout=TIMEOUT)) as opened:
        yield opened


@pytest.fixture
def database(postgres_place: Place) -> Iterator[PostgresDatabase]:
    """The same database, one layer below, with the log begun."""
    postgres_place.opened().close()
    with closing(PostgresDatabase(make_url(postgres_place.url), timeout=TIMEOUT)) as opened:
        yield opened


@pytest.fixture
def other_server() -> Iterator[PostgresServer]:
    """A server that a test may restart."""
    with closing(PostgresServer()) as server:
        yield server


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


def _kill(order: Any, before_commit: Callable[[Connection], object]) -> Callable[[Connection], Done[FlipResult]]:
    """Return the kill's work, with something happening after its last statement and before the commit."""

    def work(connection: Connection) -> Done[FlipResult]:
        done = flipping.kill(connection, order, max_active_holds=100)
        before_commit(connection)
        return done

    return work


def _count(place: Place) -> int:
    (row,) = place.execute("SELECT count(*) FROM log WHERE kind = 'kill'")
    return int(row[0])


def _backend(connection: Connection) -> int:
    return int(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())


def test_backends_that_are_terminated_never_make_a_false_success(
    store: Store, postgres_place: Place, postgres_server: PostgresServer, postgres_database: str
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
                    result = store.kill(order)
                except (StoreUnavailable, OutcomeUnknown) as error:
                    errors.append(error)
                    continue
                acked.append(committed(result))
                break
    finally:
        done.set()
        cutting.join()
    assert errors
    assert _count(postgres_place) == 100
    assert [store.entry(each.row.position.seq) for each in acked] == [each.row for each in acked]


def test_a_backend_terminated_before_the_commit_is_certain(database: PostgresDatabase, postgres_place: Place) -> None:
    """If the connection is cut before COMMIT is sent, nothing was changed, and that is said."""
    order = kill_order()
    cut: list[int] = []

    def work(connection: Connection) -> Done[FlipResult]:
        flipping.kill(connection, order, max_active_holds=100)
        cut.append(_backend(connection))
        postgres_place.execute(f"SELECT pg_terminate_backend({cut[0]}, 5000)")
        connection.exec_driver_sql("SELECT 1")
        raise AssertionError("the connection is gone")

    with pytest.raises(StoreUnavailable, match="nothing was changed"):
        database.write(work)
    assert _count(postgres_place) == 0


def test_a_commit_that_meets_a_dead_connection_is_unknown(database: PostgresDatabase, postgres_place: Place) -> None:
    """If the connection is found cut by COMMIT itself, nobody can know; the repeat by flip_id makes one entry."""
    order = kill_order()

    def cut(connection: Connection) -> None:
        postgres_place.execute(f"SELECT pg_terminate_backend({_backend(connection)}, 5000)")

    with pytest.raises(OutcomeUnknown):
        database.write(_kill(order, cut))
    for _ in range(2):
        committed(database.write(_kill(order, lambda _: None)))
    assert _count(postgres_place) == 1


def test_a_frozen_server_is_an_error_in_time(store: Store, postgres_server: PostgresServer) -> None:
    """Reads and flips on a server whose processes are stopped end by their deadline, and work again after it thaws."""
    order = kill_order()
    store.head()
    with postgres_server.frozen():
        with _within(BOUND), pytest.raises(StoreUnavailable):
            store.head()
        with _within(BOUND), pytest.raises(StoreUnavailable):
            store.kill(order)
        # And so does a new connection, which the pool has to make now: connecting takes 2 s at most.
        with _within(BOUND + 2), pytest.raises(StoreUnavailable):
            store.head()
    done = committed(store.kill(order))
    assert store.entry(done.row.position.seq) == done.row


def test_a_server_that_freezes_during_the_commit_is_unknown(
    database: PostgresDatabase, postgres_server: PostgresServer, postgres_place: Place
) -> None:
    """COMMIT was sent and nothing came back in time: unknown, and the repeat by flip_id makes one entry."""
    order = kill_order()
    with contextlib.ExitStack() as thawing:
        freeze = _kill(order, lambda _: thawing.enter_context(postgres_server.frozen()))
        with _within(BOUND), pytest.raises(OutcomeUnknown):
            database.write(freeze)
    committed(database.write(_kill(order, lambda _: None)))
    assert _count(postgres_place) == 1


def test_half_an_exchange_ends_its_connection(postgres_url: str) -> None:
    """After a deadline passed in the middle of an answer, nothing more is said on that connection."""
    with BoundedConnection.connect(postgres_url) as connection:
        connection.deadline = time.monotonic() + 0.3
        with _within(2), pytest.raises(DeadlineExceeded, match="did not answer in time"):
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


@pytest.mark.parametrize("setting", ["fsync=off", "full_page_writes=off"])
def test_a_server_that_does_not_keep_what_it_acknowledges_is_refused(
    other_server: PostgresServer, setting: str
) -> None:
    """A server that would lose acknowledged kills in a power failure is not used."""
    name = other_server.create_database()
    upgrade(other_server.url(name))
    other_server.stop()
    other_server.start(setting)
    with pytest.raises(StoreRefused, match="would lose acknowledged kills"):
        open_store(other_server.url(name))


def test_a_held_lock_costs_the_lock_timeout(store: Store, postgres_place: Place) -> None:
    """A flip that waits for the log lock gives up in time, certain that nothing was changed."""
    with psycopg.connect(postgres_place.owner_url) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(%s)", [LOG_LOCK])
        with _within(BOUND), pytest.raises(StoreUnavailable, match=r"lock timeout.*nothing was changed"):
            store.kill(kill_order())
    assert _count(postgres_place) == 0
    committed(store.kill(kill_order()))


def test_work_that_decides_against_it_is_rolled_back(database: PostgresDatabase, postgres_place: Place) -> None:
    """A decision not to write leaves nothing, whatever was written before."""

    def work(connection: Connection) -> Done[str]:
        flipping.kill(connection, kill_order(), max_active_holds=100)
        return Done("refused", write=False)

    assert database.write(work) == "refused"
    assert _count(postgres_place) == 0


def test_reads_need_no_lock(store: Store, postgres_place: Place) -> None:
    """While a flip holds the log lock, everything can be read."""
    with psycopg.connect(postgres_place.owner_url) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(%s)", [LOG_LOCK])
        assert store.head().position.seq == 1
        assert store.load(remember_since="2020-01-01T00:00:00.000000Z")[1].position.seq == 1


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
                outcome.append(paused.write(_kill(kill_order("run:paused"), pause)))
            except (StoreUnavailable, OutcomeUnknown) as error:
                outcome.append(error)

        thread = threading.Thread(target=flip)
        thread.start()
        assert inside.wait(10)
        with closing(postgres_place.open(timeout=4)) as store, _within(2.0):
            committed(store.kill(kill_order()))
        go.set()
        thread.join()
    assert isinstance(outcome[0], StoreUnavailable | OutcomeUnknown)
    assert _count(postgres_place) == 1


def test_time_that_ran_out_before_the_commit_is_certain(database: PostgresDatabase, postgres_place: Place) -> None:
    """COMMIT is not begun after the deadline."""
    slow = _kill(kill_order(), lambda connection: connection.exec_driver_sql("SELECT pg_sleep(0.35)"))

    def slower(connection: Connection) -> Done[FlipResult]:
        done = slow(connection)
        time.sleep(0.35)
        return done

    with pytest.raises(StoreUnavailable, match="before the commit"):
        database.write(slower)
    assert _count(postgres_place) == 0


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
        committed(database.write(_kill(kill_order(), late)))
    assert _count(postgres_place) == 1


@contextmanager
def _no_standby(server: PostgresServer) -> Iterator[None]:
    """Have every commit wait for a standby that does not exist, for as long as the block lasts."""
    server.configure("synchronous_standby_names", "ghost")
    try:
        yield
    finally:
        server.configure("synchronous_standby_names", "")


def test_a_standby_that_does_not_confirm_is_unknown(
    store: Store, postgres_place: Place, postgres_server: PostgresServer
) -> None:
    """The commit waits for its standby, and statement_timeout does not end that wait: our deadline does."""
    order = kill_order()
    with _no_standby(postgres_server), _within(BOUND), pytest.raises(OutcomeUnknown):
        store.kill(order)
    committed(store.kill(order))
    assert _count(postgres_place) == 1


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


def test_the_database_cannot_weaken_a_flip(postgres_place: Place, postgres_database: str) -> None:
    """Whatever role or database have as defaults: commits are synchronous, and statements see what is committed."""
    postgres_place.opened().close()
    postgres_place.execute(
        f"ALTER DATABASE {postgres_database} SET synchronous_commit = off",
        f"ALTER DATABASE {postgres_database} SET default_transaction_isolation = 'repeatable read'",
    )

    def settings(connection: Connection) -> Done[tuple[str, ...]]:
        shown = [connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in names]
        return Done(tuple(shown), write=False)

    names = ("synchronous_commit", "transaction_isolation", "transaction_read_only")
    with closing(PostgresDatabase(make_url(postgres_place.url))) as database:
        assert database.write(settings) == ("on", "read committed", "off")
        assert database.read(lambda connection: settings(connection).value)[1:] == ("repeatable read", "on")


def test_a_stricter_commit_stays_stricter(postgres_place: Place, postgres_database: str) -> None:
    """remote_apply is more than `on`: it is not lowered."""
    postgres_place.execute(f"ALTER DATABASE {postgres_database} SET synchronous_commit = remote_apply")
    show = "SHOW synchronous_commit"
    with closing(PostgresDatabase(make_url(postgres_place.url))) as database:
        shown = database.write(lambda connection: Done(connection.exec_driver_sql(show).scalar_one(), write=False))
    assert shown == "remote_apply"


def test_a_read_is_of_one_moment(database: PostgresDatabase, postgres_place: Place) -> None:
    """What another node commits between two statements of a read is in neither of them."""
    with closing(postgres_place.open()) as other:

        def work(connection: Connection) -> list[int]:
            count = "SELECT count(*) FROM log"
            before = connection.exec_driver_sql(count).scalar_one()
            committed(other.kill(kill_order()))
            return [before, connection.exec_driver_sql(count).scalar_one()]

        assert database.read(work) == [1, 1]


def test_an_unhurried_read_may_take_its_time(database: PostgresDatabase) -> None:
    """The first load of a large log is cut off neither by a slow statement nor by the work between two statements."""

    def work(connection: Connection) -> int:
        connection.exec_driver_sql("SELECT pg_sleep(0.7)")
        time.sleep(0.7)
        return int(connection.exec_driver_sql("SELECT 7").scalar_one())

    assert database.read(work, unhurried=True) == 7
    with pytest.raises(StoreUnavailable):
        database.read(work)


def test_a_server_that_takes_no_writes_is_refused(postgres_place: Place, postgres_database: str) -> None:
    """A standby, or a server set to read-only, may not have heard of a kill: it is not even read."""
    postgres_place.execute(f"ALTER DATABASE {postgres_database} SET default_transaction_read_only = on")
    with pytest.raises(StoreUnavailable, match="read-only"):
        open_store(postgres_place.url)


def test_reads_do_not_take_the_connections_of_flips(database: PostgresDatabase) -> None:
    """With every reading connection busy, a kill is written, and one more read is told so in time."""
    busy, go = threading.Barrier(9), threading.Event()

    def work(_: Connection) -> None:
        busy.wait(10)
        go.wait(10)

    threads = [threading.Thread(target=lambda: database.read(work)) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        busy.wait(10)
        committed(database.write(_kill(kill_order(), lambda _: None)))
        with _within(BOUND), pytest.raises(StoreUnavailable, match="busy"):
            database.read(lambda _: None)
    finally:
        go.set()
        for thread in threads:
            thread.join()


def test_the_service_role_is_what_the_contract_runs_as(postgres_place: Place) -> None:
    """The tests of the contract connect as the role of config/postgres-roles.sql, not as a superuser."""
    assert make_url(postgres_place.url).username == SERVICE
    query = "SELECT usename, usesuper FROM pg_user WHERE usename = current_user"
    assert [tuple(row) for row in postgres_place.execute(query, service=True)] == [(SERVICE, False)]
