"""``haltline revive``: release holds by their numbers, from a view that was looked at.

A revive starts nothing: it permits a restart. Somebody else's hold is never released by accident: the flag is read and
shown first, the holds are named, and the service refuses if the target was flipped in between (``If-Match``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from haltline.cli.exchange import Answer, Ask
from haltline.cli.exits import Ended, Exit
from haltline.cli.flags import HOLD_COLUMNS, hold_row
from haltline.cli.flipping import Done, Flip, NotDone, Refused, hold_seqs, send_flip
from haltline.cli.kill import body_of, flip_id_of
from haltline.cli.session import REACH, Session, path_of, words_of
from haltline.scopes import Target

PATH: Final = "/v1/revives"


@dataclass(frozen=True, slots=True)
class Order:
    """What to release.

    Attributes:
        reason: why.
        holds: the holds named, ascending; empty where none was.
        everything: whether to release every hold that is shown.
        flip_id: the idempotency key of a revive that is repeated; None for a new one.
    """

    reason: str
    holds: tuple[int, ...] = ()
    everything: bool = False
    flip_id: str | None = None


def revive(session: Session, target: Target, order: Order) -> Exit:
    """Release holds of a target, and prove it.

    Raises:
        Ended: it is not clear which holds are meant, or the revive is not proven.
    """
    key = flip_id_of(order.flip_id)
    view = read_view(session, target)
    holds = _chosen(target, order, view, repeated=order.flip_id is not None)
    if view.holds:
        session.screen.say(f"{target} is killed by:")
        session.screen.table(HOLD_COLUMNS, [hold_row(hold) for hold in view.holds])
    body = body_of({"target": str(target), "holds": list(holds), "reason": order.reason, "flip_id": key})
    flip = Flip("revive", target, key, Ask("POST", PATH, body, (("If-Match", view.etag),)), holds)
    ways = session.ways
    outcome = send_flip(flip, ways, timeout_s=session.left_s, now=session.now, sleep=session.sleep)
    if isinstance(outcome, Done):
        _show(session, flip, outcome)
        return Exit.DONE
    if isinstance(outcome, Refused) and outcome.status == 412:
        raise _changed(session, flip, view, outcome)
    named = [word for hold in holds for word in ("--hold", str(hold))]
    again = session.again("revive", *words_of(target), *named, "--reason", order.reason, "--flip-id", key)
    raise _not_revived(flip, outcome, again)


@dataclass(frozen=True, slots=True)
class View:
    """A target's flag as it was read.

    Attributes:
        etag: its ETag.
        holds: its active holds.
    """

    etag: str
    holds: Sequence[Mapping[str, Any]]


def read_view(session: Session, target: Target) -> View:
    """Return a target's flag.

    Raises:
        Ended: it cannot be read, or the answer is about something else.
    """
    answer = session.get(path_of(target))
    view = _view(answer, target)
    if view is None:
        raise Ended(Exit.REFUSED, f"refused: the answer is not the flag of {target}: check the address")
    return view


def _view(answer: Answer, target: Target) -> View | None:
    members = answer.members or {}
    etag = answer.headers.get("etag", "")
    if members.get("target") != str(target) or hold_seqs(members) is None or not etag.startswith('"'):
        return None
    return View(etag, members["holds"])


def _chosen(target: Target, order: Order, view: View, *, repeated: bool) -> tuple[int, ...]:
    active = [hold["seq"] for hold in view.holds]
    if repeated and order.holds:
        return order.holds  # an earlier attempt may have released them; the service knows its flip_id
    if not active:
        raise Ended(
            Exit.USAGE,
            f"nothing to release: {target} is not killed",
            "haltline flags lists every target that is.",
            members={"holds": []},
        )
    listed = {"holds": [dict(hold) for hold in view.holds]}
    unknown = [hold for hold in order.holds if hold not in active]
    if unknown:
        numbers = ", ".join(map(str, unknown))
        raise Ended(Exit.USAGE, f"no such hold on {target}: {numbers}", *_lines(view), members=listed)
    if order.holds:
        return order.holds
    if order.everything:
        return tuple(sorted(active))
    # Also where there is only one: it need not be the one that whoever types this has in mind.
    count = "1 hold" if len(active) == 1 else f"{len(active)} holds"
    raise Ended(
        Exit.USAGE,
        f"{target} has {count}: name those to release with --hold N (again for each), or use --all",
        *_lines(view),
        members=listed,
    )


def _lines(view: View) -> list[str]:
    shown = ([hold.get(name, "") for name in ("seq", "actor", "at", "reason")] for hold in view.holds)
    return [f"  hold {seq} by {actor} at {at}: {reason}" for seq, actor, at, reason in shown]


def _show(session: Session, flip: Flip, done: Done) -> None:
    screen, members = session.screen, done.members
    numbers = ", ".join(map(str, flip.releases))
    screen.say(f"released {numbers} of {flip.target} at log position {members['seq']}", style="bold")
    if not done.new:
        screen.say(f"written by an earlier attempt, at {members['committed_at']}")
    if members["holds"]:
        screen.say(f"{flip.target} is STILL KILLED by {len(members['holds'])} more:", style="bold red")
        screen.table(HOLD_COLUMNS, [hold_row(hold) for hold in members["holds"]])
    else:
        screen.say(f"{flip.target} is free. Nothing was started: a revive permits a restart.")
    screen.say(f"flip id {flip.flip_id}")
    screen.json({"ok": True, "outcome": "done", "exit": 0, "new": done.new, **members})


def _changed(session: Session, flip: Flip, before: View, refused: Refused) -> Ended:
    said = [f"NOT REVIVED: {flip.target} was flipped since you looked. Nothing was released."]
    after = before
    try:
        after = read_view(session, flip.target)
    except Ended as ended:
        said.append(f"What changed could not be read: {ended.said[0]}")
    else:
        old, new = ({hold["seq"] for hold in view.holds} for view in (before, after))
        gone = ", ".join(map(str, sorted(old - new)))
        if gone:
            said.append(f"released meanwhile: {gone}")
        come = View(after.etag, [hold for hold in after.holds if hold["seq"] not in old])
        if come.holds:
            said += ["killed meanwhile:", *_lines(come)]
        if not gone and not come.holds:
            said.append("the same holds are on it now as before: it was killed and revived in between")
    said.append("Look at what is there now, then decide anew.")
    holds = [dict(hold) for hold in after.holds]
    return Ended(Exit.REFUSED, *said, members={"problem": dict(refused.members), "holds": holds})


def _not_revived(flip: Flip, outcome: object, again: str) -> Ended:
    members = {"target": str(flip.target), "flip_id": flip.flip_id}
    said = getattr(outcome, "said", "")
    if isinstance(outcome, Refused):
        problem = {"problem": dict(outcome.members)}
        return Ended(Exit.REFUSED, f"NOT REVIVED: {flip.target}: {said}", members={**members, **problem})
    if isinstance(outcome, NotDone):
        what = f"Nothing was done. {REACH}"
        return Ended(Exit.NOT_DONE, f"NOT REVIVED: {flip.target}: {said}", what, members=members)
    return Ended(
        Exit.UNKNOWN,
        f"UNKNOWN: whether {flip.target} is revived: {said}",
        "Type this until there is another answer; it never revives twice:",
        f"  {again}",
        members={**members, "again": again, "next": [again]},
    )
