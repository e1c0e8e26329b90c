"""Before serving: the database is opened once, brought up to date if it may be, and given its first admin token."""

from __future__ import annotations

import click

from app.cli.settings import WRONG
from app.cli.tokens import every
from app.config import Config, Lane
from app.domain.access import Role
from app.factory import create_node
from app.service.journal import configure
from app.service.node import Node
from app.service.store import LogDiverged, OutcomeUnknown, StoreUnavailable

FIRST_ADMIN = "admin"
"""The subject of the token that the first start makes."""


def prepare(config: Config) -> int:
    """Make the database ready to serve, and print the first admin token if none was ever made.

    Returns:
        the exit status: 0, or 2 where the database cannot be used; what to do was said on standard error.
    """
    configure("warning")
    try:
        node = create_node(config)
        try:
            node.store.head()
            if config.lane is not Lane.WORKER:  # whoever runs that machine need not be able to kill
                _first_admin(node, config)
        finally:
            node.close()
    except (StoreUnavailable, OutcomeUnknown, LogDiverged) as error:
        click.echo(f"haltline-server: {error}", err=True)
        return WRONG
    return 0


def _first_admin(node: Node, config: Config) -> None:
    if any(each.role == Role.ADMIN.value for each in every(node)):
        return
    issued = node.tokens.issue(subject=FIRST_ADMIN, role=Role.ADMIN, actor=FIRST_ADMIN)
    # Standard output and nothing else: the journal goes to standard error and never sees it.
    click.echo("This is the first start. The admin token, shown this once and kept nowhere:")
    click.echo()
    click.echo(f"    export HALTLINE_URL={'https' if config.tls_cert else 'http'}://{config.bind}")
    click.echo(f"    export HALTLINE_TOKEN={issued.text}")
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
