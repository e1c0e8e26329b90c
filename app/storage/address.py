"""The address of a database, and which dialect it names."""

from __future__ import annotations

from typing import Literal, TypeAlias

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from app.storage.errors import StoreRefused

Backend: TypeAlias = Literal["sqlite", "postgresql"]


def parse_address(address: str) -> tuple[Backend, URL]:
    """Return the dialect that an address names, and its parts.

    Raises:
        StoreRefused: it is no address, or names another database. The message never repeats it: it may hold a password.
    """
    try:
        url = make_url(address)
    except ArgumentError:
        raise StoreRefused("the database address is not one: use sqlite:///path or postgresql://host/name") from None
    match url.get_backend_name():
        case "sqlite":
            return "sqlite", url
        case "postgresql":
            return "postgresql", url
        case other:
            raise StoreRefused(f"{other} is not supported: use sqlite:///path or postgresql://host/name")
