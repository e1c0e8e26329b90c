"""What carries lease requests to a fake service in tests, and can be held up, counted or broken."""

from __future__ import annotations

import threading
import time
from typing import Any

from haltline import KillSwitch
from haltline.acks import ACKS_PATH
from haltline.clocks import Clocks
from haltline.errors import ServiceError
from haltline.outcomes import OUTCOMES_PATH
from haltline.renewal import Reply
from haltline.switch import Driver
from haltline.testing import FakeService
from haltline.testing.streams import FakeStream


class Line:
    """A line to a fake service.

    Attributes:
        open: while cleared, requests and frames wait in the line, as in a network that swallows packets.
        asked: how many lease requests were begun.
        posted: how many of them asked for one frame.
        closed: how often the line was given back.
        interrupted: how often whoever reads was woken.
        rotated: how often the service was given up.
        broken: raised instead of an answer or a frame, as a bug of the transport would.
    """

    def __init__(self, service: FakeService) -> None:
        self.service = service
        self.open = threading.Event()
        self.open.set()
        self.asked = self.posted = self.closed = self.interrupted = self.rotated = 0
        self.broken: BaseException | None = None
        self.reading: FakeStream | None = None

    def post(self, path: str, body: bytes, *, deadline_s: float, limit: int) -> Reply:  # noqa: ARG002  # the port's
        """Return the service's reply."""
        if path == ACKS_PATH:
            return self.service.ack(body, token=self.service.token)
        if path == OUTCOMES_PATH:
            return self.service.note_outcomes(body, token=self.service.token)
        self.posted += 1
        self._begin(deadline_s)
        return self.service.answer(body, token=self.service.token)

    def stream(self, path: str, body: bytes, *, deadline_s: float) -> Held:  # noqa: ARG002  # the port's
        """Return the service's stream."""
        self._begin(deadline_s)
        self.reading = self.service.stream(body, token=self.service.token, clocks=Clocks())
        return Held(self, self.reading)

    def interrupt(self) -> None:
        """Wake whoever reads."""
        self.interrupted += 1
        if self.reading is not None:
            self.reading.interrupt()

    def rotate(self, later_s: float = 0.0) -> float:
        """Count it."""
        self.rotated += 1
        return later_s

    def close(self) -> None:
        """Give the line back."""
        self.closed += 1

    def _begin(self, deadline_s: float) -> None:
        self.asked += 1
        if not self.open.wait(deadline_s):
            raise ServiceError("no whole reply in time", sent=True)
        if self.broken is not None:
            raise self.broken


class Held:
    """A stream on a line that may be held up."""

    def __init__(self, line: Line, stream: FakeStream) -> None:
        self._line = line
        self._stream = stream
        self.status, self.content_type, self.encoded = stream.status, stream.content_type, stream.encoded

    def line(self, *, deadline_s: float, limit: int) -> bytes | None:
        """Return the next frame once the line is open."""
        end = time.monotonic() + deadline_s
        while time.monotonic() < end and self._stream.open:
            if not self._line.open.wait(0.005):
                continue
            if self._line.broken is not None:
                raise self._line.broken
            if self._stream.wait(0.005):
                return self._stream.line(deadline_s=1, limit=limit)
        raise ServiceError("no frame in time", sent=True)

    def header(self, name: str) -> str:
        """Return a header's value."""
        return self._stream.header(name)

    def read(self, limit: int) -> bytes:
        """Return the whole body."""
        return self._stream.read(limit)


def connected(line: Line, **settings: Any) -> KillSwitch:
    """Return a switch on this line as in production: a background thread, and the machine's clocks."""
    return _switch(line, background=True, **settings)


def quiet(line: Line) -> KillSwitch:
    """Return a switch on this line and the machine's clocks that renews only in whoever waits for it."""
    return _switch(line, background=False)


def _switch(line: Line, *, background: bool, **settings: Any) -> KillSwitch:
    driver = Driver(connect=lambda: line, background=background)
    return KillSwitch("https://fake.invalid", token=line.service.token, worker="worker-1", driver=driver, **settings)
