"""How a migration runs: on a connection it is handed, under time-outs, one migrating process at a time.

`haltline-server migrate` and the embedded start get here through app.storage.migrate, which hands the connection over;
there is no alembic.ini, because the address of a database belongs to the service's configuration alone.
"""

from __future__ import annotations

from typing import Final

from alembic import context
from sqlalchemy import Connection

# "migrate!" in ASCII. Not the lock that flips take: a migration that waits must not stop a kill.
_MIGRATION_LOCK: Final = 0x6D69677261746521
_LOCK_TIMEOUT_MS: Final = 5_000  # a DDL statement that queues behind a long reader blocks every kill behind itself
_STATEMENT_TIMEOUT_MS: Final = 60_000
_MIGRATION_LOCK_TIMEOUT_MS: Final = 60_000


def _run(connection: Connection) -> None:
    # transactional_ddl: SQLite can roll a CREATE TABLE back, Alembic merely does not assume it.
    context.configure(connection=connection, transactional_ddl=True)
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = {_MIGRATION_LOCK_TIMEOUT_MS}")
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = {_STATEMENT_TIMEOUT_MS}")
            # The version is read after this, in a new statement: whoever waited here finds the work done.
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}")
        context.run_migrations()


handed = context.config.attributes.get("connection")
if context.is_offline_mode() or not isinstance(handed, Connection):
    raise RuntimeError("migrations run on a connection that is handed over: use `haltline-server migrate`")
_run(handed)
