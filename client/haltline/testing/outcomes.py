"""What the fake service makes of outcomes that workers tell."""

from __future__ import annotations

from typing import Any

from haltline.canonical import canonical, parse
from haltline.errors import InvalidDocument
from haltline.frames import FRAME_TYPE, Reply
from haltline.testing.frames import problem


def keep(kept: list[dict[str, Any]], body: bytes, *, head: int) -> Reply:
    """Add outcomes to those that are kept, of each run and flip the first one, and return the reply.

    It looks at no more than it needs: the service checks every member.

    Args:
        kept: what was kept so far.
        body: the request's body.
        head: where the log ends.
    """
    try:
        told: list[dict[str, Any]] = parse(body)["outcomes"]
        keys = [(each["run"], each["flip"]) for each in told]
    except InvalidDocument as error:
        return problem(400, "malformed_body", str(error))
    except (LookupError, TypeError):
        told, keys = [], []
    if not keys or any(type(flip) is not int for _, flip in keys):
        return problem(422, "invalid_fields", "A member is missing or malformed.")
    if max(flip for _, flip in keys) > head:
        return problem(409, "regress", "The log has no such flip.")
    known = {(each["run"], each["flip"]) for each in kept}
    before = len(kept)
    for key, each in zip(keys, told, strict=True):
        if key not in known:
            known.add(key)
            kept.append(each)
    new = len(kept) - before
    members = {"kept": new, "repeated": len(keys) - new}
    return Reply(200, FRAME_TYPE, encoded=False, body=canonical(members))
