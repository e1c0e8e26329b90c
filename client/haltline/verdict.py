"""Verdicts: a decision is a value, ``Go`` or ``Stop``, and its reasons are a closed list."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from haltline.flips import InFlight, Queued
from haltline.scopes import Target


class Reason(StrEnum):
    """Why a verdict is a stop; our own failures are reasons too."""

    KILLED = "killed"
    """A target on the run's path is killed, or was killed after the run was armed."""
    FROZEN = "frozen"
    """Only the capability is killed: the run goes on without it."""
    NO_RUN = "no_run"
    """No run is current here."""
    NOT_READY = "not_ready"
    """No lease was ever granted to this process, or the run was not armed."""
    STALE = "stale"
    """The lease has lapsed."""
    BEHIND = "behind"
    """The replica has not yet reached the position at which the run was armed."""
    UNREACHABLE = "unreachable"
    """The service could not be reached, or did not answer in time."""
    REFUSED = "refused"
    """The service refused a lease: the token, its role or namespace, or the service's own state."""
    UNSEEN = "unseen"
    """The run works for a tenant whose kills this process's token does not show."""
    MALFORMED = "malformed"
    """The reply was not a frame that this client understands, or is newer than it."""
    FOREIGN = "foreign"
    """The reply belongs to another log: another namespace or epoch."""
    REGRESS = "regress"
    """The service's log is behind, or differs from, what this client has already seen."""
    CLOCK = "clock"
    """This machine's clocks disagree about how much time has passed."""
    CLOSED = "closed"
    """The switch was closed."""


class Refusal(StrEnum):
    """Why a stamp is refused. All but HELD are for ever."""

    FORGED = "forged"
    """It is no stamp, was altered, or is sealed with a key that this process was not given."""
    FOREIGN = "foreign"
    """It is of another log: another namespace or epoch."""
    EXPIRED = "expired"
    """It is older than plan_max_age, 30 days."""
    DISCARDED = "discarded"
    """A kill that discards has hit its path since it was planned, revived or not."""
    MISMATCH = "mismatch"
    """It was planned for another payload."""
    HELD = "held"
    """Its path is killed, and it was planned after that kill: it may be redeemed after the revive."""


@dataclass(frozen=True, slots=True, order=True)
class Hold:
    """One active kill on one target; its id is the ``seq`` of the kill.

    Attributes:
        seq: the position of the kill in the log, which is the hold's id.
        target: what it holds.
        actor: the subject who killed.
        at: when, RFC 3339 UTC, information only (``seq`` is the order).
        reason: why, in the operator's words.
        in_flight: what happens to calls that are running.
        queued: what happens to planned work.
        flip_id: the kill's idempotency key.
    """

    seq: int
    target: Target
    actor: str
    at: str
    reason: str
    in_flight: InFlight
    queued: Queued
    flip_id: str


_KILLS: Final = frozenset({Reason.KILLED, Reason.FROZEN})


@dataclass(frozen=True, slots=True)
class Go:
    """The effect may happen."""

    def __bool__(self) -> bool:
        """Return True, so that ``if run.verdict(...)`` reads as it should."""
        return True


@dataclass(frozen=True, slots=True)
class Stop:
    """The effect must not happen.

    Attributes:
        reason: why.
        holds: every active hold that blocks, the broadest first; empty where the stop is our own failure, and
            where a kill was released again after the run was armed.
        killed: the targets on the path that stop it, the broadest first.
        detail: one sentence for a person.
    """

    reason: Reason
    holds: tuple[Hold, ...] = ()
    killed: tuple[Target, ...] = ()
    detail: str = ""

    @property
    def aborts(self) -> bool:
        """Whether calls in flight are ended: a kill does so, unless each that blocks says that they may finish.

        Of a kill that was revived before this process heard of it nothing is known but that it was: it does.
        """
        if self.reason not in _KILLS:
            return False
        finishing = {hold.target for hold in self.holds}
        return any(hold.in_flight != "finish" for hold in self.holds) or not finishing.issuperset(
            self.killed or (None,)
        )

    def __bool__(self) -> bool:
        """Return False, so that ``if run.verdict(...)`` reads as it should."""
        return False


Verdict: TypeAlias = Go | Stop

GO: Final = Go()
"""The one verdict that lets an effect happen."""
