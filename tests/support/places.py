"""Where a store under test keeps its log, and what a test may do there behind the store's back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import create_engine

from app.service.store import Store
from app.storage import open_store

NAMESPACE = "default"
EPOCH = "0123456789abcdef"
OPENED_AT = "2026-11-20T20:25:11.000000Z"


@dataclass(frozen=True, slots=True)
class Place:
    """One database.

    Attributes:
        url: the address that the store is opened with.
        owner_url: the address of whoever owns the tables.
    """

    url: str
    owner_url: str

    @property
    def sqlite(self) -> bool:
        """Whether it is SQLite."""
        return self.url.startswith("sqlite")

    def open(self, **options: Any) -> Store:
        """Return a store here, without a log."""
        return open_store(self.url, **options)

    def opened(self, **options: Any) -> Store:
        """Return a store here, with its log begun."""
        store = self.open(**options)
        try:
            store.open_log(namespace=NAMESPACE, ttl_ms=1000, at=OPENED_AT, epoch=EPOCH)
        except BaseException:
            store.close()
            raise
        return store

    def execute(self, *statements: str, service: bool = False) -> list[Any]:
        """Run raw SQL as the owner, or with the rights of the service; return the rows of the last statement."""
        engine = create_engine(self.url if service else self.owner_url)
        try:
            with engine.begin() as connection:
                result = None
                for statement in statements:
                    result = connection.exec_driver_sql(statement)
                return list(result) if result is not None and result.returns_rows else []
        finally:
            engine.dispose()

    def disarm(self) -> None:
        """Take the append-only triggers off the log, as only an owner who means harm can."""
        if self.sqlite:
            self.execute(*(f"DROP TRIGGER {name}" for name in ("log_no_update", "log_no_delete", "log_gapless")))
        else:
            self.execute("ALTER TABLE log DISABLE TRIGGER ALL")
