"""Schemas: what comes in, checked field by field, and what goes out, documented.

They load and check, and never query. What a caller may send beyond them is refused, never passed over.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

import marshmallow as ma

from app.api.fields import (
    EPOCH_PATTERN,
    HASH_PATTERN,
    NAMESPACE_PATTERN,
    NONCE_PATTERN,
    Text,
    Whole,
    count,
    digits,
    identifier,
    matching,
    moment,
    reason,
    role,
    target,
)
from app.domain.promises import TTL_MAX_MS, TTL_MIN_MS
from app.domain.tokens import MAX_DAYS, MAX_TENANTS, TOKEN_ID_PATTERN
from haltline.scopes import Scope

NOT_YET: Final = "not honoured yet"

FLIP_ID_HELP: Final = "your idempotency key: repeating a flip with the same one never flips twice"


class Strict(ma.Schema):
    """A body or query in which nothing unknown may stand."""

    class Meta:
        """What marshmallow reads."""

        unknown = ma.RAISE


def _honoured(field: str, only: str) -> Any:
    def check(value: str) -> None:
        if value != only:
            raise ma.ValidationError(f"{field} {value!r:.40} is {NOT_YET}: leave it out, or send {only!r}.")

    return check


class KillBody(Strict):
    """A kill."""

    target = target()
    reason = reason()
    flip_id = identifier("flip_id", logged=True, description=FLIP_ID_HELP)
    in_flight = Text(
        validate=_honoured("in_flight", "finish"),
        metadata={"description": "what happens to calls that are running", "enum": ["finish"]},
    )
    queued = Text(
        validate=_honoured("queued", "discard"),
        metadata={"description": "what happens to planned work", "enum": ["discard"]},
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


class HoldOut(ma.Schema):
    """One active kill on one target."""

    seq = Whole(required=True, metadata={"description": "the hold's id: the seq of its kill", "minimum": 1})
    target = Text(required=True)
    actor = Text(required=True, metadata={"description": "who killed"})
    at = Text(required=True, metadata={"format": "date-time"})
    reason = Text(required=True)
    in_flight = Text(required=True)
    queued = Text(required=True)
    flip_id = Text(required=True)


class FlipOut(ma.Schema):
    """What every flip is answered with."""

    seq = Whole(required=True, metadata={"description": "the flip's position in the log", "minimum": 1})
    flip_id = Text(required=True)
    target = Text(required=True)
    committed_at = Text(required=True, metadata={"format": "date-time"})
    holds = ma.fields.List(
        ma.fields.Nested(HoldOut), required=True, metadata={"description": "every active hold on the target"}
    )
    etag = Text(required=True, metadata={"description": "the target's ETag, for If-Match"})
    namespace = Text(required=True)
    epoch = Text(required=True)
    hash = Text(required=True, metadata={"description": "the hash of the flip's entry"})


class KillOut(FlipOut):
    """A kill that is durable."""

    effective_at = Text(
        required=True,
        metadata={"format": "date-time", "description": "from when no check anywhere passes what it kills"},
    )
    effective_in_ms = Whole(
        required=True, metadata={"minimum": 0, "description": "how long until then, from when this reply was made"}
    )


class ReviveOut(FlipOut):
    """A revive that is durable. It starts nothing: it permits a restart."""

    released = ma.fields.List(Whole(), required=True, metadata={"description": "the holds that it released"})


class FlagOut(ma.Schema):
    """What is known of one target."""

    target = Text(required=True)
    killed = ma.fields.Boolean(required=True)
    holds = ma.fields.List(ma.fields.Nested(HoldOut), required=True)
    last_kill = Whole(required=True, metadata={"description": "seq of the newest kill; 0 if there was none"})
    barrier = Whole(required=True, metadata={"description": "seq of the newest kill that discards planned work"})
    etag = Text(required=True)


class FlagAtOut(FlagOut):
    """One target, and where the log stood when it was read."""

    namespace = Text(required=True)
    epoch = Text(required=True)
    seq = Whole(required=True)
    hash = Text(required=True)


class FlagsOut(ma.Schema):
    """Killed targets."""

    flags = ma.fields.List(ma.fields.Nested(FlagOut), required=True)
    counts = ma.fields.Dict(
        keys=Text(), values=Whole(), required=True, metadata={"description": "killed targets of each scope, in all"}
    )
    next_cursor = Text(required=True, allow_none=True)
    namespace = Text(required=True)
    epoch = Text(required=True)
    seq = Whole(required=True)
    hash = Text(required=True)


class EntryOut(ma.Schema):
    """An entry of the log; or its stub, seq and hash alone, where it is another tenant's."""

    class Meta:
        """What marshmallow reads."""

        unknown = ma.INCLUDE

    seq = Whole(required=True)
    hash = Text(required=True)
    v = Whole()
    namespace = Text()
    epoch = Text()
    kind = Text(metadata={"enum": ["kill", "revive", "note"]})
    at = Text(metadata={"format": "date-time"})
    actor = Text()
    prev_hash = Text()
    flip_id = Text()
    target = Text()
    reason = Text()
    in_flight = Text()
    queued = Text()
    holds = ma.fields.List(Whole())
    topic = Text()


