"""PostgreSQL that would lose kills, or forget the lock, is refused when it is opened: why, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Final

import pytest

from app.service.store import StoreUnavailable
from app.storage import StoreRefused, open_store
from app.storage.migrate import upgrade
from tests.support.orders import committed, kill_order
from tests.support.places import Place
from tests.support.postgres import PostgresServer
from tests.support.standby import Standby
from tests.support.wire import Wire

pytestmark = pytest.mark.timeout(90)

LOSES: Final = "would lose acknowledged kills"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server that the tests of this file restart."""
    with closing(PostgresServer()) as running:
        yield running


@pytest.fixture(scope="module")
def database(server: PostgresServer) -> str:
    """The name of a migrated database there."""
    name = server.create_database()
    upgrade(server.url(name))
    return name


@pytest.fixture
def restarted(server: PostgresServer) -> Iterator[Callable[..., None]]:
    """Restarts the server with other settings, and at the end as it was."""

    def restart(*settings: str) -> None:
        server.stop()
        server.start(*settings)

    yield restart
    restart()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (["fsync=off"], f"fsync.*{LOSES}.*set both to on"),
        (["full_page_writes=off"], f"full_page_writes.*{LOSES}.*set both to on"),
        (["synchronous_commit=off"], f"synchronous_commit off.*{LOSES}.*set it to on"),
        (["synchronous_commit=local", "synchronous_standby_names=*"], r"local.*failover would lose.*set .* to on"),
        (["default_transaction_read_only=on"], "takes no writes.*name the primary"),
    ],
    ids=lambda value: value[0].partition("=")[0] if isinstance(value, list) else None,
)
def test_settings_that_lose_kills(
    server: PostgresServer, database: str, restarted: Callable[..., None], settings: list[str], why: str
) -> None:
    """A server that does not keep what it acknowledges is not used, and it is said which setting and what to set."""
    restarted(*settings)
    with pytest.raises(StoreRefused, match=why):
        open_store(server.url(database))


@pytest.mark.parametrize("setting", ["on", "local", "remote_write", "remote_apply"])
def test_settings_that_keep_kills(server: PostgresServer, database: str, setting: str) -> None:
    """Without a synchronous standby each of these waits for the disk: none is refused."""
    with server.connect() as connection:
        connection.execute(f"ALTER DATABASE {database} SET synchronous_commit = {setting}".encode())
    try:
        open_store(server.url(database)).close()
    finally:
        with server.connect() as connection:
            connection.execute(f"ALTER DATABASE {database} RESET synchronous_commit".encode())


@pytest.mark.parametrize("whose", ["DATABASE", "ROLE"])
def test_a_setting_of_the_database_or_the_role_counts(server: PostgresServer, database: str, whose: str) -> None:
    """synchronous_commit=off is found wherever it was set: what counts is what the service's own session has."""
    name = database if whose == "DATABASE" else "postgres"
    with server.connect() as connection:
        connection.execute(f"ALTER {whose} {name} SET synchronous_commit = off".encode())
    try:
        with pytest.raises(StoreRefused, match="ALTER DATABASE or ALTER ROLE"):
            open_store(server.url(database))
    finally:
        with server.connect() as connection:
            connection.execute(f"ALTER {whose} {name} RESET synchronous_commit".encode())


def test_a_standby(server: PostgresServer, database: str) -> None:
    """A standby may not have heard of a kill: it is refused as one, and beside its primary the primary is taken."""
    Place(url := server.url(database), url).opened().close()
    with closing(Standby(server)) as standby:
        with pytest.raises(StoreRefused, match=r"is a standby.*name the primary"):
            open_store(standby.url(database))
        sockets = ",".join(str(each.folder / "socket") for each in (standby, server))
        with closing(open_store(f"postgresql://postgres@/{database}?host={sockets}")) as store:
            committed(store.kill(kill_order()))


def test_a_pooler_in_statement_mode(server: PostgresServer, database: str) -> None:
    """What gives each statement to another session holds no lock: two statements of one transaction show it."""
    with Wire(server.folder / "socket", sessions=2) as pooler:
        for _ in range(4):
            with pytest.raises(StoreRefused, match="pooler that gives each statement to another session"):
                open_store(pooler.url(database))
    three = Wire(server.folder / "socket", sessions=3)
    with three as pooler, pytest.raises(StoreRefused, match="pooler that gives each statement to another session"):
        open_store(pooler.url(database))


def test_a_pooler_that_drops_what_was_asked_for(server: PostgresServer, database: str) -> None:
    """A session without its time-outs would hold the log lock for ever when its node is paused: it is refused."""
    forgetful = Wire(server.folder / "socket", options=False)
    with forgetful as pooler, pytest.raises(StoreRefused, match="drops the start-up parameter"):
        open_store(pooler.url(database))


def test_a_wire_that_does_nothing_is_taken(server: PostgresServer, database: str) -> None:
    """The two tests above are about what the pooler does: one that hands everything on is used."""
    with Wire(server.folder / "socket") as wire:
        open_store(wire.url(database)).close()


def test_a_server_that_is_not_there_is_not_refused(server: PostgresServer, database: str) -> None:
    """It may come back: it is unavailable, and nothing is said of how it is set up."""
    server.stop()
    try:
        with pytest.raises(StoreUnavailable, match="cannot be reached") as unreachable:
            open_store(server.url(database))
        assert not isinstance(unreachable.value, StoreRefused)
    finally:
        server.start()
