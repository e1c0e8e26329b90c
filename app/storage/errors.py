"""What keeps a store from opening, as one error whose message says what to do about it."""

from __future__ import annotations

from app.service.store import StoreUnavailable


class StoreRefused(StoreUnavailable):
    """The database cannot be used as it is: its address, place, owner, settings or schema is wrong.

    Trying again without changing something does not help; nothing was changed.
    """
