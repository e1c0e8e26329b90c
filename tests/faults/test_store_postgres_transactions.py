"""Transactions on PostgreSQL: what they are, whatever the server, the database or the role has as default."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest
from sqlalchemy import Connection, make_url

from app.service.store import StoreUnavailable
from app.storage import flipping
from app.storage.database import Done
from app.storage.postgres import PostgresDatabase
from tests.support.hasty import BOUND, killing, kills, within
from tests.support.orders import committed, kill_order
from tests.support.places import Place

pytestmark = pytest.mark.timeout(60)


def test_work_that_decides_against_it_is_rolled_back(hasty_database: PostgresDatabase, postgres_place: Place) -> None:
    """A decision not to write leaves nothing, whatever was written before."""

    def work(connection: Connection) -> Done[str]:
        flipping.kill(connection, kill_order(), max_active_holds=100)
        return Done("refused", write=False)

    assert hasty_database.write(work) == "refused"
    assert kills(postgres_place) == 0


def test_the_database_cannot_weaken_a_flip(postgres_place: Place, postgres_database: str) -> None:
    """Whatever role or database have as defaults: commits are synchronous, and statements see what is committed."""
    postgres_place.opened().close()

    def settings(connection: Connection) -> Done[tuple[str, ...]]:
        shown = [connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in names]
        return Done(tuple(shown), write=False)

    names = ("synchronous_commit", "transaction_isolation", "transaction_read_only")
    with closing(PostgresDatabase(make_url(postgres_place.url))) as database:
        # After the store was opened, which would have been refused; the connections that follow are made now.
        postgres_place.execute(
            f"ALTER DATABASE {postgres_database} SET synchronous_commit = off",
            f"ALTER DATABASE {postgres_database} SET default_transaction_isolation = 'repeatable read'",
        )
        assert database.write(settings) == ("on", "read committed", "off")
        assert database.read(lambda connection: settings(connection).value)[1:] == ("repeatable read", "on")


def test_a_stricter_commit_stays_stricter(postgres_place: Place, postgres_database: str) -> None:
    """remote_apply is more than `on`: it is not lowered."""
    postgres_place.execute(f"ALTER DATABASE {postgres_database} SET synchronous_commit = remote_apply")
    show = "SHOW synchronous_commit"
    with closing(PostgresDatabase(make_url(postgres_place.url))) as database:
        shown = database.write(lambda connection: Done(connection.exec_driver_sql(show).scalar_one(), write=False))
    assert shown == "remote_apply"


def test_a_read_is_of_one_moment(hasty_database: PostgresDatabase, postgres_place: Place) -> None:
    """What another node commits between two statements of a read is in neither of them."""
    with closing(postgres_place.open()) as other:

        def work(connection: Connection) -> list[int]:
            count = "SELECT count(*) FROM log"
            before = connection.exec_driver_sql(count).scalar_one()
            committed(other.kill(kill_order()))
            return [before, connection.exec_driver_sql(count).scalar_one()]

        assert hasty_database.read(work) == [1, 1]


def test_an_unhurried_read_may_take_its_time(hasty_database: PostgresDatabase) -> None:
    """The first load of a large log is cut off neither by a slow statement nor by the work between two statements."""

    def work(connection: Connection) -> int:
        connection.exec_driver_sql("SELECT pg_sleep(0.7)")
        time.sleep(0.7)
        return int(connection.exec_driver_sql("SELECT 7").scalar_one())

    assert hasty_database.read(work, unhurried=True) == 7
    with pytest.raises(StoreUnavailable):
        hasty_database.read(work)


def test_reads_do_not_take_the_connections_of_flips(hasty_database: PostgresDatabase) -> None:
    """With every reading connection busy, a kill is written, and one more read is told so in time."""
    busy, go = threading.Barrier(9), threading.Event()

    def work(_: Connection) -> None:
        busy.wait(10)
        go.wait(10)

    threads = [threading.Thread(target=lambda: hasty_database.read(work)) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        busy.wait(10)
        committed(hasty_database.write(killing(kill_order(), lambda _: None)))
        with within(BOUND), pytest.raises(StoreUnavailable, match="busy"):
            hasty_database.read(lambda _: None)
    finally:
        go.set()
        for thread in threads:
            thread.join()
