"""haltline-server settings: the lease ttl of the whole store, shown or changed straight on the database."""

from __future__ import annotations

import json

import click

from app.api.shapes import settings as shown
from app.cli.direct import existing
from app.cli.settings import fail
from app.cli.tokens import ACTOR
from app.config import Config
from app.service.settings import ClocksApart
from app.service.store import LogDiverged, OutcomeUnknown, StoreUnavailable, Ttl


def settings(config: Config, *, ttl_ms: int | None, as_json: bool) -> None:
    """Show the settings; change the ttl first, if one is given."""
    seq: int | None = None
    try:
        with existing(config) as node:
            if ttl_ms is None:
                ttl = node.settings.read()
            else:
                changed = node.settings.change(ttl_ms=ttl_ms, actor=ACTOR)
                seq, ttl = changed.seq, changed.ttl
    except OutcomeUnknown as error:
        raise fail(f"it is not known whether this happened: {error}. Type it again: it is never done twice") from None
    except (ClocksApart, StoreUnavailable, LogDiverged) as error:
        raise fail(str(error)) from None
    if as_json:
        click.echo(json.dumps({**shown(ttl), "seq": seq}))
        return
    if ttl_ms is not None:
        click.echo("it is that already" if seq is None else f"changed at log position {seq}")
    _show(ttl)


def _show(ttl: Ttl) -> None:
    told = shown(ttl)
    click.echo(f"lease ttl  {ttl.ttl_ms} ms: a kill is effective that long after it was acknowledged")
    if told["changed_at"] is not None:
        click.echo(f"changed    {told['changed_at']}; leases from before last up to {ttl.before_ms} ms longer")
    elif told["before_ms"] is not None:
        click.echo(f"changed    lately; until that is settled, every kill allows for leases of {ttl.before_ms} ms")
