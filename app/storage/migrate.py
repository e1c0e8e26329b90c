"""Bring a database to the schema of this code, from a checkout or from an installed wheel."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

import app
from app.service.store import StoreUnavailable
from app.storage.address import parse_address
from app.storage.errors import StoreRefused

# Alembic keeps the running migration in module globals: two at once in one process would mix them up.
_alembic: Final = threading.Lock()


def _folder() -> Path:
    """Return the migrations: packed into ``app`` by the wheel, beside it in a checkout."""
    package = Path(app.__file__).resolve().parent
    packed = package / "migrations"
    return packed if packed.is_dir() else package.parent / "migrations"


def configuration(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration, for its commands on ``connection``."""
    config = Config()
    config.set_main_option("script_location", str(_folder()).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def head() -> str:
    """Return the revision that this code needs."""
    revision = ScriptDirectory.from_config(configuration()).get_current_head()
    if revision is None:
        raise StoreRefused(f"no migrations were found in {_folder()}: the installation is incomplete")
    return revision


def revision_of(connection: Connection) -> str | None:
    """Return the revision of the database behind ``connection``; None for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()


def _known(revision: str) -> bool:
    scripts = ScriptDirectory.from_config(configuration())
    return any(script.revision == revision for script in scripts.walk_revisions())


def check_revision(found: str | None) -> None:
    """Refuse a database whose schema is not exactly the one that this code was written for.

    Args:
        found: the revision of its schema; None where it has no tables.

    Raises:
        StoreRefused: it is empty, older, or newer than this code.
    """
    needed = head()
    if found == needed:
        return
    if found is not None and not _known(found):
        raise StoreRefused(_newer(found, needed))
    what = "has no tables yet" if found is None else f"has the schema {found}, older than {needed}"
    raise StoreRefused(f"the database {what}: run `haltline-server migrate`")


def _newer(found: str, needed: str) -> str:
    return (
        f"the database has the schema {found}, newer than {needed}, the one this version knows: update haltline-server"
    )


def upgrade_connection(connection: Connection) -> None:
    """Migrate the database behind ``connection``, in one transaction that this function begins and commits.

    Raises:
        StoreRefused: the schema is newer than this code.
    """
    with _alembic:
        found = revision_of(connection)
        connection.rollback()  # the look began a transaction; the migration needs one that begins under its lock
        if found is not None and not _known(found):
            raise StoreRefused(_newer(found, head()))
        command.upgrade(configuration(connection), "head")
        connection.commit()


@contextmanager
def lent_connection(url: str) -> Iterator[Connection]:
    """Lend a connection to the database at ``url``, as its only owner where it is SQLite.

    Raises:
        StoreRefused: the address is wrong, or a service has the SQLite file open.
        StoreUnavailable: the database could not be reached, or refused a statement.
    """
    from app.storage import postgres, sqlite  # both import this module

    backend, parsed = parse_address(url)
    opened = sqlite.connection(parsed) if backend == "sqlite" else postgres.connection(parsed)
    try:
        with opened as connection:
            yield connection
    except DBAPIError as error:
        raise StoreUnavailable(f"the database did not let itself be migrated: {error.orig}") from error


def upgrade(url: str) -> None:
    """Migrate the database at ``url`` to the schema of this code; nothing to do if it has it.

    Args:
        url: ``sqlite:///...`` or ``postgresql://...``.

    Raises:
        StoreRefused: the address is wrong, the schema is newer than this code, or a service has the SQLite file open.
        StoreUnavailable: the database could not be reached, or another migration did not end within a minute.
    """
    with lent_connection(url) as connection:
        upgrade_connection(connection)


def current(url: str) -> str | None:
    """Return the revision of the database at ``url``; None if it has no tables yet.

    Raises:
        StoreRefused: the address is wrong, or a service has the SQLite file open.
        StoreUnavailable: the database could not be reached.
    """
    with lent_connection(url) as connection:
        return revision_of(connection)
