"""haltline-server kill: the flip transaction straight on the database, for when no control lane can be reached."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from enum import IntEnum
from functools import partial
from typing import Any, Final

import click

from app.api.flipping import members
from app.cli.direct import existing, is_refusal
from app.cli.tokens import ACTOR
from app.config import Config
from app.domain.access import Permission, Principal, Role
from app.domain.reasons import check_reason
from app.domain.tokens import check_no_token
from app.service.flips import FlipOutcome, Flipped, new_flip_id
from app.service.node import Node
from app.service.store import FlipIdTaken, LogDiverged, OutcomeUnknown, StoreFull, StoreUnavailable
from haltline.scopes import Target, check_id, parse_target

ATTEMPTS: Final = 3
"""How often a kill whose outcome is not known is repeated, with its flip_id, before that is said."""


class Exit(IntEnum):
    """How the command ends: the numbers of ``haltline kill``."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    NOT_DONE = 4
    UNKNOWN = 5


_OUTCOMES: Final = {
    Exit.DONE: "done",
    Exit.FAILED: "failed",
    Exit.USAGE: "usage",
    Exit.REFUSED: "refused",
    Exit.NOT_DONE: "not_done",
    Exit.UNKNOWN: "unknown",
}

_SELF: Final = Principal(
    token_id="",
    subject=ACTOR,
    role=Role.OPERATOR,
    tenants=None,
    permissions=frozenset({Permission.KILL}),
    expires_at=math.inf,
)


class Ended(Exception):
    """The kill is not proven; carries the exit code and the lines for a person, the first of them what happened."""

    def __init__(self, code: Exit, *said: str, **more: Any) -> None:
        super().__init__(said[0])
        self.code = code
        self.said = said
        self.more = more


def kill(config: Config, scope: str, identifier: str | None, *, as_json: bool, **options: Any) -> int:
    """Kill a target, say what was done, and return the exit status.

    Args:
        config: names the database.
        scope: the target, or its scope.
        identifier: its id, where it stands apart.
        as_json: whether to print one JSON object.
        options: ``reason``, ``flip_id`` (None for a new one), ``in_flight`` and ``queued``.
    """
    try:
        _kill(config, scope, identifier, as_json=as_json, **options)
    except Ended as ended:
        for line in ended.said:
            click.echo(line, err=True)
        if as_json:
            _json(ended.code, {"detail": " ".join(ended.said), **ended.more})
        return ended.code
    return Exit.DONE


def _json(code: Exit, more: dict[str, Any]) -> None:
    click.echo(json.dumps({"ok": code is Exit.DONE, "outcome": _OUTCOMES[code], "exit": int(code), **more}))


def _kill(
    config: Config,
    scope: str,
    identifier: str | None,
    *,
    reason: str,
    flip_id: str | None,
    as_json: bool,
    **policy: Any,
) -> None:
    target, key = _order(scope, identifier, reason, flip_id)
    options = "".join(f" --{name.replace('_', '-')} {value}" for name, value in policy.items())
    named = f"{scope}{'' if identifier is None else f' {identifier}'}{options}"
    again = f"haltline-server kill {named} --reason ... --flip-id {key}"

    def ask(node: Node) -> FlipOutcome:
        return node.flips.kill(_SELF, target, reason=reason, flip_id=key, **policy)

    try:
        with existing(config) as node:
            outcome = _asked(partial(ask, node))
            _show(node, _proven(outcome, target), as_json=as_json)
    except StoreUnavailable as error:
        code = Exit.USAGE if is_refusal(error) else Exit.NOT_DONE
        raise Ended(code, f"NOT KILLED: {target}: {error}", *_otherwise(code), target=str(target)) from None
    except LogDiverged as error:
        raise Ended(Exit.NOT_DONE, f"NOT KILLED: {target}: {error}", target=str(target)) from None
    except OutcomeUnknown as error:
        raise Ended(
            Exit.UNKNOWN,
            f"UNKNOWN: whether {target} is killed: {error}",
            "Type this, with the same reason, until there is another answer; it never kills twice:",
            f"  {again}",
            target=str(target),
            flip_id=key,
            again=again,
        ) from None


