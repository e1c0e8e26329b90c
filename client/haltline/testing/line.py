"""What carries a switch's requests to the fake service: a call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haltline.acks import ACKS_PATH
from haltline.clocks import Clocks
from haltline.errors import ServiceError
from haltline.frames import Reply
from haltline.outcomes import OUTCOMES_PATH
from haltline.refresher import LEASE_PATH
from haltline.testing.frames import problem
from haltline.testing.streams import FakeStream

if TYPE_CHECKING:
    from haltline.testing.service import FakeService


class FakeLine:
    """A line to a fake service.

    Args:
        service: the service.
        clocks: the clocks that its frames are dated on; by default the service's own.
    """

    def __init__(self, service: FakeService, clocks: Clocks | None = None) -> None:
        self._service = service
        self._clocks = clocks
        self._open: FakeStream | None = None

    def post(self, path: str, body: bytes, *, deadline_s: float, limit: int) -> Reply:  # noqa: ARG002  # no time passes
        """Return the service's reply."""
        if path == ACKS_PATH:
            return self._service.ack(body, token=self._service.token)
        if path == OUTCOMES_PATH:
            return self._service.note_outcomes(body, token=self._service.token)
        if path != LEASE_PATH:
            return problem(404, "not_found", "There is no such thing.")
        return self._service.answer(body, token=self._service.token, clocks=self._clocks)

    def stream(self, path: str, body: bytes, *, deadline_s: float) -> FakeStream:  # noqa: ARG002  # no time passes
        """Return the service's stream."""
        if path != LEASE_PATH:
            raise ServiceError("only leases come as streams", sent=False)
        self._open = self._service.stream(body, token=self._service.token, clocks=self._clocks)
        return self._open

    def interrupt(self) -> None:
        """Wake whoever reads the stream."""
        reading = self._open
        if reading is not None:
            reading.interrupt()

    def rotate(self, later_s: float = 0.0) -> float:
        """Return for how long it does not want to be asked: there is no other service."""
        return later_s

    def close(self) -> None:
        """Leave the stream."""
        self._open = None
