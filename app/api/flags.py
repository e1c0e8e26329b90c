"""GET /v1/flags: what is killed now, always read from the log's own database."""

from __future__ import annotations

from typing import Any, Final

from flask import Response, request

from app.api.auth import needs, node, principal
from app.api.operations import (
    ETAG_HEADER,
    EXAMPLE_EPOCH,
    EXAMPLE_HEAD,
    EXAMPLE_HOLD,
    QUERIES,
    READS,
    Blueprint,
    may_fail,
)
from app.api.problems import Problem
from app.api.schemas import FlagsQuery
from app.api.shapes import flag, standing
from app.api.shown import FlagAtOut, FlagsOut
from app.domain.access import Permission
from app.domain.etags import matches
from app.service.refresher import Unready
from app.service.store import Flag, Head
from haltline.errors import InvalidTarget
from haltline.scopes import GLOBAL, ID_PATTERN, Scope, Target, parse_target
from haltline.scopes import target as target_of

blueprint: Final = Blueprint("flags", __name__, description="what is killed now")

EXAMPLE: Final = {
    "target": "run:r-42",
    "killed": True,
    "holds": [EXAMPLE_HOLD],
    "last_kill": 42,
    "barrier": 42,
    "etag": f'"{EXAMPLE_EPOCH}.42"',
}
IF_NONE_MATCH: Final = {
    "in": "header",
    "name": "If-None-Match",
    "required": False,
    "description": "an ETag that you hold: 304 if it is still the target's",
    "schema": {"type": "string"},
}
SCOPE: Final = {
    "in": "path",
    "name": "scope",
    "required": True,
    "schema": {"type": "string", "enum": [each.value for each in Scope if each is not Scope.GLOBAL]},
    "example": "run",
}
ID: Final = {
    "in": "path",
    "name": "id",
    "required": True,
    "description": "lower case only for a capability",
    "schema": {"type": "string", "pattern": ID_PATTERN, "minLength": 1, "maxLength": 128},
    "example": "r-42",
}


@blueprint.route("/v1/flags", methods=["GET"])
@needs(Permission.READ)
@blueprint.arguments(FlagsQuery(), location="query")
@blueprint.response(
    200,
    FlagsOut,
    example={
        "flags": [EXAMPLE],
        "counts": {"capability": 0, "run": 1, "tenant": 0, "feature": 0, "global": 0},
        "next_cursor": None,
        **EXAMPLE_HEAD,
    },
)
@may_fail(*QUERIES, "stale")
def list_flags(query: dict[str, Any]) -> dict[str, Any]:
    """List killed targets, in the order of their text."""
    cursor, limit = query.get("cursor"), query["limit"]
    head, page, more = _page(str(cursor) if cursor is not None else None, limit)
    return {
        "flags": [flag(head, each) for each in page],
        "counts": _counts(),
        "next_cursor": str(page[-1].target) if more else None,
        **standing(head),
    }


def _page(after: str | None, limit: int) -> tuple[Head, list[Flag], bool]:
    """Return up to ``limit`` flags that this token sees, and whether there are more; hidden ones do not count."""
    seen = principal().sees
    head, rows = node().store.flags(after=after, limit=limit + 1)
    found = [each for each in rows if seen(each.target)]
    while len(rows) == limit + 1 and len(found) <= limit:
        _, rows = node().store.flags(after=str(rows[-1].target), limit=limit + 1)
        found.extend(each for each in rows if seen(each.target))
    return head, found[:limit], len(found) > limit


def _counts() -> dict[str, int]:
    """Return how many targets of each scope are killed, by a read that began after this request."""
    published = node().refresher.read_after(node().clocks.raw_us_ceil())
    if isinstance(published, Unready):
        raise Problem("stale" if published is Unready.STALE else "diverged")
    counts = {scope.value: 0 for scope in Scope}
    seen = principal().sees
    for key in published.replica.holds:
        target = parse_target(key)
        if seen(target):
            counts[target.scope.value] += 1
    return counts


@blueprint.route("/v1/flags/global", methods=["GET"])
@needs(Permission.READ)
@blueprint.doc(parameters=[IF_NONE_MATCH])
@blueprint.response(200, FlagAtOut, headers=ETAG_HEADER, example={**EXAMPLE, "target": "global", **EXAMPLE_HEAD})
@blueprint.alt_response(304, description="Your view is still the target's", success=True)
@may_fail(*READS)
def get_global() -> Any:
    """Tell whether the world is stopped."""
    return _one(GLOBAL)


@blueprint.route("/v1/flags/<scope>/<id>", methods=["GET"], parameters=[SCOPE, ID])
@needs(Permission.READ)
@blueprint.doc(parameters=[IF_NONE_MATCH])
@blueprint.response(200, FlagAtOut, headers=ETAG_HEADER, example={**EXAMPLE, **EXAMPLE_HEAD})
@blueprint.alt_response(304, description="Your view is still the target's", success=True)
@may_fail(*QUERIES, "not_found")
def get_flag(scope: str, id: str) -> Any:  # noqa: A002 - the name in the path
    """Tell whether a target is killed, by whom and why.

    A target that was never flipped is answered too: it is not killed, and its version is 0.
    """
    try:
        target = target_of(scope, id)
    except InvalidTarget as error:
        raise Problem("invalid_fields", errors={"path": [str(error)]}) from None
    if not principal().sees(target):
        raise Problem("not_found", f"There is no {target} that this token may see.")
    return _one(target)


def _one(target: Target) -> Any:
    head, found = node().store.flag(target)
    shown = flag(head, found)
    if_none_match = request.headers.get("If-None-Match")
    if if_none_match is not None and matches(if_none_match, shown["etag"]):
        return Response(status=304, headers={"ETag": shown["etag"]})
    return {**shown, **standing(head)}, 200, {"ETag": shown["etag"]}
