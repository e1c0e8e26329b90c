"""What carries lease requests: the ports of the refresher, to which HTTP and the fake service are adapters."""

from __future__ import annotations

from typing import Protocol

from haltline.frames import Reply


class LeaseStream(Protocol):
    """The reply to a request for a stream, as far as its head was read.

    Attributes:
        status: the status code.
        content_type: the header's value as it came; empty if there was none.
        encoded: whether the reply names a content encoding.
    """

    status: int
    content_type: str
    encoded: bool

    def header(self, name: str) -> str:
        """Return a header's value, or an empty text; ``name`` in lower case."""

    def line(self, *, deadline_s: float, limit: int) -> bytes | None:
        """Return the next whole line, without its end; None at the orderly end of the stream.

        Raises:
            ServiceError: it did not come in time, is longer than ``limit`` bytes, or the stream broke off.
        """

    def read(self, limit: int) -> bytes:
        """Return the whole body, within the deadline of the exchange, or raise ServiceError."""


class LeaseTransport(Protocol):
    """What carries a lease request: the HTTP transport, or a fake service in a test."""

    def post(self, path: str, body: bytes, *, deadline_s: float, limit: int) -> Reply:
        """Send JSON and return the whole reply, or raise ServiceError."""

    def stream(self, path: str, body: bytes, *, deadline_s: float) -> LeaseStream:
        """Send JSON and return the reply once its head was read, or raise ServiceError."""

    def interrupt(self) -> None:
        """Wake whoever is blocked in this transport, whose call raises ServiceError; from any thread, at any time."""

    def rotate(self, later_s: float = 0.0) -> float:
        """Give up whoever answers here: the next exchange begins with the next one, on a fresh connection.

        Args:
            later_s: for how long this one does not want to be asked again, seconds.

        Returns:
            for how long none of the others does, seconds.
        """

    def close(self) -> None:
        """Give back the connection."""
