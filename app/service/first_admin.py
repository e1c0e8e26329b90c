"""The first admin token of a log: one for all processes that start at once, and shown by the one that made it.

Whether there is one already is decided under the log lock, in the transaction that writes it. So of two control lanes
that begin on one empty database one shows a token, and the other can say who did.
"""

from __future__ import annotations

from typing import Final

from app.domain.access import Role
from app.service.clocks import Clocks
from app.service.drawing import Issued, draw
from app.service.store import FirstToken, Store

FIRST_ADMIN: Final = "admin"
"""The subject of the token that the first start makes."""


def first_admin(store: Store, clocks: Clocks, *, namespace: str, shown_by: str) -> Issued | FirstToken:
    """Make the first admin token, or return the one that was made before.

    Args:
        store: where it is kept; its log is there.
        clocks: the wall clock dates it.
        namespace: the namespace of the log.
        shown_by: who is going to show it, one line; it stands in the log for those who come later.

    Raises:
        StoreUnavailable: nothing was made.
        OutcomeUnknown: it may have been made; nobody knows its secret.
    """
    drawn = draw(clocks, namespace=namespace, subject=FIRST_ADMIN, role=Role.ADMIN)
    found = store.add_first_token(drawn.stored, actor=FIRST_ADMIN, shown_by=shown_by)
    return drawn if found.token == drawn.stored else found
