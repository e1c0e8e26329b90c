"""Before serving: the database is opened once, brought up to date if it may be, and given its first admin token."""

from __future__ import annotations

import re
import socket
from typing import Final

import click

from app.cli.settings import WRONG
from app.config import Config
from app.domain.access import Role
from app.domain.lanes import Lane
from app.domain.moments import moment
from app.factory import open_log
from app.service.clocks import Clocks, SystemClocks
from app.service.first_admin import FIRST_ADMIN, first_admin
from app.service.journal import configure
from app.service.store import FirstToken, LogDiverged, OutcomeUnknown, Store, StoreUnavailable
from app.storage import open_store

FRESH_S: Final = 60.0
"""For how long after the first admin token was made the starts that follow say where it was printed, seconds."""


def prepare(config: Config) -> int:
    """Make the database ready to serve, and print the first admin token if none was ever made.

    Returns:
        the exit status: 0, or 2 where the database cannot be used; what to do was said on standard error.
    """
    configure("warning")
    clocks = SystemClocks()
    try:
        store = open_store(config.database_url, lane=config.lane)
        try:
            open_log(store, config, clocks)
            if config.lane is not Lane.WORKER:  # whoever runs that machine need not be able to kill
                _first_admin(store, config, clocks)
        finally:
            store.close()
    except (StoreUnavailable, OutcomeUnknown, LogDiverged) as error:
        click.echo(f"haltline-server: {error}", err=True)
        return WRONG
    return 0


def _here(config: Config) -> str:
    """Return which process this is, for whoever looks for what it printed."""
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname(), flags=re.ASCII)[:100] or "host"
    return f"{host}, {config.bind}"


def _first_admin(store: Store, config: Config, clocks: Clocks) -> None:
    here = _here(config)
    try:
        made = first_admin(store, clocks, namespace=config.namespace, shown_by=here)
    except OutcomeUnknown:
        click.echo(
            "The first admin token may have been made, and nobody has it. If the next start prints none:", err=True
        )
        _another(err=True)
        raise
    if isinstance(made, FirstToken):
        if made.shown_by and made.token.created_at >= moment(clocks.wall() - FRESH_S):
            _made_before(made, here)
        return
    # Standard output and nothing else: the journal goes to standard error and never sees it.
    click.echo("This is the first start. The admin token, shown this once and kept nowhere:")
    click.echo()
    click.echo(f"    export HALTLINE_URL={'https' if config.tls_cert else 'http'}://{config.bind}")
    click.echo(f"    export HALTLINE_TOKEN={made.text}")
    click.echo()
    if config.embedded:
        click.echo('Then: haltline kill run r-42 --reason "why"')
        return
    click.echo(
        "On PostgreSQL an admin makes tokens and reads, and may neither kill nor revive. With the settings of this"
    )
    click.echo("service, make the tokens of those who may:")
    click.echo()
    for role, subject in ((Role.OPERATOR, "ada"), (Role.RELEASER, "bob")):
        click.echo(f"    haltline-server token create --role {role.value} --subject {subject}")
    click.echo()
    click.echo('Then, as the operator: haltline kill run r-42 --reason "why"')


def _made_before(first: FirstToken, here: str) -> None:
    made = f"The first admin token ({first.token.token_id}) was made at {first.token.created_at}"
    if first.shown_by == here:
        # Or shown to nobody: that start may have lost its connection while the token was committed.
        click.echo(f"{made}, by an earlier start here.")
        click.echo("It was printed then, unless that start failed. See its standard output, or its journal.")
    else:
        click.echo(f"{made}, and printed by")
        click.echo(f"another process that started then: {first.shown_by}. See its standard output, or its journal.")
    click.echo("If nobody has it, make another with the settings of this service:")
    _another()


def _another(*, err: bool = False) -> None:
    click.echo(err=err)
    click.echo(f"    haltline-server token create --role {Role.ADMIN.value} --subject {FIRST_ADMIN}", err=err)
