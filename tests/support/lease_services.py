"""The two services that answer lease requests, behind one face: the client's fake and the real one over SQLite."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from werkzeug.test import TestResponse

from haltline.clocks import Clocks
from haltline.errors import ServiceError
from haltline.renewal import Reply
from haltline.testing import FakeService
from tests.api.desk import Desk, members, open_desk


class Streamed(Protocol):
    """The reply to a request for a stream."""

    status: int
    content_type: str
    encoded: bool

    def line(self, *, deadline_s: float, limit: int) -> bytes | None:
        """Return the next frame without its end; None at the stream's end."""

    def header(self, name: str) -> str:
        """Return a header's value, or an empty text."""

    def read(self, limit: int) -> bytes:
        """Return the whole body of a problem."""

    def interrupt(self) -> None:
        """Leave it."""


class LeaseService(Protocol):
    """A service that a contract is checked on."""

    @property
    def token(self) -> str:
        """A worker's token."""

    def ask(self, body: bytes, *, token: str | None = None) -> Reply:
        """Send a lease request, by default with the worker's token."""

    def stream(self, body: bytes, *, token: str | None = None) -> Streamed:
        """Send a request for a stream."""

    def ack(self, body: bytes, *, token: str | None = None) -> Reply:
        """Send an ack."""

    def tell(self, body: bytes, *, token: str | None = None) -> Reply:
        """Send outcomes."""

    def kill(self, target: str) -> int:
        """Kill a target and return the hold's seq."""

    def revive(self, target: str, hold: int) -> None:
        """Release a hold."""

    def note(self) -> None:
        """Append a note."""

    def close(self) -> None:
        """End it."""


class Fake:
    """The client's own fake."""

    def __init__(self) -> None:
        self._service = FakeService()
        self.token = self._service.token

    def ask(self, body: bytes, *, token: str | None = None) -> Reply:
        """Call it."""
        return self._service.answer(body, token=self.token if token is None else token)

    def stream(self, body: bytes, *, token: str | None = None) -> Streamed:
        """Call it; the stream is dated on the machine's clocks, as time passes on them."""
        return self._service.stream(body, token=self.token if token is None else token, clocks=Clocks())

    def ack(self, body: bytes, *, token: str | None = None) -> Reply:
        """Call it."""
        return self._service.ack(body, token=self.token if token is None else token)

    def tell(self, body: bytes, *, token: str | None = None) -> Reply:
        """Call it."""
        return self._service.note_outcomes(body, token=self.token if token is None else token)

    def kill(self, target: str) -> int:
        """Kill."""
        return self._service.kill(target).seq

    def revive(self, target: str, hold: int) -> None:
        """Revive."""
        self._service.revive(target, holds=[hold])

    def note(self) -> None:
        """Append."""
        self._service.note("token_created")

    def close(self) -> None:
        """Nothing to end."""


class Real:
    """The service over SQLite, asked without a network."""

    def __init__(self, folder: Path) -> None:
        self._desk: Desk = open_desk(folder)
        self.token = self._desk.tokens["worker"]

    def ask(self, body: bytes, *, token: str | None = None) -> Reply:
        """Post it."""
        return _whole(self._post("/v1/lease", body, token))

    def stream(self, body: bytes, *, token: str | None = None) -> Streamed:
        """Post it, and leave the body to be read line by line."""
        return _OverWsgi(self._post("/v1/lease", body, token))

    def ack(self, body: bytes, *, token: str | None = None) -> Reply:
        """Post it."""
        return _whole(self._post("/v1/acks", body, token))

    def tell(self, body: bytes, *, token: str | None = None) -> Reply:
        """Post it."""
        return _whole(self._post("/v1/outcomes", body, token))

    def _post(self, path: str, body: bytes, token: str | None) -> TestResponse:
        return self._desk.client.post(
            path,
            data=body,
            content_type="application/json",
            headers={"Authorization": f"Bearer {self.token if token is None else token}"},
        )

    def kill(self, target: str) -> int:
        """Kill, as an operator."""
        seq = members(self._desk.kill(target))["seq"]
        assert isinstance(seq, int)
        return seq

    def revive(self, target: str, hold: int) -> None:
        """Revive, as a releaser."""
        came = self._desk.revive(target, [hold])
        assert came.status_code == 201, json.loads(came.get_data())

    def note(self) -> None:
        """Make a token, which writes a note."""
        came = self._desk.call("POST", "/v1/tokens", {"subject": "somebody", "role": "observer"})
        assert came.status_code == 201, json.loads(came.get_data())

    def close(self) -> None:
        """End it."""
        self._desk.close()


def _whole(came: TestResponse) -> Reply:
    kind = came.headers.get("Content-Type", "")
    return Reply(came.status_code, kind, "Content-Encoding" in came.headers, came.get_data())


class _OverWsgi:
    """A stream of the real service, read from its generator; a wait for a frame cannot be bounded or interrupted."""

    def __init__(self, came: TestResponse) -> None:
        self.status = came.status_code
        self.content_type = came.headers.get("Content-Type", "")
        self.encoded = "Content-Encoding" in came.headers
        self._came = came
        self._lines = self._split()
        self._left = False

    def line(self, *, deadline_s: float, limit: int) -> bytes | None:  # noqa: ARG002  # see the class
        """Return the next frame."""
        if self._left:
            self._came.close()
            raise ServiceError("the stream was interrupted", sent=True)
        return next(self._lines, None)

    def header(self, name: str) -> str:
        """Return a header's value."""
        return self._came.headers.get(name, "")

    def read(self, limit: int) -> bytes:  # noqa: ARG002  # it is a test's
        """Return the whole body."""
        return self._came.get_data()

    def interrupt(self) -> None:
        """Have the next wait end."""
        self._left = True

    def _split(self) -> Iterator[bytes]:
        rest = b""
        for chunk in self._came.iter_encoded():
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines
        assert rest == b"", "a stream ends between two frames"
