"""Granting: what a lease request that is well formed and authenticated is answered with, however it came in."""

from __future__ import annotations

from dataclasses import dataclass

from app.api.auth import CHALLENGE
from app.api.problems import Problem
from app.domain.access import Principal
from app.service.frames import Foreign, LeaseRequest, Regress
from app.service.node import Node
from app.service.refresher import Unready


@dataclass(frozen=True, slots=True)
class Asked:
    """What the body of a lease request says.

    Attributes:
        request: what the frame depends on.
        namespace: the namespace that the worker expects; None if it does not say.
    """

    request: LeaseRequest
    namespace: str | None


def grant(here: Node, who: Principal, asked: Asked, *, received_at_us: int) -> bytes:
    """Return the frame that answers a lease request, after a read of the log that began later.

    Args:
        here: the node that serves the request.
        who: the holder of the token; it may lease.
        asked: what the worker sent.
        received_at_us: when the request was received: raw clock of this process, microseconds, rounded up.

    Raises:
        Problem: there is no lease for it, or none now.
        StoreUnavailable: the token, or an old position, had to be looked up and could not be.
    """
    if asked.namespace is not None and asked.namespace != here.namespace:
        raise Problem("foreign", f"This service keeps the log of namespace {here.namespace}.")
    published = here.refresher.read_after(received_at_us)
    if isinstance(published, Unready):
        if published is Unready.STALE:
            raise Problem("stale", headers={"Retry-After": "1"})
        raise Problem("diverged")
    # The read may have brought this very token's revocation: then it grants nothing any more.
    if not here.tokens.holds(who):
        raise Problem("unauthenticated", headers={"WWW-Authenticate": f'{CHALLENGE}, error="invalid_token"'})
    frame = here.frames.frame(
        published, asked.request, view=who.tenants, received_at_us=received_at_us, past=here.refresher.position
    )
    if isinstance(frame, Foreign):
        raise Problem("foreign", f"{frame.detail}: another database, or one restored from a backup.")
    if isinstance(frame, Regress):
        raise Problem("regress", f"{frame.detail}: a restored backup, a lost failover or another database.")
    return frame
