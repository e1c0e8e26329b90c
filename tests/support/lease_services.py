"""The two services that answer lease requests, behind one face: the client's fake and the real one over SQLite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

from haltline.renewal import Reply
from haltline.testing import FakeService
from tests.api.desk import Desk, members, open_desk


class LeaseService(Protocol):
    """A service that a contract is checked on."""

    @property
    def token(self) -> str:
        """A worker's token."""

    def ask(self, body: bytes, *, token: str | None = None) -> Reply:
        """Send a lease request, by default with the worker's token."""

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
        came = self._desk.client.post(
            "/v1/lease",
            data=body,
            content_type="application/json",
            headers={"Authorization": f"Bearer {self.token if token is None else token}"},
        )
        kind = came.headers.get("Content-Type", "")
        return Reply(came.status_code, kind, "Content-Encoding" in came.headers, came.get_data())

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
