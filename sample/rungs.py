"""The four rungs of the ladder, and how the demo pulls each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sample.crew import SEND, Assignment


@dataclass(frozen=True, slots=True)
class Rung:
    """One of the four buttons.

    Attributes:
        words: what is typed after ``haltline kill``.
        target: what that names.
        title: what it is for.
        reason: why it is pulled.
        cure: why it is released.
        hits: whom it stops from sending.
        halts: whether it halts the runs of those, so that only a restart brings them back.
    """

    words: tuple[str, ...]
    target: str
    title: str
    reason: str
    cure: str
    hits: Callable[[Assignment], bool]
    halts: bool = True


RUNGS: Final = (
    Rung(
        ("capability", SEND),
        f"capability:{SEND}",
        "capability: freeze one tool, the rest goes on",
        "dead link in the mail",
        "link repaired",
        lambda _: True,
        halts=False,
    ),
    Rung(
        ("run", "r-1"),
        "run:r-1",
        "run: stop one run",
        "wrong list",
        "list corrected",
        lambda each: each.run == "r-1",
    ),
    Rung(
        ("tenant", "acme"),
        "tenant:acme",
        "tenant: stop one customer's runs",
        "consent withdrawn",
        "consent given again",
        lambda each: each.tenant == "acme",
    ),
    Rung(
        ("global",),
        "global",
        "global: stop the world",
        "stop, then look",
        "looked: all is well",
        lambda _: True,
    ),
)
