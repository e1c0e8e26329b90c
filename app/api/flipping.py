"""What kills and revives answer alike."""

from __future__ import annotations

from typing import Any

from app.api.auth import principal
from app.api.problems import Problem
from app.domain.access import Reach
from app.domain.etags import etag
from app.service.flips import FlipOutcome, Flipped
from app.service.store import FlipIdTaken, NoSuchHold, StaleView, StoreFull
from haltline.replica import hold_members
from haltline.scopes import Target


def durable(outcome: FlipOutcome, target: Target, *, epoch: str | None = None) -> Flipped:
    """Return the flip, if there is one.

    Raises:
        Problem: there is none, and why.
    """
    if isinstance(outcome, Flipped):
        return outcome
    if outcome is Reach.FORBIDDEN:
        raise Problem("forbidden", f"A token that is bound to tenants may not kill {target}: it is everybody's.")
    if isinstance(outcome, Reach):
        raise Problem("not_found", f"There is no {target} that this token may kill.")
    if isinstance(outcome, FlipIdTaken):
        if principal().tenants is not None:
            raise Problem("flip_id_taken")  # its position may be that of an entry which this token must not know
        raise Problem("flip_id_taken", seq=outcome.seq)
    if isinstance(outcome, NoSuchHold):
        active = [hold.seq for hold in outcome.flag.holds]
        raise Problem(
            "no_such_hold",
            f"No active hold {', '.join(map(str, outcome.missing))} on {target}; active are: {active or 'none'}.",
            missing=list(outcome.missing),
            active=active,
        )
    if isinstance(outcome, StaleView):
        current = etag(epoch or "", outcome.flag.version)
        raise Problem(
            "stale_view",
            f"{target} was flipped since you looked; its ETag is now {current}. Read its flag again, then decide anew.",
            headers={"ETag": current},
            holds=[hold_members(hold) for hold in outcome.flag.holds],
        )
    if isinstance(outcome, StoreFull):
        raise Problem("too_many_holds", f"{outcome.limit} holds are active, which is the most that a log may have.")
    raise AssertionError(outcome)


def members(flipped: Flipped) -> dict[str, Any]:
    """Return what every flip's reply has."""
    entry, flag = flipped.committed.members, flipped.committed.flag
    return {
        "seq": entry["seq"],
        "flip_id": entry["flip_id"],
        "target": entry["target"],
        "committed_at": flipped.committed_at,
        "holds": [hold_members(hold) for hold in flag.holds],
        "etag": etag(entry["epoch"], flag.version),
        "namespace": entry["namespace"],
        "epoch": entry["epoch"],
        "hash": entry["hash"],
    }


def reply_headers(flipped: Flipped) -> dict[str, str]:
    """Return the headers of a flip's reply: the target's ETag and where its entry is."""
    entry = flipped.committed.members
    return {
        "ETag": etag(entry["epoch"], flipped.committed.flag.version),
        "Location": f"/v1/log/{entry['seq']}",
    }
