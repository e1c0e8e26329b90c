"""What a worker says about itself: one JSON object a line on its standard output."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum


class State(StrEnum):
    """How a worker stands."""

    STARTING = "starting"
    """It has not entered its run yet."""
    SENDING = "sending"
    """It reads and sends."""
    FROZEN = "frozen"
    """A capability is frozen: it does what it still may."""
    UNVERIFIED = "unverified"
    """Nothing proves that it may go on; it waits, and goes on by itself."""
    STOPPED = "stopped"
    """It was killed; it waits to be restarted by whoever runs the fleet."""
    ENDED = "ended"
    """It ended as it was told to."""


@dataclass(frozen=True, slots=True)
class Report:
    """How a worker stands, and what it has done since its process began.

    Attributes:
        run: its run.
        state: how it stands.
        entered: how many run objects it has entered: 1, and one more for each restart.
        read: recipients read.
        sent: mails handed to the mail server.
        unsent: mails left unsent because sending was frozen.
        failed: mails that the mail server did not take.
        why: one line, where it does not simply send.
    """

    run: str
    state: State
    entered: int = 0
    read: int = 0
    sent: int = 0
    unsent: int = 0
    failed: int = 0
    why: str = ""


def encode(report: Report) -> str:
    """Return a report as one line."""
    return json.dumps(asdict(report), ensure_ascii=True, separators=(",", ":"))


def decode(line: str) -> Report:
    """Return the report that a line holds.

    Raises:
        ValueError: it holds none.
    """
    try:
        members = json.loads(line)
        return Report(**{**members, "state": State(members["state"])})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a worker's report: {line[:80]!r}") from error
