"""POST /v1/lease: one frame, dated by a read of the log that began after the request was received."""

from __future__ import annotations

from typing import Any, Final

from flask import Response, g

from app.api.auth import needs, node, principal
from app.api.granting import Asked, grant
from app.api.operations import EXAMPLE_EPOCH, EXAMPLE_HASH, WRITES, Blueprint, may_fail
from app.api.schemas import FrameOut, LeaseBody
from app.domain.access import Permission
from app.service.frames import LeaseRequest

blueprint: Final = Blueprint("lease", __name__, description="what workers ask")

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
}


@blueprint.route("/v1/lease", methods=["POST"])
@needs(Permission.LEASE)
@blueprint.arguments(LeaseBody(), example=ASKED)
@blueprint.response(200, FrameOut, example=ANSWERED, description="One frame")
@may_fail(*(code for code in WRITES if code != "outcome_unknown"), "foreign", "regress", "stale")
def lease(body: dict[str, Any]) -> Response:
    """Ask how the log stands, which permits this worker to act for at most the ttl.

    The lease is dated on the worker's own clock from before it sent the request: see docs/architecture.md.
    """
    # Most requests never come here: see app/api/lane.py.
    asked = Asked(LeaseRequest(body["nonce"], body["epoch"], body["seq"], body["hash"]), body.get("namespace"))
    frame = grant(node(), principal(), asked, received_at_us=g.received_at_us)
    return Response(frame, content_type="application/json")
