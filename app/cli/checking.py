"""haltline-server serve --check: whether everything is there that serving needs."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import click
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from app.cli.settings import WRONG
from app.config import Config
from app.service.journal import configure
from app.service.store import Head, LogDiverged, OutcomeUnknown, StoreUnavailable
from app.serving.tls import WARN_DAYS, Shown, Unusable, shown
from app.storage import migrate, open_store


def report(config: Config) -> int:
    """Print what was found, and return the exit status: 0 if serving can begin, 2 if not.

    Nothing is changed: an SQLite file that does not exist or whose schema is old is made or migrated by serving.
    """
    configure("error")
    click.echo(f"bind       {config.bind}")
    click.echo(f"namespace  {config.namespace}")
    try:
        if config.tls_cert and config.tls_key:
            _certificate(shown(config.tls_cert, config.tls_key))
        address = make_url(config.database_url)
        click.echo(f"database   {address.render_as_string(hide_password=True)}")
        if config.embedded and address.database and not Path(address.database).exists():
            # Looking into it would make it.
            return _absent(Path(address.database))
        found, needed = migrate.current(config.database_url), migrate.head()
        click.echo(f"schema     {found or 'none'}{'' if found == needed else f', needed is {needed}'}")
        if found != needed:
            return _behind(config)
        head = _head(config)
    except ArgumentError:
        return _wrong("the database address is not one: use sqlite:///path or postgresql://host/name")
    except (StoreUnavailable, OutcomeUnknown, LogDiverged, Unusable) as error:
        return _wrong(str(error))
    if head is None:
        click.echo("log        none yet: serving makes it")
    elif head.namespace != config.namespace:
        return _wrong(
            f"the database holds the log of namespace {head.namespace}: set HALTLINE_NAMESPACE={head.namespace}, or "
            f"another database"
        )
    else:
        click.echo(f"log        {head.position.seq} entries, epoch {head.epoch}, ttl {head.ttl.ttl_ms} ms")
    click.echo("ready to serve")
    return 0


def _certificate(found: Shown) -> None:
    """Print for whom a certificate is and until when; one that is about to end keeps nothing from being served."""
    days, ends = found.days_left(datetime.now(UTC)), found.ends.strftime("%Y-%m-%d")
    left = f"ended on {ends}" if days < 0 else f"until {ends}, {days} days"
    click.echo(f"tls        {', '.join(found.names)}, {left}")
    if days < 0:
        click.echo("warning    the certificate has expired: every client refuses it and stops. Renew it")
    elif days < WARN_DAYS:
        click.echo(f"warning    the certificate expires within {WARN_DAYS} days: renew it, or every client stops then")


def _absent(file: Path) -> int:
    if not os.access(file.absolute().parent, os.W_OK | os.X_OK):
        return _wrong(f"{file.absolute().parent} is not a folder in which this user can make the database")
    click.echo("schema     none")
    click.echo("ready to serve: serving makes the database")
    return 0


def _behind(config: Config) -> int:
    if config.embedded:
        click.echo("ready to serve: serving brings the schema up to date")
        return 0
    return _wrong("run `haltline-server migrate`")


def _head(config: Config) -> Head | None:
    store = open_store(config.database_url)
    try:
        return store.head()
    except StoreUnavailable:
        return None
    finally:
        store.close()


def _wrong(message: str) -> int:
    click.echo(f"not ready: {message}")
    return WRONG
