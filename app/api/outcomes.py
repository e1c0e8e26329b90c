"""POST /v1/outcomes: how runs ended that a flip stopped, and what became of their cleanups."""

from __future__ import annotations

from typing import Any, Final

from flask import g

from app.api.auth import needs, node, principal
from app.api.granting import AGAIN
from app.api.operations import EXAMPLE_AT, WRITES, Blueprint, may_fail
from app.api.outcome_schemas import KeptOut, OutcomesBody
from app.api.problems import Problem
from app.domain.access import Permission
from app.domain.moments import parse_moment
from app.service.outcomes import Told
from app.service.refresher import Unready

blueprint: Final = Blueprint("outcomes", __name__, description="what workers say of runs that were stopped")

OUTCOME: Final = {
    "run": "r-42",
    "flip": 42,
    "worker": "mailer-1",
    "instance": "5b0c6f2e",
    "at": EXAMPLE_AT,
    "ended": "cleanup",
    "cleanups": [
        {"name": "close the browser", "outcome": "done", "ms": 180},
        {"name": "release the sandbox", "outcome": "failed", "ms": 12, "detail": "ConnectionError: refused"},
    ],
}


@blueprint.route("/v1/outcomes", methods=["POST"])
@needs(Permission.LEASE)
@blueprint.arguments(OutcomesBody(), example={"outcomes": [OUTCOME]})
@blueprint.response(200, KeptOut, example={"kept": 1, "repeated": 0}, description="They are kept")
@may_fail(*WRITES, "regress", "stale", "diverged", "busy")
def tell_outcomes(body: dict[str, Any]) -> dict[str, int]:
    """Tell how runs ended that a flip stopped.

    Of each run and flip the first word is kept: telling it again is safe, and changes nothing. It is a claim of the
    worker, beside the log and never part of it, and is removed after 30 days.
    """
    told = [Told(**{**each, "at": parse_moment(each["at"])}) for each in body["outcomes"]]
    _known(max(each.flip for each in told))
    new = node().outcomes.keep(principal(), told)
    if new is None:
        raise Problem("busy", headers=AGAIN)
    return {"kept": new, "repeated": len(told) - new}


def _known(flip: int) -> None:
    """Refuse what came of a flip that is not in the log."""
    refresher = node().refresher
    published = refresher.published
    if published is not None and flip <= published.replica.position.seq:
        return
    # Another node may have told the worker a moment before this one reads it.
    read = refresher.read_after(g.received_at_us)
    if isinstance(read, Unready):
        raise Problem("stale", headers=AGAIN) if read is Unready.STALE else Problem("diverged")
    if flip > read.replica.position.seq:
        raise Problem("regress", f"The log ends at {read.replica.position.seq}, an outcome names flip {flip}.")
