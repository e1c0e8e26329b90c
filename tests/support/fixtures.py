"""Databases as pytest fixtures: a real PostgreSQL for the session, a fresh and migrated database for each test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import make_url

from app.service.store import Store
from app.storage.migrate import upgrade
from app.storage.postgres import PostgresDatabase
from tests.support.hasty import TIMEOUT
from tests.support.places import Place
from tests.support.postgres import SERVICE, PostgresServer


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server, shared by the session: who freezes or reconfigures it, restores it."""
    server = PostgresServer()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    """The name of a migrated database with the service's role in it, to be copied."""
    name = postgres_server.create_database()
    upgrade(postgres_server.url(name))
    postgres_server.grant_roles(name)
    return name


@pytest.fixture
def postgres_database(postgres_server: PostgresServer, postgres_template: str) -> Iterator[str]:
    """The name of a fresh, migrated database."""
    name = postgres_server.create_database(template=postgres_template)
    yield name
    postgres_server.drop_database(name)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, postgres_database: str) -> str:
    """The address of a fresh, migrated PostgreSQL database, as its owner."""
    return postgres_server.url(postgres_database)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The address of an SQLite database that does not exist yet."""
    return f"sqlite:///{tmp_path / 'haltline.db'}"


@pytest.fixture
def sqlite_place(sqlite_url: str) -> Place:
    """A place for an SQLite database."""
    return Place(sqlite_url, sqlite_url)


@pytest.fixture
def postgres_place(postgres_server: PostgresServer, postgres_database: str) -> Place:
    """A fresh PostgreSQL database, used as the role of config/postgres-roles.sql, which can only add to the log."""
    return Place(postgres_server.url(postgres_database, user=SERVICE), postgres_server.url(postgres_database))


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The address of a fresh database, on SQLite and on PostgreSQL in turn."""
    name = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    return str(request.getfixturevalue(name))


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest) -> Place:
    """A fresh database: on SQLite, and on PostgreSQL as the role of config/postgres-roles.sql."""
    found: Place = request.getfixturevalue(f"{'sqlite' if request.param == 'sqlite' else 'postgres'}_place")
    return found


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    """An open store with its log begun, at each place in turn."""
    opened = place.opened()
    yield opened
    opened.close()


@pytest.fixture
def hasty_store(postgres_place: Place) -> Iterator[Store]:
    """An impatient store with a log on PostgreSQL."""
    with closing(postgres_place.opened(timeout=TIMEOUT)) as opened:
        yield opened


@pytest.fixture
def hasty_database(postgres_place: Place) -> Iterator[PostgresDatabase]:
    """The same database, one layer below, with the log begun."""
    postgres_place.opened().close()
    with closing(PostgresDatabase(make_url(postgres_place.url), timeout=TIMEOUT)) as opened:
        yield opened


@pytest.fixture
def other_server() -> Iterator[PostgresServer]:
    """A server that a test may restart or freeze for good."""
    with closing(PostgresServer()) as server:
        yield server
