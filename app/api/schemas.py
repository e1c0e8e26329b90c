"""Schemas: what comes in, checked field by field; what goes out is in app/api/shown.py.

They load and check, and never query. What a caller may send beyond them is refused, never passed over.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, get_args

import marshmallow as ma

from app.api.fields import (
    EPOCH_PATTERN,
    HASH_PATTERN,
    NAMESPACE_PATTERN,
    NONCE_PATTERN,
    Text,
    count,
    digits,
    identifier,
    matching,
    moment,
    one_of,
    reason,
    role,
    target,
)
from app.domain.promises import TTL_MAX_MS, TTL_MIN_MS
from app.domain.tokens import MAX_DAYS, MAX_TENANTS, TOKEN_ID_PATTERN
from haltline.flips import InFlight, Queued
from haltline.scopes import Scope

NOT_YET: Final = "not honoured yet"

FLIP_ID_HELP: Final = "your idempotency key: repeating a flip with the same one never flips twice"


class Strict(ma.Schema):
    """A body or query in which nothing unknown may stand."""

    class Meta:
        """What marshmallow reads."""

        unknown = ma.RAISE


class KillBody(Strict):
    """A kill."""

    target = target()
    reason = reason()
    flip_id = identifier("flip_id", logged=True, description=FLIP_ID_HELP)
    in_flight = one_of(
        get_args(InFlight),
        "what happens to calls that are running: abort ends them, finish lets them end by themselves",
        load_default="abort",
    )
    queued = one_of(
        get_args(Queued),
        "what happens to planned work: discard has it never run, not after a revive either; drain lets it run",
        load_default="discard",
    )

    @ma.pre_load
    def refuse_drills(self, members: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Refuse what this service would otherwise have to ignore."""
        if "drill" in members:
            raise ma.ValidationError(f"drill is {NOT_YET}: leave it out; this would be a real kill.", "drill")
        return members


class ReviveBody(Strict):
    """A revive."""

    target = target()
    holds = ma.fields.List(
        count(low=1, description="the seq of the kill that made the hold"),
        required=True,
        validate=ma.validate.Length(1, 1_000),
        metadata={"description": "the holds to release", "uniqueItems": True},
    )
    reason = reason()
    flip_id = identifier("flip_id", logged=True, description=FLIP_ID_HELP)

    @ma.validates("holds")
    def no_hold_twice(self, holds: list[int], **_: Any) -> None:
        """Refuse a list that names a hold twice."""
        if len(set(holds)) != len(holds):
            raise ma.ValidationError("A hold is named twice.")


class TokenBody(Strict):
    """A token to be made."""

    subject = identifier(
        "subject", required=True, logged=True, description="the person or machine that the token names"
    )
    role = role()
    tenants = ma.fields.List(
        identifier("tenant", logged=True),
        validate=ma.validate.Length(1, MAX_TENANTS),
        metadata={"description": "the tenants it is bound to; roles worker and operator only", "uniqueItems": True},
    )
    expires_in_days = count(low=1, high=MAX_DAYS, description="how long it lasts, days; 90 if left out")


class SettingsBody(Strict):
    """Settings of the whole store."""

    ttl_ms = count(
        low=TTL_MIN_MS, high=TTL_MAX_MS, required=True, description="how long a lease lasts at most, milliseconds"
    )


class LeaseBody(Strict):
    """A request for a lease."""

    stream = ma.fields.Raw(
        required=True,
        metadata={
            "type": "boolean",
            "description": "true: frames are streamed, a line each, for 6 to 9 s; false: one frame is answered",
        },
    )
    nonce = matching(NONCE_PATTERN, "a fresh random text, repeated in the frame", length=128, required=True)
    worker = identifier("worker", required=True, description="the worker's name")
    instance = identifier("instance", required=True, description="a random id of this very process")
    namespace = matching(NAMESPACE_PATTERN, "the namespace that the worker expects", length=32)
    epoch = matching(
        EPOCH_PATTERN, "the log that the worker knows; null for none", length=16, required=True, allow_none=True
    )
    seq = count(low=0, description="how far the worker has applied it; 0 for not at all", required=True)
    hash = matching(
        HASH_PATTERN, "the hash of the entry at seq; null for none", length=64, required=True, allow_none=True
    )

    @ma.validates("stream")
    def true_or_false(self, value: object, **_: Any) -> None:
        """Refuse what is neither: 1 and "true" too."""
        if type(value) is not bool:
            raise ma.ValidationError("Send true for a stream of frames, false for one.")

    @ma.validates_schema(skip_on_field_errors=True)
    def whole_position(self, members: dict[str, Any], **_: Any) -> None:
        """Refuse a position of which a part is missing."""
        if members["seq"] > 0 and (members["epoch"] is None or members["hash"] is None):
            raise ma.ValidationError("A position is seq, epoch and hash together; a seq of 0 needs neither.", "seq")


class AckBody(Strict):
    """How far a worker has applied the log."""

    worker = identifier("worker", required=True, description="the worker's name")
    instance = identifier("instance", required=True, description="a random id of this very process")
    namespace = matching(NAMESPACE_PATTERN, "the namespace that the worker expects", length=32)
    epoch = matching(EPOCH_PATTERN, "the log that the worker knows", length=16, required=True)
    seq = count(low=1, description="how far it has applied it", required=True)
    hash = matching(HASH_PATTERN, "the hash of the entry at seq", length=64, required=True)


class FlagsQuery(Strict):
    """Which flags to list."""

    cursor = target(required=False, description="the next_cursor of the page before")
    limit = digits(low=1, high=1_000, description="how many at most", load_default=100)


class LogQueryArgs(Strict):
    """Which entries to list; every filter given must hold."""

    cursor = digits(low=0, description="the next_cursor of the page before")
    order = Text(validate=ma.validate.OneOf(["asc", "desc"]), load_default="asc", metadata={"description": "by seq"})
    limit = digits(low=1, high=1_000, description="how many at most", load_default=100)
    since = moment("entries of this moment and later")
    until = moment("entries before this moment")
    scope = Text(
        validate=ma.validate.OneOf([each.value for each in Scope]), metadata={"description": "flips of this scope"}
    )
    target = target(required=False, description="flips of this target")
    actor = identifier("actor", description="entries of this subject")
    kind = Text(
        validate=ma.validate.OneOf(["kill", "revive", "note"]), metadata={"description": "entries of this kind"}
    )


class ExportQuery(Strict):
    """What to export."""

    class Meta(Strict.Meta):
        """What marshmallow reads."""

        include: ClassVar[dict[str, ma.fields.Field[Any]]] = {
            "from": digits(low=1, description="the first seq; 1 if left out"),
        }

    format = Text(
        validate=ma.validate.OneOf(["jsonl"]),
        load_default="jsonl",
        metadata={"description": "one JSON object a line"},
    )
    to = digits(low=1, description="the last seq; the head of the log if left out or beyond it")


class TokensQuery(Strict):
    """Which tokens to list."""

    cursor = matching(TOKEN_ID_PATTERN, "the next_cursor of the page before", length=12)
    limit = digits(low=1, high=1_000, description="how many at most", load_default=100)
