"""A node straight on the database of a running service, for commands that must work when no service can be reached."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from app.config import Config
from app.domain.lanes import Lane
from app.factory import create_node
from app.service.journal import configure
from app.service.node import Node
from app.service.store import StoreUnavailable
from app.storage import StoreRefused, open_store

BELL_S: Final = 0.3
"""How long a command waits for the doorbell before it ends; nodes read many times per ttl without it."""


@contextmanager
def existing(config: Config) -> Iterator[Node]:
    """Yield a node over a log that is there already; nothing is made, so that a mistyped address is found.

    At the end, what was asked of the doorbell has its time to be rung.

    Raises:
        StoreRefused: the database cannot be used as it is, has no log, or that of another namespace.
        StoreUnavailable: it could not be reached.
    """
    configure("error")
    _look(config)
    store = open_store(config.database_url, lane=Lane.CONTROL)
    try:
        _same_namespace(store.head().namespace, config.namespace)
    except BaseException:
        store.close()
        raise
    node = create_node(config, store=store)
    try:
        yield node
        node.bell.flush(BELL_S)
    finally:
        node.close()


def _look(config: Config) -> None:
    """Refuse an SQLite file that is not there: opening it would make one, with an empty log in it."""
    try:
        file = make_url(config.database_url).database
    except ArgumentError:
        return  # opening it says so
    if config.embedded and not (file and Path(file).is_file()):
        raise StoreRefused(f"there is no database {file}: name the one that the service uses (HALTLINE_DATABASE_URL)")


def _same_namespace(found: str, named: str) -> None:
    if found != named:
        raise StoreRefused(
            f"the database holds the log of namespace {found}: set HALTLINE_NAMESPACE={found}, or another database"
        )


def is_refusal(error: StoreUnavailable) -> bool:
    """Return whether trying again without changing something would be in vain."""
    return isinstance(error, StoreRefused)
