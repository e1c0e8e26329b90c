"""haltline-server token: tokens made, listed and revoked straight on the database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click

from app.cli.settings import fail
from app.config import Config
from app.domain.access import Role
from app.domain.moments import moment
from app.domain.tokens import is_token_id
from app.factory import create_node
from app.service.journal import configure
from app.service.node import Node
from app.service.store import LogDiverged, OutcomeUnknown, StoredToken, StoreUnavailable

ACTOR: Final = "haltline-server"
"""Who stands in the log for what is done on the database's own machine."""

PAGE: Final = 1_000


@contextmanager
def opened(config: Config) -> Iterator[Node]:
    """Yield a node over the configured database that serves nothing; say what is wrong and end with status 2."""
    configure("warning")
    try:
        node = create_node(config)
        try:
            node.store.head()
            yield node
        finally:
            node.close()
    except OutcomeUnknown:
        raise fail("it is not known whether this happened: list the tokens, and revoke what nobody holds") from None
    except (StoreUnavailable, LogDiverged, ValueError) as error:
        raise fail(str(error)) from None


def every(node: Node) -> Iterator[StoredToken]:
    """Yield every token, revoked ones too."""
    after: str | None = None
    while page := node.tokens.listed(after=after, limit=PAGE):
        yield from page
        after = page[-1].token_id


def create(config: Config, *, subject: str, role: str, tenants: tuple[str, ...], days: int | None) -> None:
    """Make a token and print it."""
    names = [each.value for each in Role]
    if role not in names:
        raise fail(f"role {role!r:.40} is unknown: use {', '.join(names)}")
    with opened(config) as node:
        issued = node.tokens.issue(subject=subject, role=Role(role), actor=ACTOR, tenants=tenants or None, days=days)
    click.echo(issued.text)
    until = moment(issued.stored.expires_at)
    click.echo(f"token {issued.stored.token_id} of {subject}, {role}, until {until}; shown this once", err=True)


def show(config: Config) -> None:
    """List every token without its secret."""
    with opened(config) as node:
        for each in every(node):
            bound = f" tenants={','.join(each.tenants)}" if each.tenants is not None else ""
            state = f"revoked {each.revoked_at}" if each.revoked_at else f"until {moment(each.expires_at)}"
            click.echo(f"{each.token_id}  {each.role:<8}  {each.subject}{bound}  {state}")


def revoke(config: Config, token_id: str) -> None:
    """Revoke a token by its id."""
    if not is_token_id(token_id):
        raise fail("a token's id has 12 characters of a-z 0-9: the part between its second and third underscore")
    with opened(config) as node:
        if not node.tokens.revoke(token_id, actor=ACTOR):
            raise fail(f"there is no live token {token_id}")
    click.echo(f"token {token_id} is revoked")
