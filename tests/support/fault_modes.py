"""The faults that a fault proxy can put between a client and a server."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Mode(StrEnum):
    """How the proxy treats bytes and connections from the moment it is set."""

    PASS = "passes everything"
    LATENCY = "delays every byte"
    DRIP = "lets one byte through at a time"
    LOSE = "accepts and swallows; whoever lost a byte is never heard of again, without FIN or RST"
    STALL = "holds everything back until it ends, and then delivers all of it: a partition that heals"
    RESET = "resets each connection"
    RESET_AFTER = "resets each connection after so many bytes of reply"
    REFUSE = "resets each connection, and listens no more"
    HALF_CLOSE = "ends the reply's direction in order, and goes on taking requests"
    CUT = "forwards the next piece of a reply without its end, and closes"
    SPLICE = "plays the rest of an earlier reply in place of the rest of this one"
    REDIRECT = "answers 301 itself"
    HTML = "answers 200 with a page itself"
    REPLAY = "answers with its record of the first reply"
    STALE = "answers from its cache of the last reply, without asking"


ONE_WAY: Final = frozenset({Mode.PASS, Mode.LATENCY, Mode.DRIP, Mode.LOSE, Mode.STALL})
"""The modes that make sense for one direction alone."""

ANSWERING: Final = frozenset({Mode.REDIRECT, Mode.HTML, Mode.REPLAY, Mode.STALE})
"""The modes in which the proxy answers by itself."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A mode and its figures.

    Attributes:
        mode: what is done.
        seconds: for LATENCY the delay, for DRIP the time between two bytes.
        jitter: for LATENCY, up to how much is added at random, seconds; the order is kept.
        after: for RESET_AFTER, how many bytes of reply still pass.
    """

    mode: Mode = Mode.PASS
    seconds: float = 0.0
    jitter: float = 0.0
    after: int = 0


PASS: Final = Fault()
