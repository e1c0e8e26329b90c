"""What the tests of a PostgreSQL that fails share: an impatient store, and a kill with something happening in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection

from app.service.store import FlipResult
from app.storage import flipping
from app.storage.database import Done
from tests.support.places import Place

TIMEOUT: Final = 0.6
"""How long a transaction of an impatient store may take, seconds."""

BOUND: Final = TIMEOUT * 1.5 + 1.0
"""A transaction's own time, the half of it that a commit may take longer, and what a busy machine adds."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Check that the block takes less than so many seconds."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


def killing(order: Any, before_commit: Callable[[Connection], object]) -> Callable[[Connection], Done[FlipResult]]:
    """Return the kill's work, with something happening after its last statement and before the commit."""

    def work(connection: Connection) -> Done[FlipResult]:
        done = flipping.kill(connection, order, max_active_holds=100)
        before_commit(connection)
        return done

    return work


def kills(place: Place) -> int:
    """Return how many kills there are in a log."""
    (row,) = place.execute("SELECT count(*) FROM log WHERE kind = 'kill'")
    return int(row[0])


def backend(connection: Connection) -> int:
    """Return the process of the server that serves a connection."""
    return int(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())
