"""The store of the flip log on SQLite and PostgreSQL."""

from __future__ import annotations

from app.storage.errors import StoreRefused
from app.storage.opening import open_store

__all__ = ["StoreRefused", "open_store"]
