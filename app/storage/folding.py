"""The fold as the tables hold it: where a node's replica begins, without reading the whole log."""

from __future__ import annotations

from types import MappingProxyType

from sqlalchemy import Connection, exists, select

from app.service.store import Head, LogDiverged
from app.storage.rows import holds_by_target, mark_row, read_stand
from app.storage.tables import holds, targets
from haltline.replica import Replica


def load_replica(connection: Connection, remember_since: str) -> tuple[Head, Replica]:
    """Return the head and the fold; see :meth:`app.service.store.Store.load`.

    Raises:
        LogDiverged: the tables do not hold as many holds as the head counts: they were edited.
    """
    stand = read_stand(connection)
    rows = connection.execute(select(holds).order_by(holds.c.seq)).all()
    if len(rows) != stand.active_holds:
        raise LogDiverged(
            f"the head counts {stand.active_holds} active holds, but there are {len(rows)}: the database was edited"
        )
    killed = exists().where(holds.c.target == targets.c.target)
    remembered = select(targets).where((targets.c.last_kill_at >= remember_since) | killed)
    forgotten = (
        select(targets.c.last_kill)
        .where(targets.c.last_kill_at < remember_since, ~killed)
        .order_by(targets.c.last_kill.desc())
        .limit(1)
    )
    head = stand.head
    replica = Replica(
        head.namespace,
        head.epoch,
        head.position,
        MappingProxyType(holds_by_target(rows)),
        MappingProxyType({row.target: mark_row(row) for row in connection.execute(remembered)}),
        floor_seq=connection.execute(forgotten).scalar() or 0,
    )
    return head, replica
