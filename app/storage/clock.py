"""What time it is by the database's clock, which all nodes of one log can ask."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, Select, func, select

# Not now(): that is when the transaction began.
_READ: Final[Select[float]] = select(func.extract("epoch", func.clock_timestamp()))


def read_clock(connection: Connection) -> float | None:
    """Return seconds since the Unix epoch; None for an SQLite file, which has no clock but its process's."""
    if connection.dialect.name != "postgresql":
        return None
    return float(connection.execute(_READ).scalar_one())
