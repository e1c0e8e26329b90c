"""Beside the log: the secrets that stamp keys are derived from, and what the clean-up of stopped runs came to."""

from __future__ import annotations

from typing import Final

from alembic import op

revision: Final = "0002"
down_revision: Final = "0001"
branch_labels: Final = None
depends_on: Final = None


def _tables(*, text: str, number: str, real: str, end: str) -> tuple[str, ...]:
    return (
        f"""
        CREATE TABLE stamp_secrets (
            number {number} PRIMARY KEY CHECK (number >= 1),
            id {text} NOT NULL UNIQUE,
            secret {text} NOT NULL CHECK (length(secret) = 64),
            made_at {real} NOT NULL
        ){end}
        """,
        f"""
        CREATE TABLE outcomes (
            run {text} NOT NULL,
            flip {number} NOT NULL CHECK (flip >= 1),
            worker {text} NOT NULL,
            instance {text} NOT NULL,
            subject {text} NOT NULL,
            tenants {text},
            at {text} NOT NULL,
            ended {text} NOT NULL CHECK (ended IN ('cleanup', 'killed')),
            cleanups {text} NOT NULL,
            kept_at {real} NOT NULL,
            PRIMARY KEY (run, flip)
        ){end}
        """,
        "CREATE INDEX outcomes_flip ON outcomes (flip, run)",
        "CREATE INDEX outcomes_kept_at ON outcomes (kept_at)",
    )


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        statements = _tables(text="TEXT", number="INTEGER", real="REAL", end=" STRICT")
    else:
        statements = _tables(text='text COLLATE "C"', number="bigint", real="double precision", end="")
    for statement in statements:
        connection.exec_driver_sql(statement)


def downgrade() -> None:
    connection = op.get_bind()
    for table in ("outcomes", "stamp_secrets"):
        connection.exec_driver_sql(f"DROP TABLE {table}")
