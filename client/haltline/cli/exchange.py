"""One question and one answer: HTTP as a command sees it, behind one method, so that a fake is a plain function."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from haltline.canonical import parse
from haltline.cli.settings import Settings
from haltline.clocks import Clocks
from haltline.errors import InvalidDocument
from haltline.transport import Transport

MAX_REPLY_BYTES: Final = 64 * 1024 * 1024
"""The largest reply that is read whole: the holds of one target are in it, all of them."""


WRONG_LANE: Final = "wrong_lane"
"""The code of the problem by which a lane says that the request is for the other one."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request.

    Attributes:
        method: the HTTP method.
        path: from ``/v1`` on.
        body: JSON, or None.
        headers: more headers.
    """

    method: str
    path: str
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole reply.

    Attributes:
        status: the status code.
        members: its JSON object; None where it is anything else.
        headers: lower-case names and values.
    """

    status: int
    members: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Body(Protocol):
    """The head of a reply, and its body as it comes: :class:`haltline.http1.Response`, or a fake."""

    status: int
    headers: list[tuple[str, str]]

    def header(self, name: str) -> str:
        """Return a header's value, or an empty text; ``name`` in lower case."""

    def chunks(self) -> Iterator[bytes]:
        """Yield the body as it comes, or raise ServiceError."""

    def read(self, limit: int) -> bytes:
        """Return the whole body, or raise ServiceError."""


class Wire(Protocol):
    """What carries requests to one address of a service: HTTP, or a fake."""

    def send(self, ask: Ask, deadline_s: float, /) -> Answer:
        """Send a request and return its whole reply, or raise ServiceError."""

    def stream(self, ask: Ask, deadline_s: float, idle_s: float, /) -> AbstractContextManager[Body]:
        """Send a request and yield the head of its reply, or raise ServiceError."""


class HttpWire:
    """HTTP to one address. Each request has a connection of its own, so that ``sent`` of an error is never in doubt.

    Args:
        settings: where the service is and who asks.
        clocks: the clocks that deadlines are read on.
    """

    def __init__(self, settings: Settings, clocks: Clocks) -> None:
        self._settings = settings
        self._clocks = clocks

    def send(self, ask: Ask, deadline_s: float, /) -> Answer:
        """Send a request and return its whole reply.

        Raises:
            ServiceError: no whole reply came within ``deadline_s`` seconds.
        """
        with self._opened() as transport:
            response = transport.request(
                ask.method, ask.path, body=ask.body, headers=ask.headers, deadline_s=deadline_s
            )
            return answer_of(response, response.read(MAX_REPLY_BYTES))

    @contextmanager
    def stream(self, ask: Ask, deadline_s: float, idle_s: float, /) -> Iterator[Body]:
        """Send a request and yield the head of its reply; the body may take long, but never pauses for so long.

        Args:
            ask: the request.
            deadline_s: for how long the head may take, seconds.
            idle_s: for how long each part of the body may take, seconds.

        Raises:
            ServiceError: the head did not come in time.
        """
        with self._opened() as transport:
            yield transport.request(ask.method, ask.path, headers=ask.headers, deadline_s=deadline_s, idle_s=idle_s)

    @contextmanager
    def _opened(self) -> Iterator[Transport]:
        settings = self._settings
        transport = Transport(settings.addresses, token=settings.token, clocks=self._clocks, trust=settings.trust)
        try:
            yield transport
        finally:
            transport.close()


def answer_of(response: Body, body: bytes) -> Answer:
    """Return a reply as an answer; its members are None unless it says that it is JSON and is."""
    headers = dict(response.headers)
    media = headers.get("content-type", "").partition(";")[0].strip().lower()
    members = None
    if media in ("application/json", "application/problem+json") and "content-encoding" not in headers:
        try:
            members = parse(body)
        except InvalidDocument:
            members = None
    return Answer(response.status, members if isinstance(members, dict) else None, headers)


def told(answer: Answer) -> str:
    """Return what an answer that is not the one hoped for says, in one line."""
    if 300 <= answer.status < 400:
        where = answer.headers.get("location", "an address that it does not name")
        return f"the answer is a redirect ({answer.status}) to {where}: this is not the service, check the address"
    members = answer.members
    if members is None:
        return f"the answer (status {answer.status}) is not JSON: this is not the service, check the address"
    code, title, detail = (members.get(name) for name in ("code", "title", "detail"))
    if not isinstance(code, str):
        return f"the answer (status {answer.status}) is not one that the service gives: check the address"
    said = f"{answer.status} {code}: {title}. {detail}"
    errors = members.get("errors")
    if isinstance(errors, dict):
        wrong = (f"{name}: {' '.join(map(str, each))}" for name, each in errors.items() if isinstance(each, list))
        said = f"{said} {' '.join(wrong)}"
    return said


def code_of(answer: Answer) -> str | None:
    """Return the code of a problem; None where the answer is none of the service's."""
    code = (answer.members or {}).get("code")
    return code if isinstance(code, str) else None


def elsewhere(answer: Answer) -> bool:
    """Return whether another address may answer a question better: this one is no service, cannot, or is a worker lane.

    A worker lane says of a question that it is the control lane's.
    """
    if answer.status < 400:
        return answer.members is None
    return answer.status >= 500 or answer.status == 429 or code_of(answer) in (None, WRONG_LANE)
