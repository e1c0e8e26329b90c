"""POST /v1/acks: how far a worker has applied the log, said as soon as it has."""

from __future__ import annotations

from typing import Any, Final

from flask import Response, request

from app.api.auth import needs, node
from app.api.granting import acknowledge, applied_of, turn
from app.api.operations import EXAMPLE_EPOCH, EXAMPLE_HASH, WRITES, Blueprint, may_fail
from app.api.schemas import AckBody
from app.domain.access import Permission

blueprint: Final = Blueprint("acks", __name__, description="what workers say")

APPLIED: Final = {
    "worker": "mailer-1",
    "instance": "5b0c6f2e",
    "epoch": EXAMPLE_EPOCH,
    "seq": 42,
    "hash": EXAMPLE_HASH,
}


@blueprint.route("/v1/acks", methods=["POST"])
@needs(Permission.LEASE)
@blueprint.arguments(AckBody(), example=APPLIED)
@blueprint.response(204, description="Noted")
@may_fail(*(code for code in WRITES if code != "outcome_unknown"), "foreign", "regress", "stale", "busy")
def acknowledge_position(body: dict[str, Any]) -> Response:
    """Say how far this worker has applied the log.

    It is a claim, kept in memory and lossy: what proves that a worker stops is its lease. The position in each lease
    request says the same; this says it as soon as a flip is applied.
    """
    with turn(node(), request.environ):
        acknowledge(node(), applied_of(body))
    return Response(status=204)
