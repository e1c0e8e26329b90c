"""The store-wide ttl: changed under the log lock, so that every flip knows which leases it has to wait for.

A change is two transactions. The first changes the ttl and says that it is not known when it was in force; the second
begins when the first is visible to every reader, and writes down a moment that is therefore not too early. A moment
taken before the first commit could be: nobody can say how long a commit takes. Between the two, and for ever if the
second never comes, a kill promises the longer of the two ttls from its own moment on, which is always safe.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, bindparam, update

from app.domain.promises import CLOCKS_APART_S, NOT_KNOWN, outlasting_ms
from app.service.store import LogRow, Ttl
from app.storage.appending import append
from app.storage.database import Done
from app.storage.rows import read_stand
from app.storage.tables import log_head

_SET: Final = update(log_head).values(
    ttl_ms=bindparam("to_ttl_ms"), ttl_changed_at=bindparam("to_changed_at"), ttl_before_ms=bindparam("to_before_ms")
)


def change(
    connection: Connection, ttl_ms: int, *, actor: str, at: str, wall: Callable[[], float]
) -> Done[tuple[LogRow | None, Ttl]]:
    """Change the ttl; see :meth:`app.service.store.Store.set_ttl`. Nobody knows yet when it is in force."""
    stand = read_stand(connection)
    before = stand.head.ttl
    if before.ttl_ms == ttl_ms:
        return Done((None, before), write=False)
    note = {"kind": "note", "actor": actor, "topic": "settings_changed", "ttl_ms": ttl_ms, "before_ms": before.ttl_ms}
    row = append(connection, stand, note, at=at).row
    outlasting = outlasting_ms(wall(), ttl_ms=before.ttl_ms, changed_at=before.changed_at, before_ms=before.before_ms)
    after = Ttl(ttl_ms, NOT_KNOWN, outlasting)
    _write(connection, after)
    return Done((row, after), write=True)


def settle(connection: Connection, *, wall: Callable[[], float]) -> Done[Ttl]:
    """Write down a moment at which the last change was in force, if nobody has.

    The log lock was granted to this transaction after the change was visible to every reader, and only then is the
    clock read.
    """
    ttl = read_stand(connection).head.ttl
    if not math.isinf(ttl.changed_at):
        return Done(ttl, write=False)
    settled = Ttl(ttl.ttl_ms, wall() + CLOCKS_APART_S, ttl.before_ms)
    _write(connection, settled)
    return Done(settled, write=True)


def _write(connection: Connection, ttl: Ttl) -> None:
    values = {"to_ttl_ms": ttl.ttl_ms, "to_changed_at": ttl.changed_at, "to_before_ms": ttl.before_ms}
    connection.execute(_SET, values)