class LogOut(ma.Schema):
    """A page of the log."""

    entries = ma.fields.List(ma.fields.Nested(EntryOut), required=True)
    next_cursor = Whole(required=True, allow_none=True)
    namespace = Text(required=True)
    epoch = Text(required=True)
    seq = Whole(required=True, metadata={"description": "where the log stands"})
    hash = Text(required=True)


class TokenOut(ma.Schema):
    """A token without its secret."""

    token_id = Text(required=True)
    subject = Text(required=True)
    role = Text(required=True)
    tenants = ma.fields.List(Text(), required=True, allow_none=True)
    created_at = Text(required=True, metadata={"format": "date-time"})
    expires_at = Text(required=True, metadata={"format": "date-time"})
    revoked_at = Text(required=True, allow_none=True, metadata={"format": "date-time"})


class IssuedOut(TokenOut):
    """A token that was just made."""

    token = Text(required=True, metadata={"description": "the token itself: shown this once, kept nowhere"})


class TokensOut(ma.Schema):
    """A page of tokens."""

    tokens = ma.fields.List(ma.fields.Nested(TokenOut), required=True)
    next_cursor = Text(required=True, allow_none=True)


class SettingsOut(ma.Schema):
    """Settings of the whole store."""

    ttl_ms = Whole(required=True, metadata={"description": "how long a lease lasts at most, milliseconds"})
    changed_at = Text(
        required=True,
        allow_none=True,
        metadata={
            "format": "date-time",
            "description": "by when every node reads the ttl; null if it was never changed, or if nobody knows yet",
        },
    )
    before_ms = Whole(
        required=True,
        allow_none=True,
        metadata={
            "description": "for how long after changed_at, or after a kill while that is null, a lease of an earlier "
            "ttl may still run, milliseconds; null if the ttl was never changed"
        },
    )


class SettingsChangedOut(SettingsOut):
    """Settings of the whole store, after a change."""

    seq = Whole(
        required=True,
        allow_none=True,
        metadata={"description": "the position of the change in the log; null where nothing had to be changed"},
    )


class FrameOut(ma.Schema):
    """One frame: how the log stood at a read that began after the request."""

    class Meta:
        """What marshmallow reads."""

        include: ClassVar[dict[str, ma.fields.Field[Any]]] = {
            "from": Whole(required=True, metadata={"description": "the seq before its first entry"})
        }

    v = Whole(required=True)
    namespace = Text(required=True)
    timebase = Text(required=True, metadata={"description": "the name of the clock of read_at and received_at"})
    epoch = Text(required=True)
    seq = Whole(required=True)
    hash = Text(required=True)
    read_at = Whole(required=True, metadata={"description": "when the read began, microseconds"})
    ttl_ms = Whole(required=True)
    tenants = ma.fields.List(
        Text(),
        required=True,
        allow_none=True,
        metadata={"description": "the tenants that the token is bound to: kills of others come as stubs; null for all"},
    )
    entries = ma.fields.List(ma.fields.Nested(EntryOut), required=True)
    nonce = Text(required=True)
    received_at = Whole(required=True, metadata={"description": "when the request was received, microseconds"})
    snapshot = ma.fields.Dict(
        metadata={"description": "the fold as it stood at `from`, where the worker's position cannot be continued"}
    )
    ack_within_ms = Whole(
        metadata={"description": "in a stream: over how long workers should spread their acks of a flip"}
    )


class HealthOut(ma.Schema):
    """That a probe succeeded."""

    status = Text(required=True)
    age_ms = Whole(metadata={"minimum": 0, "description": "how old the node's read of the log is"})
    ttl_ms = Whole(
        metadata={
            "minimum": 1,
            "description": "the lease ttl: a kill is effective everywhere that long after its acknowledgement",
        }
    )


class ProblemOut(ma.Schema):
    """A problem (RFC 9457)."""

    class Meta:
        """What marshmallow reads."""

        unknown = ma.INCLUDE

    type = Text(required=True, metadata={"format": "uri"})
    title = Text(required=True)
    status = Whole(required=True)
    detail = Text(required=True, metadata={"description": "what happened and what to do next"})
    code = Text(required=True, metadata={"description": "the same for programs"})
    outcome = Text(metadata={"enum": ["not_committed", "unknown"]})
    errors = ma.fields.Dict(
        keys=Text(), values=ma.fields.List(Text()), metadata={"description": "what is wrong with each field"}
    )
