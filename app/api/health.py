"""/livez, /readyz and /metrics: for those who run the service. They need no token and name no id."""

from __future__ import annotations

from typing import Any, Final, cast

from flask import Response, current_app

from app.api.auth import node
from app.api.metrics import Metrics
from app.api.operations import Blueprint, may_fail
from app.api.problems import Problem
from app.api.shown import HealthOut
from app.service.refresher import Unready

blueprint: Final = Blueprint("health", __name__, description="for those who run the service")

METRICS: Final = "haltline-metrics"


@blueprint.route("/livez", methods=["GET"])
@blueprint.doc(security=[])
@blueprint.response(200, HealthOut, example={"status": "alive"})
def live() -> dict[str, Any]:
    """Tell that the process answers."""
    return {"status": "alive"}


@blueprint.route("/readyz", methods=["GET"])
@blueprint.doc(security=[])
@blueprint.response(200, HealthOut, example={"status": "ready", "age_ms": 0, "ttl_ms": 1000})
@may_fail("stale", "diverged")
def ready() -> dict[str, Any]:
    """Tell that the log was just read: a read that began after this request came back in time."""
    here = node()
    published = here.refresher.read_after(here.clocks.raw_us_ceil())
    if isinstance(published, Unready):
        raise Problem("stale" if published is Unready.STALE else "diverged")
    age_us = published.age_us(here.clocks.raw_us_ceil())
    return {"status": "ready", "age_ms": age_us // 1000, "ttl_ms": published.ttl.ttl_ms}


@blueprint.route("/metrics", methods=["GET"])
@blueprint.doc(security=[])
@blueprint.response(200, {"type": "string"}, content_type="text/plain", description="Prometheus text format")
def metrics() -> Response:
    """Return the service's metrics."""
    return cast("Metrics", current_app.extensions[METRICS]).exposition()
