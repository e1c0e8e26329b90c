"""Opening a store: which addresses, which schema, and who may migrate when."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from alembic import command
from sqlalchemy import make_url

from app.service.store import StoreUnavailable
from app.storage import StoreRefused, migrate, open_store, sqlite
from tests.support.orders import committed, kill_order
from tests.support.places import Place
from tests.support.postgres import PostgresServer

ROOT: Final = Path(__file__).parents[2]
UNKNOWN_REVISION: Final = {
    "9999": "UPDATE alembic_version SET version_num = '9999'",
    "0000": "UPDATE alembic_version SET version_num = '0000'",
}


@pytest.fixture
def empty_postgres(postgres_server: PostgresServer) -> Iterator[Place]:
    """A PostgreSQL database without tables, and its owner."""
    name = postgres_server.create_database()
    yield Place(postgres_server.url(name), postgres_server.url(name))
    postgres_server.drop_database(name)


@pytest.fixture(params=["sqlite_place", "empty_postgres"])
def empty(request: pytest.FixtureRequest) -> Place:
    """A database without tables."""
    found: Place = request.getfixturevalue(request.param)
    return found


def test_an_empty_database_has_no_revision_until_it_is_migrated(empty: Place) -> None:
    """current() is None, then head(); migrating again changes nothing."""
    assert migrate.current(empty.url) is None
    for _ in range(2):
        migrate.upgrade(empty.url)
        assert migrate.current(empty.url) == migrate.head() == "0002"


def test_a_migrated_database_serves(empty: Place) -> None:
    """The schema of the migrations is the one that the store writes to."""
    migrate.upgrade(empty.url)
    store = empty.opened()
    try:
        committed(store.kill(kill_order()))
    finally:
        store.close()


def test_sqlite_migrates_itself_and_postgresql_does_not(empty: Place) -> None:
    """An embedded start needs no command; a production start says which one is missing."""
    if empty.sqlite:
        empty.open().close()
        assert migrate.current(empty.url) == "0002"
    else:
        with pytest.raises(StoreRefused, match="haltline-server migrate"):
            empty.open()


@pytest.mark.parametrize("found", list(UNKNOWN_REVISION))
def test_a_schema_that_this_code_does_not_know_is_refused(place: Place, found: str) -> None:
    """A newer schema means stopped: it is neither served nor migrated, and nothing is changed."""
    place.opened().close()
    place.execute(UNKNOWN_REVISION[found])
    for call in (place.open, lambda: migrate.upgrade(place.owner_url)):
        with pytest.raises(StoreRefused, match=f"{found}.*update haltline-server"):
            call()
    assert migrate.current(place.owner_url) == found


def test_a_migration_needs_the_file_for_itself(sqlite_place: Place) -> None:
    """While a service owns the file, a migration is refused with the reason."""
    store = sqlite_place.opened()
    try:
        with (
            pytest.raises(StoreRefused, match="in use by process"),
            sqlite.connection(make_url(sqlite_place.url), owner_wait=0),
        ):
            pass
    finally:
        store.close()
    migrate.upgrade(sqlite_place.url)


def test_nodes_that_migrate_at_once_do_not_race(empty_postgres: Place) -> None:
    """Three processes migrate one empty database together: each of them succeeds."""
    script = "import sys; from app.storage.migrate import upgrade; sys.stdin.read(); upgrade(sys.argv[1])"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, empty_postgres.url], cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    assert [(process.communicate(timeout=30)[1], process.returncode) for process in processes] == [(b"", 0)] * 3
    assert migrate.current(empty_postgres.url) == "0002"


def test_a_migration_that_fails_leaves_nothing(empty: Place) -> None:
    """A migration is one transaction, on SQLite too."""
    empty.execute("CREATE TABLE outcomes (mine int)")  # the last table that the last of them makes
    with pytest.raises(StoreUnavailable, match="outcomes"):
        migrate.upgrade(empty.url)
    assert migrate.current(empty.url) is None
    empty.execute("DROP TABLE outcomes")
    migrate.upgrade(empty.url)


def _downgrade(url: str) -> None:
    with migrate.lent_connection(url) as connection:
        command.downgrade(migrate.configuration(connection), "base")
        connection.commit()


def test_a_log_with_entries_is_never_downgraded_away(empty: Place) -> None:
    """Downgrading drops empty tables, and refuses to drop a log that anything was written to."""
    migrate.upgrade(empty.url)
    _downgrade(empty.url)
    migrate.upgrade(empty.url)
    store = empty.opened()
    store.close()
    with pytest.raises(RuntimeError, match="never done"):
        _downgrade(empty.url)
    store = empty.opened()
    assert store.entry(1) is not None
    store.close()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "not one"),
        ("haltline.db", "not one"),
        ("mysql://localhost/x", "mysql is not supported"),
        ("postgresql+psycopg2://localhost/x", "psycopg, not with psycopg2"),
        ("postgresql+asyncpg://localhost/x", "psycopg, not with asyncpg"),
        ("sqlite:////nowhere/at/all/x.db", "does not exist"),
    ],
)
def test_a_wrong_address_is_refused(url: str, why: str) -> None:
    """The message says what an address looks like, for opening as for migrating."""
    for call in (open_store, migrate.upgrade):
        with pytest.raises(StoreRefused, match=why):
            call(url)


def test_an_address_with_a_password_is_never_shown() -> None:
    """Not in the message of an address that is wrong, nor of a server that does not answer."""
    for url in ("postgresql//ann:s3cret@localhost/x", "mysql://ann:s3cret@localhost/x"):
        with pytest.raises(StoreRefused) as refused:
            open_store(url)
        assert "s3cret" not in str(refused.value)
    with pytest.raises(StoreUnavailable, match="cannot be reached") as unreachable:
        open_store("postgresql://ann:s3cret@/x?host=/nowhere")
    assert "s3cret" not in f"{unreachable.value} {unreachable.value.__cause__}"


def test_an_installed_wheel_can_migrate(tmp_path: Path) -> None:
    """The wheel carries the migrations: without a checkout, an embedded store opens and serves."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "dist"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    script = (
        "import app; from app.storage import migrate, open_store; "
        "migrate.upgrade('sqlite:///a.db'); store = open_store('sqlite:///a.db'); "
        "store.open_log(namespace='default', ttl_ms=1000, at='2026-11-20T20:25:11.000000Z', epoch='0' * 16); "
        "store.close(); print(app.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.returncode) == (str(tmp_path / "installed" / "app" / "__init__.py"), 0), (
        done.stderr
    )
