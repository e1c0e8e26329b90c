"""SQLAlchemy's dialect for psycopg, which asks a server nothing about itself: psycopg was told when it connected.

SQLAlchemy would ask four things on the first connection of each pool, one after the other. With four pools and a server
that is 150 ms away, a start would take seconds longer.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from app.storage.postgres_connection import driver

DRIVER: Final = "postgresql+haltline"
"""The driver's name in an address, once :func:`register` was called."""


class Dialect(PGDialect_psycopg):
    """The dialect. The methods with an underscore are what its base calls them, where it says that they are hooks."""

    supports_statement_cache = True

    def _get_server_version_info(self, connection: Connection) -> tuple[int, ...]:
        return divmod(driver(connection).info.server_version, 10_000)

    def _get_default_schema_name(self, connection: Connection) -> str:
        raise NotImplementedError  # None, then: nothing of this package names a schema

    def get_default_isolation_level(self, dbapi_conn: Any) -> Any:
        """Say that it is not known: each pool sets its own, see :mod:`app.storage.postgres_pools`."""
        raise NotImplementedError

    def _set_backslash_escapes(self, connection: Connection) -> None:
        # The server reports this setting by itself, when a session begins and whenever it changes.
        reported = driver(connection).info.parameter_status("standard_conforming_strings")
        self._backslash_escapes = reported == "off"


def register() -> None:
    """Have SQLAlchemy find the dialect; doing it again changes nothing."""
    registry.register("postgresql.haltline", Dialect.__module__, Dialect.__name__)
