"""Schemas of outcomes: what workers tell of the clean-up of stopped runs, and how it is listed."""

from __future__ import annotations

from typing import Final

import marshmallow as ma

from app.api.fields import Text, Whole, count, digits, identifier, line, matching, moment, one_of
from app.api.schemas import Strict
from app.service.outcomes import BATCH, CLEANUPS
from haltline.scopes import ID_PATTERN

CURSOR_PATTERN: Final = f"^[1-9][0-9]{{0,15}}:{ID_PATTERN.removeprefix('^')}"

_ENDED: Final = ("cleanup", "killed")
_CLEANED: Final = ("done", "failed", "timed_out")
_DAY_MS: Final = 86_400_000


class CleanupBody(Strict):
    """What became of one cleanup."""

    name = line(shortest=1, longest=128, required=True, description="what it is called")
    outcome = one_of(_CLEANED, "what became of it; timed_out: it was left behind", required=True)
    ms = count(low=0, high=_DAY_MS, required=True, description="how long it was waited for, milliseconds")
    detail = line(shortest=0, longest=256, description="what it failed by")


class OutcomeBody(Strict):
    """How one run ended that a flip stopped."""

    run = identifier("run", required=True, logged=True, description="the run")
    flip = count(low=1, required=True, description="the seq of the flip that stopped it")
    worker = identifier("worker", required=True, logged=True, description="the worker's name")
    instance = identifier("instance", required=True, logged=True, description="a random id of that very process")
    at = moment("when, on the worker's clock", required=True)
    ended = one_of(
        _ENDED, "cleanup: its cleanups were run; killed: the process was ended before they were over", required=True
    )
    cleanups = ma.fields.List(
        ma.fields.Nested(CleanupBody),
        required=True,
        validate=ma.validate.Length(0, CLEANUPS),
        metadata={"description": "its cleanups, in the order in which they were run"},
    )


class OutcomesBody(Strict):
    """How runs ended."""

    outcomes = ma.fields.List(ma.fields.Nested(OutcomeBody), required=True, validate=ma.validate.Length(1, BATCH))


class OutcomesQuery(Strict):
    """Which outcomes to list; every filter given must hold."""

    flip = digits(low=1, description="those of this flip, by its seq")
    run = identifier("run", description="those of this run")
    cursor = matching(CURSOR_PATTERN, "the next_cursor of the page before", length=145)
    limit = digits(low=1, high=1_000, description="how many at most", load_default=100)


class KeptOut(ma.Schema):
    """What came of outcomes that were told."""

    kept = Whole(required=True, metadata={"minimum": 0, "description": "how many of them were not known before"})
    repeated = Whole(required=True, metadata={"minimum": 0, "description": "how many were, and are as they were"})


class CleanupOut(ma.Schema):
    """What became of one cleanup."""

    name = Text(required=True)
    outcome = Text(required=True, metadata={"enum": list(_CLEANED)})
    ms = Whole(required=True)
    detail = Text()


class OutcomeOut(ma.Schema):
    """How one run ended, as its worker told it."""

    run = Text(required=True)
    flip = Whole(required=True, metadata={"description": "the seq of the flip that stopped it"})
    worker = Text(required=True)
    instance = Text(required=True)
    subject = Text(required=True, metadata={"description": "whom the token named that it was told with"})
    at = Text(required=True, metadata={"format": "date-time", "description": "when, on the worker's clock"})
    kept_at = Text(required=True, metadata={"format": "date-time", "description": "when a node heard of it"})
    ended = Text(required=True, metadata={"enum": list(_ENDED)})
    cleanups = ma.fields.List(ma.fields.Nested(CleanupOut), required=True)


class OutcomesOut(ma.Schema):
    """A page of outcomes."""

    outcomes = ma.fields.List(ma.fields.Nested(OutcomeOut), required=True)
    next_cursor = Text(required=True, allow_none=True)
