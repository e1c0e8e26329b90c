"""Lease requests, acks and their answers, as the service gives them: frames, or a problem."""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final

from haltline.canonical import canonical, parse
from haltline.errors import ConfigurationError, InvalidDocument, InvalidTarget
from haltline.flips import is_epoch, is_hash
from haltline.frames import FRAME_TYPE, FRAME_VERSION, STREAM_TYPE, Reply
from haltline.keys import StampKey
from haltline.scopes import check_id
from haltline.switch import namespace_of
from haltline.testing.log import FakeLog

_POSITION: Final = frozenset({"worker", "instance", "epoch", "seq", "hash"})
_REQUIRED: Final = _POSITION | {"stream", "nonce"}
_TIMEBASE: Final = "fake"
_ACK_WITHIN_MS: Final = 50
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


def answer(
    log: FakeLog, body: bytes, *, received_at: int, read_at: int, ttl_ms: int, keys: Sequence[StampKey] = ()
) -> Reply:
    """Return the answer to a lease request: the first frame, or a problem.

    Args:
        log: the log as it stands.
        body: the request's body.
        received_at: the node's clock when the request was received, microseconds.
        read_at: the same clock when the log was read: later.
        ttl_ms: the lease ttl, milliseconds.
        keys: the stamp keys, the newest first.
    """
    asked = _asked(log, body, _REQUIRED)
    if isinstance(asked, Reply):
        return asked
    seq = asked["seq"]
    frame = _common(log, seq if seq > 0 else log.replica.position.seq, read_at=read_at, ttl_ms=ttl_ms)
    frame.update(nonce=asked["nonce"], received_at=received_at)
    if seq == 0:
        frame["snapshot"] = log.replica.snapshot()
    frame["stamp_keys"] = [{"id": each.id, "key": _base64(each.key), "until": int(each.until)} for each in keys]
    if asked["stream"]:
        frame["ack_within_ms"] = _ACK_WITHIN_MS
    return Reply(200, STREAM_TYPE if asked["stream"] else FRAME_TYPE, encoded=False, body=canonical(frame))


def later(log: FakeLog, cursor: int, *, read_at: int, ttl_ms: int) -> bytes:
    """Return a frame of a stream that is not its first.

    Args:
        log: the log as it stands.
        cursor: the position that the frame before it has reached.
        read_at: the node's clock when the log was read, microseconds.
        ttl_ms: the lease ttl, milliseconds.
    """
    return canonical(_common(log, cursor, read_at=read_at, ttl_ms=ttl_ms))


def acked(log: FakeLog, body: bytes) -> tuple[str, str, int] | Reply:
    """Return the worker, the instance and the position that an ack tells of, or a problem."""
    asked = _asked(log, body, _POSITION)
    if isinstance(asked, Reply):
        return asked
    if asked["seq"] < 1:
        return problem(422, "invalid_fields", "seq begins at 1.")
    return asked["worker"], asked["instance"], asked["seq"]


def streams(body: bytes) -> bool:
    """Return whether a request asks for a stream of frames."""
    try:
        asked = parse(body)
    except InvalidDocument:
        return False
    return isinstance(asked, dict) and asked.get("stream") is True


def _base64(key: bytes) -> str:
    return urlsafe_b64encode(key).rstrip(b"=").decode("ascii")


def _common(log: FakeLog, start: int, *, read_at: int, ttl_ms: int) -> dict[str, Any]:
    """Return the members that every frame has."""
    position = log.replica.position
    return {
        "v": FRAME_VERSION,
        "namespace": log.namespace,
        "timebase": _TIMEBASE,
        "epoch": log.epoch,
        "from": start,
        "seq": position.seq,
        "hash": position.hash,
        "read_at": read_at,
        "ttl_ms": ttl_ms,
        "tenants": None,
        "entries": log.shown(start),
    }


def _asked(log: FakeLog, body: bytes, required: frozenset[str]) -> dict[str, Any] | Reply:
    """Return the members of a request that is well formed and of this log, or a problem."""
    try:
        asked = parse(body)
    except InvalidDocument as error:
        return problem(400, "malformed_body", str(error))
    if not isinstance(asked, dict) or not _well_formed(asked, required):
        return problem(422, "invalid_fields", "A member is missing, unknown or malformed.")
    if asked.get("namespace", log.namespace) != log.namespace:
        return problem(409, "foreign", "The namespace is another.")
    if asked["epoch"] not in (None, log.epoch):
        return problem(409, "foreign", "The epoch is another.")
    seq = asked["seq"]
    if seq > log.replica.position.seq or (seq > 0 and asked["hash"] != log.entries[seq - 1]["hash"]):
        return problem(409, "regress", "The position is not one of this log.")
    return asked


def _well_formed(asked: Mapping[str, Any], required: frozenset[str]) -> bool:
    if not required <= set(asked) <= required | {"namespace"} or type(asked.get("stream", False)) is not bool:
        return False
    try:
        check_id(asked["worker"])
        check_id(asked["instance"])
    except InvalidTarget:
        return False
    nonce, seq, epoch, head = asked.get("nonce", "none"), asked["seq"], asked["epoch"], asked["hash"]
    if type(nonce) is not str or not _NONCE.fullmatch(nonce) or type(seq) is not int or seq < 0:
        return False
    if seq > 0 and (epoch is None or head is None):
        return False
    return (epoch is None or is_epoch(epoch)) and (head is None or is_hash(head))
