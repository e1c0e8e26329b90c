"""One flip, sent until its outcome is known: a reply is a success only if it proves that it is one.

The flip_id is made before the first attempt and never changes, so that an attempt whose reply was lost is repeated
without flipping twice. Once an attempt may have reached the service, nothing but its own proof ends the doubt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, TypeAlias

from haltline.cli.exchange import WRONG_LANE, Answer, Ask, told
from haltline.cli.ways import Way
from haltline.errors import ServiceError
from haltline.flips import is_epoch, is_hash, is_moment
from haltline.scopes import Target

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 1.0
_PERSIST_S: Final = 2.0
_SHORTEST_TRY_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Flip:
    """A kill or a revive to be sent.

    Attributes:
        kind: which.
        target: of what.
        flip_id: its idempotency key.
        ask: the request.
        releases: for a revive, the holds that it releases, ascending.
        policy: for a kill, what was asked of it for running calls and planned work.
    """

    kind: Literal["kill", "revive"]
    target: Target
    flip_id: str
    ask: Ask
    releases: tuple[int, ...] = ()
    policy: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Done:
    """The flip is in the log.

    Attributes:
        members: the reply, verified.
        new: whether it was written now; False if it had been before.
        arrived: when the reply was here, on the caller's clock, seconds.
    """

    members: Mapping[str, Any]
    new: bool
    arrived: float


@dataclass(frozen=True, slots=True)
class Refused:
    """The service refused it; nothing was written."""

    status: int
    said: str
    members: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NotDone:
    """It is certain that nothing was written."""

    said: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may have been written, or not."""

    said: str


Outcome: TypeAlias = Done | Refused | NotDone | Unknown


def send_flip(
    flip: Flip, ways: Sequence[Way], *, timeout_s: float, now: Callable[[], float], sleep: Callable[[float], None]
) -> Outcome:
    """Send a flip, by each way in turn and again if its reply is lost, until its outcome is known or the time is up.

    Args:
        flip: what to send.
        ways: the addresses to send it to, in the order in which to try; each request has a connection of its own.
        timeout_s: for how long in all, seconds.
        now: reads a clock that is never set, seconds.
        sleep: waits so many seconds.
    """
    try:
        return _Sending(flip, ways, until=now() + timeout_s, now=now, sleep=sleep).outcome()
    except KeyboardInterrupt:
        # Where the signal came is not known: perhaps after the last byte was sent.
        return Unknown("interrupted before the answer was known")


