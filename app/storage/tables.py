"""The tables of the flip log and of what stands beside it, as the statements of this package see them.

What the database itself enforces (STRICT, COLLATE "C", triggers, indices) stands in the migrations; nothing is ever
created from here.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Float, MetaData, Table, Text

metadata: Final = MetaData()

log: Final = Table(
    "log",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("scope", Text),
    Column("target", Text),
    Column("flip_id", Text, unique=True),
    Column("body", Text, nullable=False),
    Column("hash", Text, nullable=False),
)
"""Every entry, append-only: the columns repeat what filters need, ``body`` is the entry exactly as it was hashed."""

log_head: Final = Table(
    "log_head",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("namespace", Text, nullable=False),
    Column("epoch", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("hash", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("active_holds", BigInteger, nullable=False),
    Column("ttl_ms", BigInteger, nullable=False),
    Column("ttl_changed_at", Float(53), nullable=False),
    Column("ttl_before_ms", BigInteger, nullable=False),
)
"""One row: where the log stands, how many holds are active, and the store-wide lease ttl."""

targets: Final = Table(
    "targets",
    metadata,
    Column("target", Text, primary_key=True),
    Column("last_kill", BigInteger, nullable=False),
    Column("last_kill_at", Text, nullable=False),
    Column("barrier", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
)
"""What every target that was ever killed remembers."""

holds: Final = Table(
    "holds",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("target", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("in_flight", Text, nullable=False),
    Column("queued", Text, nullable=False),
    Column("flip_id", Text, nullable=False),
)
"""The active holds; a released one is deleted here and stays in the log."""

tokens: Final = Table(
    "tokens",
    metadata,
    Column("token_id", Text, primary_key=True),
    Column("secret_sha256", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("tenants", Text),
    Column("created_at", Text, nullable=False),
    Column("expires_at", Float(53), nullable=False),
    Column("revoked_at", Text),
)
"""Tokens, revoked ones included; ``tenants`` is a canonical JSON array, NULL where the token is not bound."""

stamp_secrets: Final = Table(
    "stamp_secrets",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False, unique=True),
    Column("secret", Text, nullable=False),
    Column("made_at", Float(53), nullable=False),
)
"""What stamp keys are derived from, hexadecimal, in the order of ``number``: a node that adds one takes the next."""

outcomes: Final = Table(
    "outcomes",
    metadata,
    Column("run", Text, primary_key=True),
    Column("flip", BigInteger, primary_key=True, autoincrement=False),
    Column("worker", Text, nullable=False),
    Column("instance", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("tenants", Text),
    Column("at", Text, nullable=False),
    Column("ended", Text, nullable=False),
    Column("cleanups", Text, nullable=False),
    Column("kept_at", Float(53), nullable=False),
)
"""What workers say of their clean-up; ``tenants`` as in ``tokens``, ``kept_at`` is when a node heard of it."""
