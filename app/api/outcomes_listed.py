"""GET /v1/outcomes: how the runs ended that a flip stopped, as their workers told it."""

from __future__ import annotations

import json
from typing import Any, Final

from app.api.auth import needs, node, principal
from app.api.operations import EXAMPLE_AT, QUERIES, Blueprint, may_fail
from app.api.outcome_schemas import OutcomesOut, OutcomesQuery
from app.api.outcomes import OUTCOME
from app.domain.access import Permission
from app.domain.moments import moment
from app.service.store import OutcomeQuery, StoredOutcome

blueprint: Final = Blueprint("outcomes_listed", __name__, description="what became of runs that were stopped")

EXAMPLE: Final = {**OUTCOME, "subject": "mailer", "kept_at": EXAMPLE_AT}


@blueprint.route("/v1/outcomes", methods=["GET"])
@needs(Permission.READ)
@blueprint.arguments(OutcomesQuery(), location="query")
@blueprint.response(200, OutcomesOut, example={"outcomes": [EXAMPLE], "next_cursor": None})
@may_fail(*QUERIES)
def list_outcomes(query: dict[str, Any]) -> dict[str, Any]:
    """List how runs ended, by flip and run.

    A token that is bound to tenants sees what was told with tokens that are bound to those, and nothing else.
    """
    limit, after = query["limit"], query.get("cursor")
    found = node().outcomes.listed(
        OutcomeQuery(
            flip=query.get("flip"),
            run=query.get("run"),
            after=None if after is None else _position(after),
            limit=limit,
            view=principal().tenants,
        )
    )
    last = found[-1] if len(found) == limit else None
    return {
        "outcomes": [_shown(each) for each in found],
        "next_cursor": None if last is None else f"{last.flip}:{last.run}",
    }


def _position(cursor: str) -> tuple[int, str]:
    flip, _, run = cursor.partition(":")
    return int(flip), run


def _shown(outcome: StoredOutcome) -> dict[str, Any]:
    return {
        "run": outcome.run,
        "flip": outcome.flip,
        "worker": outcome.worker,
        "instance": outcome.instance,
        "subject": outcome.subject,
        "at": outcome.at,
        "kept_at": moment(outcome.kept_at),
        "ended": outcome.ended,
        "cleanups": json.loads(outcome.cleanups),
    }
