"""What keeps a PostgreSQL server from being used: settings, or a stand-in, that would lose kills or forget the lock.

Each is found by asking or by trying, when the store is opened, and refused with the reason and what to do.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any, Final

import psycopg
from psycopg.errors import UndefinedTable
from sqlalchemy import URL, Connection, Row, text
from sqlalchemy.exc import ProgrammingError

from app.service.store import StoreUnavailable
from app.storage.errors import StoreRefused
from app.storage.migrate import check_revision
from app.storage.postgres_connection import BoundedConnection, begin_reading
from app.storage.postgres_pools import CONNECT_SECONDS, SESSION, address

MINIMUM: Final = 140_000
"""The oldest server that is supported, as server_version_num."""

# Statements of one transaction, which must all come to one session: the same process, and what the first one set for
# the transaction still set. The others ask for what is to be checked besides: each is a round trip.
_MARK: Final = "SELECT pg_backend_pid(), set_config('haltline.probe', '{mark}', true)"
_SETTINGS: Final = text(
    "SELECT pg_backend_pid() AS session, current_setting('haltline.probe', true) AS mark,"
    " current_setting('server_version_num')::int AS version, current_setting('server_version') AS shown,"
    " current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,"
    " current_setting('synchronous_commit') AS synchronous_commit,"
    " current_setting('synchronous_standby_names') AS standbys,"
    " current_setting('server_encoding') AS encoding, pg_is_in_recovery() AS standby,"
    " (SELECT json_object_agg(name, setting) FROM pg_settings WHERE name = ANY(:names)) AS in_force"
)
_REVISION: Final = text(
    "SELECT pg_backend_pid() AS session, current_setting('haltline.probe', true) AS mark,"
    " (SELECT version_num FROM alembic_version) AS revision"
)


def check_server(connection: Connection, settings: Mapping[str, int]) -> None:
    """Refuse a server, or what stands in its place, on which a flip would not be what it says.

    Args:
        connection: in autocommit mode; a transaction is begun.
        settings: what each session was asked to have in force, milliseconds.

    Raises:
        StoreRefused: why, and what to do.
    """
    marked = begin_reading(connection, _MARK.format(mark=secrets.token_hex(8)))
    found = connection.execute(_SETTINGS, {"names": list(SESSION)}).one()
    _check_session(found, marked)
    for name, asked in settings.items():
        if int(found.in_force[name]) != asked:
            raise StoreRefused(
                f"{name} is not what this service asked for when it connected: a pooler between here and the server "
                f"drops the start-up parameter `options`; connect to the server itself"
            )
    if found.version < MINIMUM:
        raise StoreRefused(f"PostgreSQL {found.shown} is too old: {MINIMUM // 10_000} or newer is needed")
    if found.standby:
        raise StoreRefused(_STANDBY)
    if found.fsync != "on" or found.full_page_writes != "on":
        raise StoreRefused(
            "the server runs with fsync or full_page_writes off and would lose acknowledged kills: "
            "set both to on in postgresql.conf, and restart it"
        )
    if found.synchronous_commit == "off":
        raise StoreRefused(
            "the server runs with synchronous_commit off and would lose acknowledged kills: set it to on, in "
            "postgresql.conf or wherever ALTER DATABASE or ALTER ROLE has set it"
        )
    if found.synchronous_commit == "local" and found.standbys.strip():
        raise StoreRefused(
            "the server has synchronous standbys, but synchronous_commit is local: a failover would lose acknowledged "
            "kills; set synchronous_commit to on"
        )
    if found.encoding != "UTF8":
        raise StoreRefused(f"the database has the encoding {found.encoding}: create it with ENCODING 'UTF8'")
    check_revision(_revision(connection, marked))


_STANDBY: Final = (
    "the server is a standby, which may not have heard of a kill: name the primary, or all servers of the cluster as "
    "in postgresql://first,second/name"
)
_READ_ONLY: Final = (
    "the server takes no writes (default_transaction_read_only is on), which a primary does: name the primary, or set "
    "default_transaction_read_only to off"
)
_POOLER: Final = (
    "what answers is a pooler that gives each statement to another session, where no lock holds and nothing can be "
    "committed together: connect to the server itself, or set the pooler to session pooling"
)


def _check_session(found: Row[Any], marked: tuple[Any, ...]) -> None:
    if (found.session, found.mark) != marked:
        raise StoreRefused(_POOLER)


def _revision(connection: Connection, marked: tuple[Any, ...]) -> str | None:
    """Return the revision of the schema; None if the database has no tables."""
    try:
        found = connection.execute(_REVISION).one()
    except ProgrammingError as error:
        if isinstance(error.orig, UndefinedTable):
            return None
        raise
    _check_session(found, marked)
    revision: str | None = found.revision
    return revision


def why_unreachable(url: URL, error: StoreUnavailable) -> None:
    """Look whether a server that was not taken is there, but is not one to be used.

    Args:
        url: its address.
        error: what it was not taken for.

    Raises:
        StoreRefused: it is a standby, takes no writes, or is a pooler that knows no transactions.
    """
    if "transaction blocks not allowed" in str(error):  # what PgBouncer says, in no other language
        raise StoreRefused(_POOLER) from error
    named = address(url, {}, primary=False).set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        with BoundedConnection.connect(named, autocommit=True) as connection:
            connection.deadline = time.monotonic() + CONNECT_SECONDS
            row = connection.execute(
                "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only') = 'on'"
            ).fetchone()
    except psycopg.Error:
        return  # it is not there at all
    if row is not None and row[0]:
        raise StoreRefused(_STANDBY) from error
    if row is not None and row[1]:
        raise StoreRefused(_READ_ONLY) from error