def _order(scope: str, identifier: str | None, reason: str, flip_id: str | None) -> tuple[Target, str]:
    try:
        target = parse_target(scope if identifier is None else f"{scope}:{identifier}")
        check_no_token(str(target))
        check_reason(check_no_token(reason))
        return target, new_flip_id() if flip_id is None else check_id(check_no_token(flip_id), "--flip-id")
    except ValueError as error:
        raise Ended(Exit.USAGE, f"haltline-server: {error}") from None


def _asked(ask: Callable[[], FlipOutcome]) -> FlipOutcome:
    """Return what the flip came to; one whose outcome is not known is repeated, which never kills twice."""
    doubt: OutcomeUnknown | None = None
    for _ in range(ATTEMPTS):
        try:
            return ask()
        except OutcomeUnknown as error:
            doubt = error
        except StoreUnavailable:
            if doubt is None:
                raise
        except KeyboardInterrupt:
            raise OutcomeUnknown("interrupted before the answer was known") from None
    assert doubt is not None  # noqa: S101 - for the type checker: every other way has returned or raised
    raise doubt


def _proven(outcome: FlipOutcome, target: Target) -> Flipped:
    if isinstance(outcome, FlipIdTaken):
        raise Ended(
            Exit.REFUSED,
            f"NOT KILLED: {target}: the flip id belongs to another flip, at log position {outcome.seq}: leave out "
            f"--flip-id",
            target=str(target),
        )
    if isinstance(outcome, StoreFull):
        raise Ended(
            Exit.REFUSED,
            f"NOT KILLED: {target}: {outcome.limit} holds are active, which is the most that a log may have: kill "
            f"something broader",
            target=str(target),
        )
    if not isinstance(outcome, Flipped):
        raise TypeError(f"a kill by the service itself cannot come to {outcome}")
    flag, seq = outcome.committed.flag, outcome.committed.row.position.seq
    if all(hold.seq != seq for hold in flag.holds):
        raise Ended(
            Exit.FAILED,
            f"NOT KILLED AGAIN: this very kill of {target} was written before, at log position {seq},",
            "and its hold was released since. To kill it anew, leave out --flip-id.",
            target=str(target),
            seq=seq,
        )
    return outcome


def _show(node: Node, flipped: Flipped, *, as_json: bool) -> None:
    told = members(flipped)
    left = flipped.effective_in_ms(node.clocks)
    if as_json:
        more = {"effective_at": flipped.effective_at, "effective_in_ms": left}
        _json(Exit.DONE, {"new": not flipped.committed.replayed, **told, **more})
        return
    click.echo(f"killed {told['target']} at log position {told['seq']}")
    if flipped.committed.replayed:
        click.echo(f"written by an earlier attempt, at {told['committed_at']}")
    own = next(hold for hold in told["holds"] if hold["seq"] == told["seq"])
    click.echo(f"in flight: {own['in_flight']}; queued: {own['queued']}")
    others = [hold for hold in told["holds"] if hold["seq"] != told["seq"]]
    if others:
        click.echo(f"holds on it: {len(others) + 1}; every one must be released before it is free again")
    click.echo(f"flip id {told['flip_id']}")
    click.echo(f"effective at {flipped.effective_at}, in {left} ms: until then a lease granted before may run")


def _otherwise(code: Exit) -> tuple[str, ...]:
    if code is Exit.USAGE:
        return ()
    return (
        "Nothing was done. If the database is down for everybody, every worker stops by itself within 5 s.",
        "If only this machine cannot reach it, kill from another one. Stopping every worker lane is a global stop",
        "within one ttl.",
    )
