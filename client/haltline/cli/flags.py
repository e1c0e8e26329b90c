"""``haltline flags`` and ``haltline status``: what is killed now, by whom and why, and whether the service is fresh."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

from haltline.cli.exchange import told
from haltline.cli.exits import Ended, Exit
from haltline.cli.flipping import hold_seqs
from haltline.cli.session import Session, path_of
from haltline.errors import InvalidTarget
from haltline.scopes import Scope, Target, parse_target

HOLD_COLUMNS: Final = ("target", "hold", "by", "at", "in flight", "queued", "reason")

_PAGE: Final = 1_000
_SHOWN: Final = 100


def hold_row(hold: Mapping[str, Any]) -> tuple[object, ...]:
    """Return a hold as a row under :data:`HOLD_COLUMNS`."""
    return tuple(hold.get(name, "") for name in ("target", "seq", "actor", "at", "in_flight", "queued", "reason"))


def flag(session: Session, target: Target) -> Exit:
    """Show one target: whether it is killed, and every hold on it.

    Raises:
        Ended: it could not be read.
    """
    answer = session.get(path_of(target))
    members = answer.members or {}
    if members.get("target") != str(target) or hold_seqs(members) is None:
        raise Ended(Exit.REFUSED, f"refused: the answer is not the flag of {target}: check the address")
    screen = session.screen
    if members["holds"]:
        screen.say(f"{target} is killed", style="bold red")
        screen.table(HOLD_COLUMNS, [hold_row(hold) for hold in members["holds"]])
    else:
        last = members.get("last_kill")
        screen.say(f"{target} is not killed" + (f"; its last kill was at log position {last}" if last else ""))
    screen.json(_done(members))
    return Exit.DONE


def flags(session: Session) -> Exit:
    """Show every killed target.

    Raises:
        Ended: they could not be read.
    """
    pages = list(_pages(session))
    found = [each for page in pages for each in page["flags"]]
    session.screen.table(HOLD_COLUMNS, _rows(found))
    if not found:
        session.screen.say("nothing is killed")
    session.screen.json(_done({**pages[-1], "flags": found, "next_cursor": None}))
    return Exit.DONE


def status(session: Session) -> Exit:
    """Show whether the service is fresh, where its log stands, and what is killed on each rung.

    Raises:
        Ended: it could not be read.
    """
    ready = session.get("/readyz", accept=(200, 503))
    fresh = ready.status == 200 and (ready.members or {}).get("status") == "ready"
    screen = session.screen
    screen.say(f"service    {session.wire.address}, namespace {session.settings.namespace}")
    if fresh:
        screen.say(f"fresh      yes: it read its log {(ready.members or {}).get('age_ms')} ms ago", style="green")
    else:
        screen.say(f"fresh      NO: {told(ready)}", style="bold red")
    answer = session.get(f"/v1/flags?limit={_SHOWN}", accept=(200,) if fresh else (200, 503))
    known = {"fresh": fresh, "url": session.wire.address, "namespace": session.settings.namespace}
    if answer.status != 200:
        screen.say(f"killed     cannot be read: {told(answer)}")
        screen.json(_done(known))
        return Exit.DONE
    page = _page(answer.members or {})
    ttl_ms = (ready.members or {}).get("ttl_ms") if fresh else None
    screen.say(f"log        position {page['seq']}, hash {page['hash']}, epoch {page['epoch']}")
    if type(ttl_ms) is int:
        screen.say(f"lease      {ttl_ms} ms: a kill is effective everywhere that long after its acknowledgement")
    counts = page["counts"]
    for scope in sorted(Scope, key=lambda each: each.breadth):
        number = counts.get(scope.value, 0)
        screen.say(f"{scope.value:<11}{f'{number} killed' if number else '-'}", style="bold red" if number else "")
    screen.table(HOLD_COLUMNS, _rows(page["flags"]))
    if page.get("next_cursor"):
        screen.say("... and more: haltline flags")
    head = {"seq": page["seq"], "hash": page["hash"]}
    ready_members = {"age_ms": (ready.members or {}).get("age_ms"), "ttl_ms": ttl_ms, "epoch": page["epoch"]}
    listed = {"counts": counts, "flags": page["flags"], "more": bool(page.get("next_cursor"))}
    screen.json(_done({**known, **ready_members, "head": head, **listed}))
    return Exit.DONE


def _done(members: Mapping[str, Any]) -> dict[str, Any]:
    return {"ok": True, "outcome": "done", "exit": 0, **members}


def _pages(session: Session) -> Iterator[Mapping[str, Any]]:
    cursor = ""
    while True:
        after = f"&cursor={quote(cursor, safe='')}" if cursor else ""
        page = _page(session.get(f"/v1/flags?limit={_PAGE}{after}").members or {})
        yield page
        following = page.get("next_cursor")
        if not isinstance(following, str) or not page["flags"]:
            return
        if following <= cursor:
            raise Ended(Exit.REFUSED, "refused: the list of flags goes round in a circle: this is not the service")
        cursor = following


def _page(members: Mapping[str, Any]) -> Mapping[str, Any]:
    listed, counts = members.get("flags"), members.get("counts")
    whole = (
        isinstance(listed, list)
        and all(isinstance(each, dict) and hold_seqs(each) is not None for each in listed)
        and isinstance(counts, dict)
        and type(members.get("seq")) is int
    )
    if not whole:
        raise Ended(Exit.REFUSED, "refused: the answer is not a list of flags: check the address")
    return members


def _rows(listed: list[Mapping[str, Any]]) -> list[tuple[object, ...]]:
    """Return a row for each hold, the broadest targets first."""
    return [hold_row(hold) for each in sorted(listed, key=_breadth) for hold in each["holds"]]


def _breadth(each: Mapping[str, Any]) -> tuple[int, str]:
    try:
        return parse_target(each.get("target")).scope.breadth, str(each.get("target"))
    except InvalidTarget:
        return len(Scope), str(each.get("target"))
