"""What carries lease requests to a fake service in tests, and can be held up, counted or broken."""

from __future__ import annotations

import threading

from haltline import KillSwitch
from haltline.errors import ServiceError
from haltline.renewal import Reply
from haltline.testing import FakeService


class Line:
    """A line to a fake service.

    Attributes:
        open: while cleared, requests wait in the line, as in a network that swallows packets.
        asked: how many requests were begun.
        closed: how often the line was given back.
        broken: raised instead of an answer, as a bug of the transport would.
    """

    def __init__(self, service: FakeService) -> None:
        self.service = service
        self.open = threading.Event()
        self.open.set()
        self.asked = 0
        self.closed = 0
        self.broken: BaseException | None = None

    def post(self, path: str, body: bytes, *, deadline_s: float, limit: int) -> Reply:  # noqa: ARG002  # the port's
        """Return the service's reply."""
        self.asked += 1
        if not self.open.wait(deadline_s):
            raise ServiceError("no whole reply in time", sent=True)
        if self.broken is not None:
            raise self.broken
        return self.service.answer(body, token=self.service.token)

    def close(self) -> None:
        """Give the line back."""
        self.closed += 1


def connected(line: Line) -> KillSwitch:
    """Return a switch on this line as in production: a background thread, and the machine's clocks."""
    return KillSwitch("http://fake.invalid", token=line.service.token, worker="worker-1", connect=lambda: line)


def quiet(line: Line) -> KillSwitch:
    """Return a switch on this line and the machine's clocks that renews only in whoever waits for it."""
    return KillSwitch(
        "http://fake.invalid", token=line.service.token, worker="worker-1", connect=lambda: line, background=False
    )
