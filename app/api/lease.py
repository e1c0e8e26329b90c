"""POST /v1/lease: frames, each dated by a read of the log that began after the request was received."""

from __future__ import annotations

from typing import Any, Final

from flask import Response, g, request

from app.api.auth import needs, node, principal
from app.api.granting import asked_of, grant, stream, turn
from app.api.operations import EXAMPLE_EPOCH, EXAMPLE_HASH, WRITES, Blueprint, may_fail
from app.api.schemas import LeaseBody
from app.api.shown import FrameOut
from app.domain.access import Permission

blueprint: Final = Blueprint("lease", __name__, description="what workers ask")

STREAM_TYPE: Final = "application/jsonl"
UNBUFFERED: Final = {"X-Accel-Buffering": "no"}
"""Asks a proxy to hand frames on as they come: one that holds them back ages them."""

ASKED: Final = {
    "stream": False,
    "nonce": "b1946ac92492d2347c6235b4d2611184",
    "worker": "mailer-1",
    "instance": "5b0c6f2e",
    "epoch": EXAMPLE_EPOCH,
    "seq": 42,
    "hash": EXAMPLE_HASH,
}
ANSWERED: Final = {
    "v": 1,
    "namespace": "default",
    "timebase": "9f86d081884c7d65",
    "epoch": EXAMPLE_EPOCH,
    "from": 42,
    "seq": 42,
    "hash": EXAMPLE_HASH,
    "read_at": 918273645128,
    "ttl_ms": 1000,
    "tenants": None,
    "entries": [],
    "nonce": "b1946ac92492d2347c6235b4d2611184",
    "received_at": 918273645001,
    "stamp_keys": [{"id": "9b1c27e4a0d5", "key": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I", "until": 1803000000}],
}


@blueprint.route("/v1/lease", methods=["POST"])
@needs(Permission.LEASE)
@blueprint.arguments(LeaseBody(), example=ASKED)
@blueprint.response(200, FrameOut, example=ANSWERED, description="One frame")
@may_fail(*(code for code in WRITES if code != "outcome_unknown"), "foreign", "regress", "stale", "busy")
@blueprint.doc(responses={200: {"content": {STREAM_TYPE: {"schema": {"type": "string"}}}}})
def lease(body: dict[str, Any]) -> Response:
    """Ask how the log stands, which permits this worker to act for at most the ttl.

    With `stream` true the reply is JSON lines: the frame that answers, then one on every flip and every ttl/4 without
    `nonce`, `received_at`, `snapshot` and `stamp_keys`, for 6 to 9 seconds. Ask again, on the same connection, when it
    ends.

    The lease is dated on the worker's own clock from before it sent the request: see docs/architecture.md.
    """
    # Most requests never come here: see app/api/shortcut.py.
    asked = asked_of(body)
    with turn(node(), request.environ):
        if asked.stream:
            lines = stream(node(), principal(), asked, received_at_us=g.received_at_us)
            return Response(lines, content_type=STREAM_TYPE, headers=UNBUFFERED)
        frame = grant(node(), principal(), asked, received_at_us=g.received_at_us)
        return Response(frame, content_type="application/json")
