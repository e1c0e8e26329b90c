"""GET /v1/log: the flip log, listed, one entry at a time, and exported whole."""

from __future__ import annotations

import re
from typing import Any, Final

from flask import Response

from app.api.auth import needs, node, principal
from app.api.operations import (
    ETAG_HEADER,
    EXAMPLE_AT,
    EXAMPLE_EPOCH,
    EXAMPLE_HASH,
    EXAMPLE_HEAD,
    QUERIES,
    Blueprint,
    may_fail,
)
from app.api.pieces import Pieces
from app.api.problems import Problem
from app.api.schemas import ExportQuery, LogQueryArgs
from app.api.shapes import standing
from app.api.shown import EntryOut, LogOut
from app.domain.access import Permission
from app.domain.moments import parse_moment
from app.service.frames import View
from app.service.store import LogQuery, LogRow
from app.service.views import shown, visible
from haltline.canonical import MAX_INTEGER

blueprint: Final = Blueprint("log", __name__, description="the flip log")

_SEQ: Final = re.compile(r"[1-9][0-9]{0,15}", re.ASCII)

ENTRY: Final = {
    "v": 1,
    "namespace": "default",
    "epoch": EXAMPLE_EPOCH,
    "seq": 42,
    "kind": "kill",
    "at": EXAMPLE_AT,
    "actor": "ada",
    "flip_id": "f-7",
    "target": "run:r-42",
    "reason": "mails the wrong customers",
    "in_flight": "finish",
    "queued": "discard",
    "prev_hash": "0" * 64,
    "hash": EXAMPLE_HASH,
}
SEQ: Final = {
    "in": "path",
    "name": "seq",
    "required": True,
    "schema": {"type": "integer", "minimum": 1, "maximum": MAX_INTEGER},
    "example": 42,
}


@blueprint.route("/v1/log", methods=["GET"])
@needs(Permission.READ)
@blueprint.arguments(LogQueryArgs(), location="query")
@blueprint.response(200, LogOut, example={"entries": [ENTRY], "next_cursor": None, **EXAMPLE_HEAD})
@may_fail(*QUERIES)
def list_log(query: dict[str, Any]) -> dict[str, Any] | Response:
    """List entries of the log that match every filter given."""
    filters: dict[str, Any] = {name: query[name] for name in ("scope", "actor", "kind") if name in query}
    if "target" in query:
        filters["target"] = str(query["target"])
    for name in ("since", "until"):
        if name in query:
            filters[name] = parse_moment(query[name])
    limit = query["limit"]
    head, rows = node().store.log(LogQuery(after=query.get("cursor", 0), order=query["order"], limit=limit, **filters))
    view = principal().tenants
    # A stub that matched a filter would tell what the filter asked about.
    listed = [row for row in rows if visible(row, view)] if filters else list(rows)
    return _listed(head_members=standing(head), rows=listed, view=view, following=_following(rows, limit))


def _following(rows: Any, limit: int) -> int | None:
    return rows[-1].position.seq if len(rows) == limit else None


def _listed(*, head_members: dict[str, Any], rows: list[LogRow], view: View, following: int | None) -> Response:
    """Return the page with every entry exactly as it is stored."""
    from flask import json

    rest = json.dumps({"next_cursor": following, **head_members})
    entries = ",".join(shown(row, view) for row in rows)
    return Response(f'{{"entries":[{entries}],{rest[1:]}', content_type="application/json")


@blueprint.route("/v1/log/<seq>", methods=["GET"], parameters=[SEQ])
@needs(Permission.READ)
@blueprint.response(200, EntryOut, headers=ETAG_HEADER, example=ENTRY)
@may_fail(*QUERIES, "not_found")
def get_entry(seq: str) -> Response:
    """Return one entry, byte for byte as it is stored and hashed; its ETag is its hash."""
    if _SEQ.fullmatch(seq) is None or int(seq) > MAX_INTEGER:
        raise Problem("invalid_fields", errors={"seq": ["A position is a whole number from 1, without sign or zeros."]})
    row = node().store.entry(int(seq))
    if row is None:
        raise Problem("not_found", f"The log has no entry {seq} yet.")
    return Response(
        shown(row, principal().tenants),
        content_type="application/json",
        headers={"ETag": f'"{row.position.hash}"'},
    )


@blueprint.route("/v1/log/export", methods=["GET"])
@needs(Permission.READ)
@blueprint.arguments(ExportQuery(), location="query")
@blueprint.response(
    200,
    {"type": "string"},
    content_type="application/jsonl",
    description="One entry a line, in the order of seq, each exactly as it was hashed",
    headers={
        "Haltline-Head": {
            "description": "`<seq>:<hash>` of the last entry of this export: without it the export is not whole",
            "schema": {"type": "string"},
        }
    },
)
@may_fail(*QUERIES, "too_many_exports")
def export(query: dict[str, Any]) -> Response:
    """Export the log as JSON lines, for `haltline verify`."""
    first, last = query.get("from", 1), query.get("to")
    if last is not None and last < first:
        raise Problem("invalid_fields", errors={"to": ["It is less than from."]})
    exports = node().exports
    if not exports.places.enter():
        raise Problem("too_many_exports", "Too many exports run here.", headers={"Retry-After": "5"})
    try:
        span = exports.range(first=first, last=last)
        lines = Pieces(exports.places, exports.lines(span, principal().tenants))
    except BaseException:
        exports.places.leave()
        raise
    return Response(
        lines,
        content_type="application/jsonl",
        headers={"Haltline-Head": f"{span.end.seq}:{span.end.hash}"},
    )
