"""GET /v1/events: the log as it grows, as server-sent events."""

from __future__ import annotations

import re
from typing import Any, Final

from flask import Response, request

from app.api.auth import needs, node, principal
from app.api.connections import gone
from app.api.fields import digits
from app.api.operations import EXAMPLE_HASH, QUERIES, Blueprint, may_fail
from app.api.pieces import Pieces
from app.api.problems import Problem
from app.api.schemas import Strict
from app.domain.access import Permission, Principal
from app.service.events import Beyond, Watch
from app.service.node import Node
from haltline.flips import Position

blueprint: Final = Blueprint("events", __name__, description="the flip log as it grows")

CONTENT_TYPE: Final = "text/event-stream"

_SEQ: Final = re.compile(r"^(0|[1-9][0-9]{0,15})$", re.ASCII)
LAST_EVENT_ID: Final = {
    "in": "header",
    "name": "Last-Event-ID",
    "required": False,
    "description": "the id of the last event that was received: the stream goes on behind it; as `after`",
    "schema": {"type": "string", "pattern": _SEQ.pattern, "maxLength": 16},
    "example": "42",
}


EVENT: Final = {
    "type": "object",
    "description": "one event; before OpenAPI 3.2 the schema of a stream describes its events",
    "properties": {
        "id": {"type": "string", "pattern": _SEQ.pattern, "description": "the entry's seq"},
        "event": {"type": "string", "enum": ["kill", "revive", "note", "stub", "end"]},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "the entry as it was hashed; of a stub its seq and hash; of an end its reason",
        },
        "retry": {"type": "integer", "description": "how long to wait before going on, milliseconds"},
    },
}


class EventsQuery(Strict):
    """Where to begin."""

    after = digits(low=0, description="begin behind this seq, 0 for the first entry; if left out, with what comes next")


@blueprint.route("/v1/events", methods=["GET"])
@needs(Permission.READ)
@blueprint.doc(parameters=[LAST_EVENT_ID])
@blueprint.arguments(EventsQuery(), location="query")
@blueprint.response(
    200,
    EVENT,
    content_type=CONTENT_TYPE,
    description="Server-sent events, one an entry: its seq is the id, its kind or `stub` the event, its JSON the data",
    headers={
        "Haltline-After": {
            "description": "`<seq>:<hash>` of the entry that the stream begins behind",
            "schema": {"type": "string", "examples": [f"42:{EXAMPLE_HASH}"]},
        }
    },
)
@may_fail(*QUERIES, "malformed_header", "regress", "too_many_exports")
def events(query: dict[str, Any]) -> Response:
    """Watch the log: every entry, in order, each exactly as it was hashed, as soon as this node has read it.

    A stream ends after about five minutes, or when its connection does; go on with `Last-Event-ID`, as browsers do by
    themselves, and no entry is missed or told twice. `event: end` says that the token has ended or that the log is not
    the one that it was: then there is nothing to go on with.
    """
    here, who, after = node(), principal(), _after(query.get("after"))
    if here.refresher.halted is not None:
        raise Problem("diverged")
    # Before anything is read: a crowd that is refused must not cost a read each.
    if not here.events.places.enter():
        raise Problem("too_many_exports", "Too many event streams run here.", headers={"Retry-After": "5"})
    try:
        start = _start(here, after)
        pieces = Pieces(here.events.places, here.events.stream(start, _watch(here, who)))
    except BaseException:
        here.events.places.leave()
        raise
    headers = {"Haltline-After": f"{start.seq}:{start.hash}", "X-Accel-Buffering": "no"}
    return Response(pieces, content_type=CONTENT_TYPE, headers=headers)


def _start(here: Node, after: int | None) -> Position:
    start = here.events.start(after)
    if isinstance(start, Beyond):
        raise Problem(
            "regress",
            f"The log ends at {start.head}, the request has seen {after}: a restored backup, a lost failover or "
            f"another database. Find out which before you go on.",
        )
    return start


def _after(queried: int | None) -> int | None:
    """Return the last entry that the caller has; None if it does not say."""
    sent = request.headers.get("Last-Event-ID")
    if sent is None:
        return queried
    if _SEQ.fullmatch(sent) is None:
        raise Problem("malformed_header", "Send Last-Event-ID as the id of the last event that you received, a seq.")
    if queried is not None and queried != int(sent):
        raise Problem("invalid_fields", errors={"after": ["It is not what Last-Event-ID says: send one of them."]})
    return int(sent)


def _watch(here: Node, who: Principal) -> Watch:
    environ = request.environ
    return Watch(
        view=who.tenants,
        stands=lambda: here.tokens.stands(who),
        gone=lambda: gone(environ),
    )
