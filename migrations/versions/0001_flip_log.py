"""The flip log, its head, what it folds to (targets and holds), and the tokens.

What the database enforces by itself: the log only grows, by exactly one position at a time; text is compared byte by
byte; a number is a number (STRICT).
"""

from __future__ import annotations

from typing import Final

from alembic import op

revision: Final = "0001"
down_revision: Final = None
branch_labels: Final = None
depends_on: Final = None


def _tables(*, text: str, number: str, real: str, end: str) -> tuple[str, ...]:
    return (
        f"""
        CREATE TABLE log (
            seq {number} PRIMARY KEY CHECK (seq >= 1),
            kind {text} NOT NULL CHECK (kind IN ('kill', 'revive', 'note')),
            at {text} NOT NULL,
            actor {text} NOT NULL,
            scope {text},
            target {text},
            flip_id {text} UNIQUE,
            body {text} NOT NULL,
            hash {text} NOT NULL CHECK (length(hash) = 64),
            CHECK ((kind = 'note') = (target IS NULL)),
            CHECK ((target IS NULL) = (scope IS NULL)),
            CHECK ((target IS NULL) = (flip_id IS NULL))
        ){end}
        """,
        "CREATE INDEX log_at ON log (at, seq)",
        "CREATE INDEX log_kind ON log (kind, seq)",
        "CREATE INDEX log_scope ON log (scope, seq)",
        "CREATE INDEX log_target ON log (target, seq)",
        "CREATE INDEX log_actor ON log (actor, seq)",
        f"""
        CREATE TABLE log_head (
            id {number} PRIMARY KEY CHECK (id = 1),
            namespace {text} NOT NULL,
            epoch {text} NOT NULL CHECK (length(epoch) = 16),
            seq {number} NOT NULL CHECK (seq >= 1),
            hash {text} NOT NULL CHECK (length(hash) = 64),
            at {text} NOT NULL,
            active_holds {number} NOT NULL CHECK (active_holds >= 0),
            ttl_ms {number} NOT NULL CHECK (ttl_ms BETWEEN 200 AND 5000),
            ttl_changed_at {real} NOT NULL,
            ttl_before_ms {number} NOT NULL
        ){end}
        """,
        f"""
        CREATE TABLE targets (
            target {text} PRIMARY KEY NOT NULL,
            last_kill {number} NOT NULL REFERENCES log (seq),
            last_kill_at {text} NOT NULL,
            barrier {number} NOT NULL,
            version {number} NOT NULL,
            CHECK (barrier BETWEEN 0 AND last_kill),
            CHECK (version >= last_kill)
        ){end}
        """,
        "CREATE INDEX targets_last_kill_at ON targets (last_kill_at)",
        f"""
        CREATE TABLE holds (
            seq {number} PRIMARY KEY REFERENCES log (seq),
            target {text} NOT NULL REFERENCES targets (target),
            actor {text} NOT NULL,
            at {text} NOT NULL,
            reason {text} NOT NULL,
            in_flight {text} NOT NULL CHECK (in_flight IN ('abort', 'finish')),
            queued {text} NOT NULL CHECK (queued IN ('discard', 'drain')),
            flip_id {text} NOT NULL
        ){end}
        """,
        "CREATE INDEX holds_target ON holds (target, seq)",
        f"""
        CREATE TABLE tokens (
            token_id {text} PRIMARY KEY NOT NULL,
            secret_sha256 {text} NOT NULL CHECK (length(secret_sha256) = 64),
            subject {text} NOT NULL,
            role {text} NOT NULL,
            tenants {text},
            created_at {text} NOT NULL,
            expires_at {real} NOT NULL,
            revoked_at {text}
        ){end}
        """,
    )


_SQLITE_TRIGGERS: Final = (
    """
    CREATE TRIGGER log_no_update BEFORE UPDATE ON log
    BEGIN SELECT RAISE(ABORT, 'the flip log is append-only: UPDATE is refused'); END
    """,
    """
    CREATE TRIGGER log_no_delete BEFORE DELETE ON log
    BEGIN SELECT RAISE(ABORT, 'the flip log is append-only: DELETE is refused'); END
    """,
    # INSERT OR REPLACE deletes the row in its way without asking a DELETE trigger: so it must find none in its way.
    """
    CREATE TRIGGER log_gapless BEFORE INSERT ON log
    WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM log)
        OR EXISTS (SELECT 1 FROM log WHERE flip_id = NEW.flip_id)
    BEGIN SELECT RAISE(ABORT, 'the flip log is gapless: this is not the next position, or its flip_id is taken'); END
    """,
)

_POSTGRESQL_TRIGGERS: Final = (
    """
    CREATE FUNCTION log_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION USING ERRCODE = 'restrict_violation',
            MESSAGE = 'the flip log is append-only: ' || TG_OP || ' is refused';
    END $$
    """,
    """
    CREATE TRIGGER log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON log
    FOR EACH STATEMENT EXECUTE FUNCTION log_append_only()
    """,
    """
    CREATE FUNCTION log_gapless() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.seq IS DISTINCT FROM (SELECT coalesce(max(seq), 0) + 1 FROM log) THEN
            RAISE EXCEPTION USING ERRCODE = 'restrict_violation',
                MESSAGE = 'the flip log is gapless: this is not the next position';
        END IF;
        RETURN NEW;
    END $$
    """,
    "CREATE TRIGGER log_gapless BEFORE INSERT ON log FOR EACH ROW EXECUTE FUNCTION log_gapless()",
    # ALWAYS: also in a session that pretends to apply replicated rows.
    "ALTER TABLE log ENABLE ALWAYS TRIGGER log_append_only",
    "ALTER TABLE log ENABLE ALWAYS TRIGGER log_gapless",
)


def _statements(dialect: str) -> tuple[str, ...]:
    if dialect == "sqlite":
        return _tables(text="TEXT", number="INTEGER", real="REAL", end=" STRICT") + _SQLITE_TRIGGERS
    return _tables(text='text COLLATE "C"', number="bigint", real="double precision", end="") + _POSTGRESQL_TRIGGERS


def upgrade() -> None:
    connection = op.get_bind()
    for statement in _statements(connection.dialect.name):
        connection.exec_driver_sql(statement)


def downgrade() -> None:
    connection = op.get_bind()
    if connection.exec_driver_sql("SELECT count(*) FROM log").scalar_one() > 0:
        raise RuntimeError("this would delete the flip log, which is never done: drop the database by hand if you must")
    for table in ("tokens", "holds", "targets", "log_head", "log"):
        connection.exec_driver_sql(f"DROP TABLE {table}")
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("DROP FUNCTION log_append_only()")
        connection.exec_driver_sql("DROP FUNCTION log_gapless()")
