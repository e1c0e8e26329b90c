"""Views: what one token is shown of an entry, in full or as a stub of its place in the chain."""

from __future__ import annotations

from app.service.frames import View, in_view
from app.service.published import stub
from app.service.store import LogRow
from haltline.canonical import parse
from haltline.errors import HaltlineError
from haltline.scopes import parse_target


def visible(row: LogRow, view: View) -> bool:
    """Return whether a token of this view is shown the entry in full.

    Tokens that are not bound see every entry. Those bound to tenants see flips of their own tenants and of targets that
    are nobody's; notes tell of other people's tokens, and are not their business.
    """
    if view is None:
        return True
    members = parse(row.body.encode("utf-8"), scan_depth=False)
    if not isinstance(members, dict) or "target" not in members:
        return False
    try:
        return in_view(parse_target(members["target"]), view)
    except HaltlineError:
        return False


def shown(row: LogRow, view: View) -> str:
    """Return the JSON that a token of this view is shown of an entry."""
    return row.body if visible(row, view) else stub(row.position)
