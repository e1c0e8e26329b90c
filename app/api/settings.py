"""/v1/settings: the lease ttl of the whole store."""

from __future__ import annotations

from typing import Any, Final

from app.api.auth import needs, node, principal
from app.api.operations import EXAMPLE_AT, READS, WRITES, Blueprint, may_fail
from app.api.problems import Problem
from app.api.schemas import SettingsBody
from app.api.shapes import settings
from app.api.shown import SettingsChangedOut, SettingsOut
from app.domain.access import Permission
from app.service.settings import ClocksApart

blueprint: Final = Blueprint("settings", __name__, description="what holds for all nodes at once")

EXAMPLE: Final = {"ttl_ms": 500, "changed_at": EXAMPLE_AT, "before_ms": 1000}


@blueprint.route("/v1/settings", methods=["GET"])
@needs(Permission.READ)
@blueprint.response(200, SettingsOut, example=EXAMPLE)
@may_fail(*READS)
def read_settings() -> dict[str, Any]:
    """Read the lease ttl, and what is left of the one before.

    A kill is effective `ttl_ms` after it was acknowledged, and not before `changed_at` + `before_ms`.
    """
    return settings(node().settings.read())


@blueprint.route("/v1/settings", methods=["PUT"])
@needs(Permission.SETTINGS)
@blueprint.arguments(SettingsBody(), example={"ttl_ms": 500})
@blueprint.response(200, SettingsChangedOut, example={**EXAMPLE, "seq": 43})
@may_fail(*WRITES, "clocks_apart")
def change_settings(body: dict[str, Any]) -> dict[str, Any]:
    """Change the lease ttl of the whole store.

    It is a note in the log. Every node grants leases of the new ttl from its next read on; leases granted before run
    out by themselves, and `effective_at` of kills allows for them. Setting what is set already changes nothing. Where
    the outcome is unknown, send it again. A node whose clock is over a second from the database's refuses to lower it.
    """
    try:
        changed = node().settings.change(ttl_ms=body["ttl_ms"], actor=principal().subject)
    except ClocksApart as error:
        raise Problem("clocks_apart", f"{error}. Nothing was changed.") from None
    return {**settings(changed.ttl), "seq": changed.seq}
