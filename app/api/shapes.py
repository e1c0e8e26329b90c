"""Shapes: how flags, flips and tokens are written in replies."""

from __future__ import annotations

import math
from typing import Any

from app.domain.etags import etag
from app.domain.moments import moment, moment_after
from app.service.store import Flag, Head, StoredToken, Ttl
from haltline.replica import hold_members


def flag(head: Head, shown: Flag) -> dict[str, Any]:
    """Return a flag as replies have it."""
    mark = shown.mark
    return {
        "target": str(shown.target),
        "killed": bool(shown.holds),
        "holds": [hold_members(hold) for hold in shown.holds],
        "last_kill": mark.last_kill if mark is not None else 0,
        "barrier": mark.barrier if mark is not None else 0,
        "etag": etag(head.epoch, shown.version),
    }


def standing(head: Head) -> dict[str, Any]:
    """Return where the log stands, as replies have it."""
    return {
        "namespace": head.namespace,
        "epoch": head.epoch,
        "seq": head.position.seq,
        "hash": head.position.hash,
    }


def token(stored: StoredToken) -> dict[str, Any]:
    """Return a token as replies have it: never its secret."""
    return {
        "token_id": stored.token_id,
        "subject": stored.subject,
        "role": stored.role,
        "tenants": list(stored.tenants) if stored.tenants is not None else None,
        "created_at": stored.created_at,
        "expires_at": moment(stored.expires_at),
        "revoked_at": stored.revoked_at,
    }


def settings(ttl: Ttl) -> dict[str, Any]:
    """Return the settings of the store as replies have them."""
    known = 0 < ttl.changed_at < math.inf
    return {
        "ttl_ms": ttl.ttl_ms,
        "changed_at": moment_after(ttl.changed_at) if known else None,
        "before_ms": ttl.before_ms if ttl.changed_at > 0 else None,
    }
