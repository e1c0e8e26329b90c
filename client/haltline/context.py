"""Which run is current here: in this thread, task or copied context."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from haltline.run import Run


@dataclass(frozen=True, slots=True)
class Entered:
    """A run that was entered, and what was current before. A link: leaving needs no token."""

    run: Run
    outer: Entered | None


_entered: Final[ContextVar[Entered | None]] = ContextVar("haltline_run", default=None)


def enter(run: Run) -> None:
    """Make ``run`` the current run of this context."""
    _entered.set(Entered(run, _entered.get()))


def leave(run: Run) -> None:
    """Make current again what was current before ``run`` was entered here."""
    entered = _entered.get()
    while entered is not None and entered.run is not run:
        entered = entered.outer
    if entered is not None:
        _entered.set(entered.outer)


here: Final = _entered.get
"""Returns the innermost link of this context, or None; a bound method, because every checked call asks it."""
