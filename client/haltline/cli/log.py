"""``haltline log``: what happened, newest last."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from haltline.cli.exits import Ended, Exit
from haltline.cli.session import Session

DEFAULT_LIMIT: Final = 50
"""How many entries are shown if nobody says."""

_PAGE: Final = 1_000
COLUMNS: Final = ("seq", "at", "kind", "target", "by", "reason")
_PLAIN: Final = frozenset(
    {
        "v",
        "namespace",
        "epoch",
        "seq",
        "kind",
        "at",
        "actor",
        "prev_hash",
        "hash",
        "topic",
        "target",
        "reason",
        "flip_id",
    }
)
_USUAL: Final = {"in_flight": "abort", "queued": "discard"}
"""What a kill does with running calls and planned work if nobody says otherwise: not worth repeating in each line."""

_AGO: Final = re.compile(r"(?:(\d{1,5})d)?(?:(\d{1,5})h)?(?:(\d{1,5})m)?(?:(\d{1,6})s)?", re.ASCII)
_AGO_HELP: Final = (
    "write how long ago (90s, 15m, 2h, 7d, 1h30m), or a moment as in 2026-11-20T20:25:11Z (UTC, or its zone)"
)


@dataclass(frozen=True, slots=True)
class Filters:
    """Which entries to show; every filter given must hold.

    Attributes:
        since: entries of this moment and later.
        until: entries before this moment.
        scope: flips of this scope.
        target: flips of this target.
        actor: entries of this subject.
        kind: entries of this kind.
    """

    since: str | None = None
    until: str | None = None
    scope: str | None = None
    target: str | None = None
    actor: str | None = None
    kind: str | None = None


def moment_of(text: str, *, now: datetime) -> str:
    """Return the moment that ``text`` names as the log writes it.

    Args:
        text: how long ago, as in ``2h`` or ``1h30m``; or a date or moment of ISO 8601, in UTC if it names no zone.
        now: the moment to count back from.

    Raises:
        ValueError: it is neither.
    """
    ago = _AGO.fullmatch(text)
    if ago is not None and text:
        days, hours, minutes, seconds = (int(part or 0) for part in ago.groups())
        try:
            when = now - timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        except OverflowError:
            raise ValueError("that long ago there was no log") from None
    else:
        try:
            when = datetime.fromisoformat(text)
            when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
        except (ValueError, OverflowError):
            raise ValueError(_AGO_HELP) from None
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")


def log(session: Session, filters: Filters, *, limit: int) -> Exit:
    """Show the newest entries that match, in the order of the log.

    Args:
        session: the command.
        filters: which entries.
        limit: how many at most.

    Raises:
        Ended: they could not be read.
    """
    query = {name: value for name in Filters.__slots__ if (value := getattr(filters, name)) is not None}
    found: list[Mapping[str, Any]] = []
    cursor: int | None = None
    while len(found) < limit:
        page = {**query, "order": "desc", "limit": str(min(_PAGE, limit - len(found)))}
        if cursor is not None:
            page["cursor"] = str(cursor)
        members = session.get(f"/v1/log?{urlencode(page)}").members or {}
        found += entries_of(members)
        following = members.get("next_cursor")
        if type(following) is not int or following <= 1:
            break
        if cursor is not None and following >= cursor:
            raise Ended(Exit.REFUSED, "refused: the log goes round in a circle: this is not the service")
        cursor = following
    found = found[:limit][::-1]
    for entry in found:
        session.screen.json(entry)
    if found:
        session.screen.table(COLUMNS, [row_of(entry) for entry in found])
    else:
        session.screen.say("no entry matches")
    return Exit.DONE


def entries_of(members: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the entries of a page of the log.

    Raises:
        Ended: it is none.
    """
    listed = members.get("entries")
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise Ended(Exit.REFUSED, "refused: the answer is not a page of the log: check the address")
    return listed


def row_of(entry: Mapping[str, Any]) -> tuple[object, ...]:
    """Return what is shown of an entry, column by column."""
    if "kind" not in entry:
        return (entry.get("seq", ""), "", "", "", "", "(not for this token)")
    told = entry.get("reason", "")
    if entry["kind"] == "note":
        more = (f"{name}={value}" for name, value in sorted(entry.items()) if name not in _PLAIN)
        told = " ".join((str(entry.get("topic", "")), *more))
    elif entry["kind"] == "kill":
        unusual = [f"{name.replace('_', ' ')}: {entry.get(name)}" for name in _USUAL if entry.get(name) != _USUAL[name]]
        told = f"{told} ({'; '.join(unusual)})" if unusual else told
    elif entry["kind"] == "revive":
        told = f"{told} (released {', '.join(map(str, entry.get('holds') or ()))})"
    return (*(entry.get(name, "") for name in ("seq", "at", "kind", "target", "actor")), told)
