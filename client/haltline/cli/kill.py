"""``haltline kill``: one person, one call."""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

from haltline.canonical import canonical
from haltline.cli.exchange import WRONG_LANE, Ask
from haltline.cli.exits import Ended, Exit
from haltline.cli.flipping import Done, Flip, NotDone, Refused, hold_seqs, send_flip
from haltline.cli.session import CONTROL, REACH, Session, words_of
from haltline.errors import InvalidDocument, InvalidTarget
from haltline.scopes import Target, check_id

PATH: Final = "/v1/kills"

EFFECTIVE: Final = "effective: every lease granted before this kill has ended"


def kill(
    session: Session,
    target: Target,
    *,
    reason: str,
    policy: Mapping[str, str],
    flip_id: str | None,
    wait: bool | None,
) -> Exit:
    """Kill a target, prove it, and say from when it is effective.

    Args:
        session: the command.
        target: what to kill.
        reason: why.
        policy: ``in_flight`` and ``queued``, those of them that were given; the service has its own for the others.
        flip_id: the idempotency key of a kill that is repeated; None for a new one.
        wait: whether to wait until the kill is effective; None to wait before a person's eyes only.

    Raises:
        Ended: the kill is not proven.
    """
    key = flip_id_of(flip_id)
    body = body_of({"target": str(target), "reason": reason, "flip_id": key, **policy})
    flip = Flip("kill", target, key, Ask("POST", PATH, body), policy=policy)
    ways = session.ways
    outcome = send_flip(flip, ways, timeout_s=session.left_s, now=session.now, sleep=session.sleep)
    if not isinstance(outcome, Done):
        words = (*words_of(target), *policy_words(policy), "--reason", reason)
        again = session.again("kill", *words, "--flip-id", key)
        raise _not_killed(flip, outcome, again, by_hand(words))
    members = outcome.members
    if members["seq"] not in (hold_seqs(members) or ()):
        raise _released_since(flip, members)
    _show(session, flip, outcome)
    until = outcome.arrived + members["effective_in_ms"] / 1000
    if wait is True or (wait is None and session.screen.terminal):
        try:
            session.screen.countdown(until=until, now=session.now, sleep=session.sleep)
        except KeyboardInterrupt:
            session.screen.say("not waited for: the kill is done and takes effect without you")
        else:
            session.screen.say(EFFECTIVE, style="bold")
    else:
        session.screen.say(f"effective in {members['effective_in_ms']} ms: until then a lease granted before may run")
    session.screen.json({"ok": True, "outcome": "done", "exit": 0, "new": outcome.new, **members})
    return Exit.DONE


def flip_id_of(given: str | None) -> str:
    """Return the idempotency key of a flip: the one given, or a fresh one.

    Raises:
        Ended: the one given is not a valid id.
    """
    try:
        return check_id(given, "--flip-id") if given is not None else f"f-{uuid.uuid4().hex}"
    except InvalidTarget as error:
        raise Ended(Exit.USAGE, str(error)) from None


def body_of(members: Mapping[str, Any]) -> bytes:
    """Return the body of a flip.

    Raises:
        Ended: the reason is not text (an argument that was not UTF-8).
    """
    try:
        return canonical(members)
    except InvalidDocument as error:
        raise Ended(Exit.USAGE, f"--reason: {error}") from None


def policy_words(policy: Mapping[str, str]) -> tuple[str, ...]:
    """Return the options of the command line that say what a kill does with running calls and planned work."""
    return tuple(word for name, value in policy.items() for word in (f"--{name.replace('_', '-')}", value))


def by_hand(words: Sequence[str]) -> str:
    """Return the line that kills a target straight on the database, where no control lane answers."""
    return shlex.join(("haltline-server", "kill", *words))


def _show(session: Session, flip: Flip, done: Done) -> None:
    screen, members = session.screen, done.members
    screen.say(f"killed {flip.target} at log position {members['seq']}", style="bold red")
    if not done.new:
        screen.say(f"written by an earlier attempt, at {members['committed_at']}")
    holds = members["holds"]
    own = next(hold for hold in holds if hold["seq"] == members["seq"])
    screen.say(f"in flight: {own.get('in_flight')}; queued: {own.get('queued')}")
    others = [hold for hold in holds if hold["seq"] != members["seq"]]
    if others:
        screen.say(f"holds on it: {len(holds)}; every one must be released before it is free again")
        for hold in others:
            screen.say(f"  {hold['seq']} by {hold.get('actor')} at {hold.get('at')}: {hold.get('reason')}")
    screen.say(f"flip id {flip.flip_id}")


def _not_killed(flip: Flip, outcome: object, again: str, straight: str) -> Ended:
    members = {"target": str(flip.target), "flip_id": flip.flip_id}
    if isinstance(outcome, Refused):
        said = f"NOT KILLED: {flip.target}: {outcome.said}"
        more = (CONTROL,) if outcome.members.get("code") == WRONG_LANE else ()
        return Ended(Exit.REFUSED, said, *more, members={**members, "problem": dict(outcome.members)})
    if isinstance(outcome, NotDone):
        return Ended(
            Exit.NOT_DONE,
            f"NOT KILLED: {flip.target}: {outcome.said}",
            f"Nothing was done. {REACH} Any control lane takes the kill.",
            "With no control lane in reach, kill straight on the database, on a machine that has its settings:",
            f"  {straight}",
            "Or stop the worker lane, every node of it: every worker then stops by itself, at most 5 s later.",
            members={**members, "next": [straight]},
        )
    said = getattr(outcome, "said", "")
    return Ended(
        Exit.UNKNOWN,
        f"UNKNOWN: whether {flip.target} is killed: {said}",
        "Type this until there is another answer; it never kills twice:",
        f"  {again}",
        members={**members, "again": again, "next": [again]},
    )


def _released_since(flip: Flip, members: Mapping[str, Any]) -> Ended:
    left = hold_seqs(members) or []
    state = f"other holds are on it: {', '.join(map(str, left))}" if left else "it is not killed now"
    return Ended(
        Exit.FAILED,
        f"NOT KILLED AGAIN: this very kill of {flip.target} was written before, at log position {members['seq']},",
        f"and its hold was released since; {state}. To kill it anew, leave out --flip-id.",
        members={"reply": dict(members)},
    )