class _Sending:
    """One flip being sent, round after round over the ways that are not useless yet."""

    def __init__(
        self,
        flip: Flip,
        ways: Sequence[Way],
        *,
        until: float,
        now: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._flip = flip
        self._ways = [*ways]
        self._several = len(ways) > 1
        self._until = until
        self._now = now
        self._sleep = sleep
        self._doubt: Unknown | None = None
        self._refused: Refused | None = None
        self._said: dict[str, str] = {}

    def outcome(self) -> Outcome:
        """Send it, and return what came of it."""
        began = self._now()
        pause, first = _FIRST_PAUSE_S, True
        while self._now() < self._until:
            unreached, ended = self._round(first=first)
            if ended is not None:
                return ended
            if not self._ways:
                break
            # Nobody there at all: a lane that is being restarted is back in a moment, a wrong address never is.
            if self._doubt is None and unreached == len(self._ways) and self._now() - began >= _PERSIST_S:
                break
            first = False
            self._sleep(max(0.0, min(pause, self._until - self._now())))
            pause = min(2 * pause, _LONGEST_PAUSE_S)
        if self._doubt is not None:
            return self._doubt
        if self._refused is not None and not self._ways:
            return self._refused
        return NotDone("; ".join(self._said.values()) or f"no answer within {self._until - began:g} s")

    def _round(self, *, first: bool) -> tuple[int, Outcome | None]:
        """Try each way once; return how many were not reached, and the outcome if it is known."""
        unreached = 0
        ways = [*self._ways]
        for number, way in enumerate(ways):
            left = self._until - self._now()
            if left <= 0:
                break
            outcome = _attempt(self._flip, way, self._share(left, len(ways) - number, first=first), self._now)
            if isinstance(outcome, Done):
                return unreached, outcome
            if self._several:
                outcome = replace(outcome, said=way.told(outcome.said))
            self._said[way.address] = outcome.said
            if isinstance(outcome, Refused):
                if _about_the_flip(outcome) or (self._doubt is not None and not self._several):
                    return unreached, _in_doubt(outcome, self._doubt, self._flip)
                self._refused = self._refused or outcome
                self._ways.remove(way)
            elif isinstance(outcome, Unknown):
                self._doubt = outcome
                if isinstance(outcome, _Wrong):
                    self._ways.remove(way)
            elif isinstance(outcome, _Unreached):
                unreached += 1
        return unreached, None

    def _share(self, left: float, ways: int, *, first: bool) -> float:
        """Return how long an attempt may take: a hanging one must leave time for each way, and for a second round."""
        again = 1 if self._doubt is None or (first and self._several) else 0
        return left / (ways + again) if left > 2 * _SHORTEST_TRY_S else left / ways


class _Wrong(Unknown):
    """What answered is not the service, or lies: asking again would not help."""


class _Unreached(NotDone):
    """No connection: not one byte was sent."""


def _attempt(flip: Flip, way: Way, deadline_s: float, now: Callable[[], float]) -> Outcome:
    try:
        answer = way.wire.send(flip.ask, deadline_s)
    except ServiceError as error:
        return Unknown(str(error)) if error.sent else _Unreached(str(error))
    arrived = now()
    if answer.status in (200, 201):
        lacking = flaw(flip, answer)
        if lacking is None and answer.members is not None:
            return Done(answer.members, answer.status == 201, arrived)
        return _Wrong(f"the answer says {answer.status}, but {lacking}: it proves nothing")
    return _declined(answer)


def _declined(answer: Answer) -> Refused | NotDone | Unknown:
    """Return what an answer without success means."""
    members = answer.members or {}
    if answer.status == 429 or (answer.status == 503 and members.get("outcome") == "not_committed"):
        return NotDone(told(answer))
    if answer.status == 408 or answer.status >= 500:
        return Unknown(told(answer))
    if answer.status >= 400:
        return Refused(answer.status, told(answer), members)
    return _Wrong(told(answer))


def _about_the_flip(refused: Refused) -> bool:
    """Return whether the service itself refused the flip, which it would at every address.

    A worker lane refuses every flip; and what gives no code of the service's is something else that answers there.
    """
    return isinstance(refused.members.get("code"), str) and refused.members["code"] != WRONG_LANE


def _in_doubt(refused: Refused, doubt: Unknown | None, flip: Flip) -> Outcome:
    """Return what a refusal means after an attempt whose outcome is not known.

    A replay is recognised before a revive's view is looked at, and a view once stale stays stale: a 412 therefore says
    that no attempt was, or will be, written. Any other refusal is about this attempt alone.
    """
    if doubt is None or (flip.kind == "revive" and refused.status == 412):
        return refused
    return Unknown(f"{doubt.said}; asked again, the service refused: {refused.said}")


def flaw(flip: Flip, answer: Answer) -> str | None:
    """Return what keeps a 200 or 201 from proving that ``flip`` is in the log; None if it does."""
    members = answer.members
    if members is None:
        return "it is not JSON"
    seq, holds = members.get("seq"), hold_seqs(members)
    lacking = {
        "it is about another flip_id": members.get("flip_id") != flip.flip_id,
        "it is about another target": members.get("target") != str(flip.target),
        "it names no position in the log": type(seq) is not int or seq < 1,
        "it does not say in which log": not is_hash(members.get("hash")) or not is_epoch(members.get("epoch")),
        "it does not say when": not is_moment(members.get("committed_at")),
        "it does not list the target's holds": holds is None,
    }
    if flip.kind == "kill":
        wait = members.get("effective_in_ms")
        lacking["it does not say from when the kill is effective"] = type(wait) is not int or wait < 0
        lacking["the kill's own hold is not on the target"] = answer.status == 201 and seq not in (holds or ())
        own = next((hold for hold in members["holds"] if hold["seq"] == seq), None) if holds else None
        for name, asked in flip.policy.items():
            lacking[f"the kill's hold does not say {name} {asked}"] = own is not None and own.get(name) != asked
    else:
        lacking["it does not say that those holds were released"] = members.get("released") != [*flip.releases]
        lacking["they are still on the target"] = any(hold in (holds or ()) for hold in flip.releases)
    return next((what for what, missing in lacking.items() if missing), None)


def hold_seqs(members: Mapping[str, Any]) -> list[int] | None:
    """Return the seq of each hold that a reply lists; None if it lists none properly."""
    holds = members.get("holds")
    if type(holds) is not list or not all(isinstance(hold, dict) and type(hold.get("seq")) is int for hold in holds):
        return None
    return [hold["seq"] for hold in holds]
