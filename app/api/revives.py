"""POST /v1/revives: release holds. It starts nothing; it permits a restart."""

from __future__ import annotations

from typing import Any, Final

from flask import request

from app.api.auth import needs, node, principal
from app.api.flipping import durable, members, reply_headers
from app.api.operations import (
    ETAG_HEADER,
    EXAMPLE_AT,
    EXAMPLE_EPOCH,
    EXAMPLE_HASH,
    WRITES,
    Blueprint,
    may_fail,
)
from app.api.problems import Problem
from app.api.schemas import ReviveBody
from app.api.shown import ReviveOut
from app.domain.access import Permission
from app.domain.etags import TAGS_PATTERN

blueprint: Final = Blueprint("revives", __name__, description="release holds")

ASKED: Final = {"target": "run:r-42", "holds": [42], "reason": "the list is mended", "flip_id": "f-8"}
ANSWERED: Final = {
    "seq": 43,
    "flip_id": "f-8",
    "target": "run:r-42",
    "committed_at": EXAMPLE_AT,
    "released": [42],
    "holds": [],
    "etag": f'"{EXAMPLE_EPOCH}.43"',
    "namespace": "default",
    "epoch": EXAMPLE_EPOCH,
    "hash": EXAMPLE_HASH,
}
IF_MATCH: Final = {
    "in": "header",
    "name": "If-Match",
    "required": True,
    "description": "the ETag of the target as you saw it; `*` names no view and is not accepted",
    "schema": {"type": "string", "pattern": TAGS_PATTERN, "minLength": 2, "maxLength": 1000},
    "example": f'"{EXAMPLE_EPOCH}.42"',
}


@blueprint.route("/v1/revives", methods=["POST"])
@needs(Permission.REVIVE)
@blueprint.doc(parameters=[IF_MATCH])
@blueprint.arguments(ReviveBody(), example=ASKED)
@blueprint.response(201, ReviveOut, example=ANSWERED, headers=ETAG_HEADER, description="The revive is durable")
@blueprint.alt_response(
    200, schema=ReviveOut, example=ANSWERED, headers=ETAG_HEADER, description="It was durable already", success=True
)
@may_fail(*WRITES, "malformed_header", "flip_id_taken", "no_such_hold", "stale_view", "if_match_missing")
def revive(body: dict[str, Any]) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Release holds of a target.

    Name each hold, and in `If-Match` the view that you saw: a hold made since then is somebody else's decision.
    """
    target, if_match = body["target"], request.headers.get("If-Match")
    if if_match is None or if_match.strip() == "*":
        raise Problem("if_match_missing")
    try:
        outcome = node().flips.revive(
            principal(),
            target,
            holds=tuple(sorted(body["holds"])),
            reason=body["reason"],
            flip_id=body.get("flip_id"),
            if_match=if_match,
        )
    except ValueError as error:
        raise Problem("malformed_header", f"{error}.") from None
    flipped = durable(outcome, target, epoch=node().store.head().epoch)
    reply = {**members(flipped), "released": list(flipped.committed.members["holds"])}
    return reply, 200 if flipped.committed.replayed else 201, reply_headers(flipped)
