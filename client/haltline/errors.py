"""The errors of Haltline: what stops an agent, and what tells a programmer to mend a call.

    BaseException
     └─ Halt                    the run must not go on
         ├─ Killed              an operator's kill is on the run's path; latched for the run object's life
         └─ Unverified          nothing proves that the run may go on; ends by itself once a lease is fresh

    Exception
     └─ HaltlineError
         ├─ CapabilityFrozen    one tool is frozen; the run goes on without it
         ├─ InvalidTarget       a target, id or scope outside the grammar (also a ValueError)
         ├─ InvalidCarrier      a carried run that is malformed, cut short, too deep or too long (also a ValueError)
         ├─ InvalidDocument     bytes that are not the JSON this protocol speaks (also a ValueError)
         │   └─ InvalidEntry    a log entry with members missing, unknown or of the wrong shape
         ├─ StampRefused        planned work that is not to be carried out; the worker that asked goes on
         ├─ ChainBroken         log entries that do not follow one another
         ├─ PositionGap         entries that do not continue a replica's position
         ├─ ConfigurationError  an address, token or setting that cannot work
         └─ ServiceError        an exchange with the service that did not end in a usable reply

``Halt`` derives from ``BaseException``: four of six agent frameworks that were measured swallow an ordinary
exception raised in a tool and let the loop go on, and retry libraries retry it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from haltline.verdict import Refusal, Stop

# Those with a keyword-only argument say how they are pickled: by default an exception is made anew from its positional
# arguments alone, so that a Halt raised in a process pool would break the whole pool instead of reaching the caller.


class Halt(BaseException):
    """The run must stop before its next side effect.

    Attributes:
        verdict: the verdict that stopped it, with the reason and every hold that blocks, the broadest first.
        run: the id of the run that was refused; None where no run was current.
    """

    def __init__(self, message: str, *, verdict: Stop, run: str | None = None) -> None:
        super().__init__(message)
        self.verdict = verdict
        self.run = run

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), verdict=self.verdict), self.args, self.__dict__


class Killed(Halt):
    """An operator killed a target on the run's path.

    The run object stays halted for ever, also after a revive: a revive permits a restart, it never makes one.
    """


class Unverified(Halt):
    """Nothing proves that the run may go on: no lease, a lapsed one, or one that does not belong here.

    Not latched: the same run goes on once its lease is fresh again. ``run.ensure()`` waits for that briefly,
    ``run.wait()`` for as long as it takes.
    """


class HaltlineError(Exception):
    """The base of every ordinary error of this package."""


class CapabilityFrozen(HaltlineError):
    """A capability is frozen by an operator; the run itself goes on.

    Raised instead of a ``Halt`` so that a tool can answer its model that it is frozen, and that no workaround
    is wanted.

    Attributes:
        capability: the frozen capability's id.
        verdict: the verdict, with the holds that freeze it.
    """

    def __init__(self, message: str, *, capability: str, verdict: Stop) -> None:
        super().__init__(message)
        self.capability = capability
        self.verdict = verdict

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), capability=self.capability, verdict=self.verdict), self.args, self.__dict__


class StampRefused(HaltlineError):
    """Planned work must not be carried out: discard the task, and go on with the next one.

    An ordinary error and no ``Halt``: it says nothing of the worker that asked. Where nothing is proven yet, redeeming
    raises ``Unverified`` instead, and the task stays in its queue.

    Attributes:
        reason: why.
        verdict: the verdict on the work, with the holds that block it, where a kill is the reason.
    """

    def __init__(self, message: str, *, reason: Refusal, verdict: Stop | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.verdict = verdict

    @property
    def final(self) -> bool:
        """Whether the stamp is dead for ever; only one that is HELD is not."""
        return self.reason != "held"

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), reason=self.reason, verdict=self.verdict), self.args, self.__dict__


class InvalidTarget(HaltlineError, ValueError):
    """A target, scope or id outside the grammar."""


class InvalidCarrier(HaltlineError, ValueError):
    """A header or variable that should carry a run, and is malformed, cut short, too deep or too long."""


class InvalidDocument(HaltlineError, ValueError):
    """Bytes or values that are not the JSON this protocol speaks."""


class InvalidEntry(InvalidDocument):
    """A log entry with members missing, unknown or of the wrong shape, or newer than this reader."""


class ChainBroken(HaltlineError):
    """Log entries that do not follow one another: altered, missing, doubled or out of order.

    Attributes:
        seq: the position at which the chain breaks.
    """

    def __init__(self, message: str, *, seq: int) -> None:
        super().__init__(message)
        self.seq = seq

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), seq=self.seq), self.args, self.__dict__


class PositionGap(HaltlineError):
    """Entries that do not continue a replica's position; nothing was taken from them."""


class ConfigurationError(HaltlineError):
    """An address, token or setting that cannot work."""


class ServiceError(HaltlineError):
    """An exchange with the service that did not end in a usable reply.

    Attributes:
        sent: whether any byte of the request may have reached the service: False means that nothing was done.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), sent=self.sent), self.args, self.__dict__
