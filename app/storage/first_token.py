"""The first token of a role: found with the note that says who showed it, in one statement."""

from __future__ import annotations

import json
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, select

from app.service.store import FirstToken, StoredToken
from app.storage.rows import token_row
from app.storage.tables import log, tokens

# The first token of a role is the first thing that its maker ever noted: found by an index, however long the log is.
_NOTE: Final = (
    select(log.c.body)
    .where(log.c.actor == bindparam("actor"), log.c.kind == "note")
    .order_by(log.c.seq)
    .limit(1)
    .scalar_subquery()
)
_FIRST: Final = (
    select(tokens, _NOTE.label("note"))
    .where(tokens.c.role == bindparam("role"))
    .order_by(tokens.c.created_at, tokens.c.token_id)
    .limit(1)
)


def find_first(connection: Connection, role: str, actor: str) -> FirstToken | None:
    """Return the oldest token of a role, revoked or not, with who showed it; None if there was never one.

    Args:
        connection: for one statement.
        role: the role.
        actor: who stands in the log for making it.
    """
    row = connection.execute(_FIRST, {"role": role, "actor": actor}).one_or_none()
    if row is None:
        return None
    token = token_row(row)
    return FirstToken(token, _shown_by(row, token))


def _shown_by(row: Row[Any], token: StoredToken) -> str:
    note = {} if row.note is None else json.loads(row.note)
    return str(note.get("shown_by", "")) if note.get("token_id") == token.token_id else ""
