"""What goes out, documented: the schemas of replies. They describe and never query."""

from __future__ import annotations

from typing import Any, ClassVar, get_args

import marshmallow as ma

from app.api.fields import Text, Whole
from haltline.flips import InFlight, Queued


class HoldOut(ma.Schema):
    """One active kill on one target."""

    seq = Whole(required=True, metadata={"description": "the hold's id: the seq of its kill", "minimum": 1})
    target = Text(required=True)
    actor = Text(required=True, metadata={"description": "who killed"})
    at = Text(required=True, metadata={"format": "date-time"})
    reason = Text(required=True)
    in_flight = Text(required=True, metadata={"enum": list(get_args(InFlight))})
    queued = Text(required=True, metadata={"enum": list(get_args(Queued))})
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
    in_flight = Text(metadata={"enum": list(get_args(InFlight))})
    queued = Text(metadata={"enum": list(get_args(Queued))})
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


class StampKeyOut(ma.Schema):
    """A key that planned work is sealed with."""

    id = Text(required=True)
    key = Text(required=True, metadata={"description": "32 bytes, base64url without padding; secret"})
    until = Whole(
        required=True, metadata={"description": "until when what it sealed may be redeemed, seconds since the epoch"}
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
    stamp_keys = ma.fields.List(
        ma.fields.Nested(StampKeyOut),
        metadata={
            "description": "what this worker seals planned work with, the newest first; secret. Missing where the node "
            "cannot read them now"
        },
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
