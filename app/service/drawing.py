"""Drawing: a new token, with a secret that nobody had before."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from app.domain.access import Role
from app.domain.moments import moment
from app.domain.tokens import BASE62, ID_ALPHABET, ID_LENGTH, SECRET_LENGTH, Token, check_binding, lifetime
from app.service.clocks import Clocks
from app.service.store import StoredToken
from haltline.scopes import check_id


@dataclass(frozen=True, slots=True)
class Issued:
    """A token that was just made.

    Attributes:
        text: the token itself; it is shown once and kept nowhere.
        stored: what is kept of it.
    """

    text: str = field(repr=False)
    stored: StoredToken


def draw(
    clocks: Clocks,
    *,
    namespace: str,
    subject: str,
    role: Role,
    tenants: tuple[str, ...] | None = None,
    days: int | None = None,
) -> Issued:
    """Return a new token, which is not kept yet.

    Args:
        clocks: the wall clock dates it.
        namespace: the namespace that it is for.
        subject: whom it names, an id.
        role: what it is for.
        tenants: the tenants it is bound to; None for none.
        days: how long it lasts, 1 to 366 days; None for 90.

    Raises:
        ValueError: one of them is out of range.
    """
    bound = check_binding(role, tenants)
    now = clocks.wall()
    ends = now + lifetime(days)
    token = Token(
        namespace,
        "".join(secrets.choice(ID_ALPHABET) for _ in range(ID_LENGTH)),
        "".join(secrets.choice(BASE62) for _ in range(SECRET_LENGTH)),
    )
    stored = StoredToken(
        token_id=token.id,
        secret_sha256=token.secret_sha256,
        subject=check_id(subject, "subject"),
        role=role.value,
        tenants=bound,
        created_at=moment(now),
        expires_at=ends,
    )
    return Issued(token.text, stored)
