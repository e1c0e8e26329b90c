"""A standby of a PostgreSQL server: a copy that follows it and takes no writes until it is promoted."""

from __future__ import annotations

from tests.support.postgres import SUPERUSER, PostgresServer


class Standby(PostgresServer):
    """A running hot standby."""

    def __init__(self, primary: PostgresServer) -> None:
        """Copy a running primary and follow it."""
        self._primary = primary
        super().__init__()

    def _run(self, program: str, *args: str) -> None:
        if program != "initdb":
            super()._run(program, *args)
            return
        super()._run(
            "pg_basebackup",
            f"--pgdata={self._data}",
            f"--host={self._primary.folder / 'socket'}",
            f"--username={SUPERUSER}",
            "--write-recovery-conf",
            "--checkpoint=fast",
        )
