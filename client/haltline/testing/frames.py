"""The lease request and its answer, as the service gives it: one frame, or a problem."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from haltline.canonical import canonical, parse
from haltline.errors import ConfigurationError, InvalidDocument, InvalidTarget
from haltline.flips import is_epoch, is_hash
from haltline.renewal import Reply
from haltline.scopes import check_id
from haltline.switch import namespace_of
from haltline.testing.log import FakeLog

_REQUIRED: Final = frozenset({"stream", "nonce", "worker", "instance", "epoch", "seq", "hash"})
_KNOWN: Final = _REQUIRED | {"namespace"}
_NONCE: Final = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)


def problem(status: int, code: str, detail: str) -> Reply:
    """Return a problem reply (RFC 9457)."""
    members = {
        "type": f"urn:haltline:problem:{code}",
        "title": code.replace("_", " "),
        "status": status,
        "detail": detail,
        "code": code,
    }
    return Reply(status, "application/problem+json", encoded=False, body=canonical(members))


def refused(token: str, *, ours: str, namespace: str) -> Reply | None:
    """Return the problem of a token that may not have a lease, or None."""
    if token == ours:
        return None
    try:
        foreign = namespace_of(token) != namespace
    except ConfigurationError:
        foreign = False
    if foreign:
        return problem(403, "wrong_namespace", "The token is of another namespace.")
    return problem(401, "unauthenticated", "The token is malformed, unknown, expired or revoked.")


def answer(log: FakeLog, body: bytes, *, received_at: int, ttl_ms: int) -> Reply:
    """Return the answer to a lease request.

    Args:
        log: the log as it stands.
        body: the request's body.
        received_at: the node's clock when the request was received, microseconds; the log is read one later.
        ttl_ms: the lease ttl, milliseconds.
    """
    try:
        asked = parse(body)
    except InvalidDocument as error:
        return problem(400, "malformed_body", str(error))
    if not isinstance(asked, dict) or not _well_formed(asked):
        return problem(422, "invalid_fields", "A member is missing, unknown or malformed.")
    if asked.get("namespace", log.namespace) != log.namespace:
        return problem(409, "foreign", "The namespace is another.")
    if asked["epoch"] not in (None, log.epoch):
        return problem(409, "foreign", "The epoch is another.")
    replica, seq = log.replica, asked["seq"]
    if seq > replica.position.seq or (seq > 0 and asked["hash"] != log.entries[seq - 1]["hash"]):
        return problem(409, "regress", "The position is not one of this log.")
    frame = {
        "v": 1,
        "namespace": log.namespace,
        "timebase": "fake",
        "epoch": log.epoch,
        "from": seq if seq > 0 else replica.position.seq,
        "seq": replica.position.seq,
        "hash": replica.position.hash,
        "read_at": received_at + 1,
        "ttl_ms": ttl_ms,
        "tenants": None,
        "entries": log.shown(seq) if seq > 0 else [],
        "nonce": asked["nonce"],
        "received_at": received_at,
    }
    if seq == 0:
        frame["snapshot"] = replica.snapshot()
    return Reply(200, "application/json", encoded=False, body=canonical(frame))


def _well_formed(asked: Mapping[str, Any]) -> bool:
    if not _REQUIRED <= set(asked) <= _KNOWN or asked["stream"] is not False:
        return False
    try:
        check_id(asked["worker"])
        check_id(asked["instance"])
    except InvalidTarget:
        return False
    nonce, seq, epoch, head = asked["nonce"], asked["seq"], asked["epoch"], asked["hash"]
    if type(nonce) is not str or not _NONCE.fullmatch(nonce) or type(seq) is not int or seq < 0:
        return False
    if seq > 0 and (epoch is None or head is None):
        return False
    return (epoch is None or is_epoch(epoch)) and (head is None or is_hash(head))
