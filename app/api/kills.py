"""POST /v1/kills: stop a target. One person, one call, never queued behind an approval."""

from __future__ import annotations

from typing import Any, Final

from app.api.auth import needs, node, principal
from app.api.flipping import durable, members, reply_headers
from app.api.operations import (
    ETAG_HEADER,
    EXAMPLE_AT,
    EXAMPLE_EPOCH,
    EXAMPLE_HASH,
    EXAMPLE_HOLD,
    WRITES,
    Blueprint,
    may_fail,
)
from app.api.schemas import KillBody
from app.api.shown import KillOut
from app.domain.access import Permission

blueprint: Final = Blueprint("kills", __name__, description="stop a target")

ASKED: Final = {"target": "run:r-42", "reason": "mails the wrong customers", "in_flight": "finish", "flip_id": "f-7"}
ANSWERED: Final = {
    "seq": 42,
    "flip_id": "f-7",
    "target": "run:r-42",
    "committed_at": EXAMPLE_AT,
    "effective_at": "2026-11-20T20:25:12.123456Z",
    "effective_in_ms": 1000,
    "holds": [EXAMPLE_HOLD],
    "etag": f'"{EXAMPLE_EPOCH}.42"',
    "namespace": "default",
    "epoch": EXAMPLE_EPOCH,
    "hash": EXAMPLE_HASH,
}


@blueprint.route("/v1/kills", methods=["POST"])
@needs(Permission.KILL)
@blueprint.arguments(KillBody(), example=ASKED)
@blueprint.response(201, KillOut, example=ANSWERED, headers=ETAG_HEADER, description="The kill is durable")
@blueprint.alt_response(
    200, schema=KillOut, example=ANSWERED, headers=ETAG_HEADER, description="It was durable already", success=True
)
@may_fail(*WRITES, "not_found", "flip_id_taken", "too_many_holds")
def kill(body: dict[str, Any]) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Kill a target.

    From `effective_at` on, no check of any worker passes what it kills. Repeating it with the same `flip_id` is safe.

    `in_flight: finish` lets calls that are running end by themselves; without it they are aborted. `queued: drain` lets
    work that was planned before the kill run all the same; without it, it never runs, not after a revive either.
    """
    target = body["target"]
    outcome = node().flips.kill(
        principal(),
        target,
        reason=body["reason"],
        flip_id=body.get("flip_id"),
        in_flight=body["in_flight"],
        queued=body["queued"],
    )
    flipped = durable(outcome, target)
    reply = {
        **members(flipped),
        "effective_at": flipped.effective_at,
        "effective_in_ms": flipped.effective_in_ms(node().clocks),
    }
    return reply, 200 if flipped.committed.replayed else 201, reply_headers(flipped)
