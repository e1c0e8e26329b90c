"""A command, run in this process against a plain function instead of a service, on a manual clock."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from click.testing import CliRunner

from haltline.cli.commands import haltline
from haltline.cli.exchange import Answer, Ask, Body, Wire
from haltline.cli.session import Outside
from haltline.cli.settings import Settings
from haltline.clocks import Clocks
from haltline.errors import ServiceError
from haltline.testing import ManualClock

TOKEN: Final = f"hlt_default_abcdefghijkl_{'S3cr3t' * 8}x"
URL: Final = "https://service.test:8787"
ENVIRONMENT: Final = {"HALTLINE_URL": URL, "HALTLINE_TOKEN": TOKEN}
EPOCH: Final = "0123456789abcdef"
AT: Final = "2026-11-20T20:25:11.123456Z"

Answering = Callable[[Ask], Answer]


def reply(ask: Ask, *, status: int = 201, **changes: Any) -> Answer:
    """Return what the service answers to a flip; ``changes`` replaces members, None takes one away."""
    asked = json.loads(ask.body or b"{}")
    seq = 7
    members = {
        "seq": seq,
        "flip_id": asked["flip_id"],
        "target": asked["target"],
        "committed_at": AT,
        "hash": "ab" * 32,
        "epoch": EPOCH,
        "namespace": "default",
        "holds": [],
    }
    if ask.path == "/v1/kills":
        policy = {name: asked[name] for name in ("in_flight", "queued") if name in asked}
        members |= {"holds": [hold(seq, asked["target"], **policy)], "effective_in_ms": 1000, "effective_at": AT}
    else:
        members |= {"released": asked["holds"]}
    members |= changes
    return Answer(status, {name: value for name, value in members.items() if value is not None})


def hold(seq: int, target: str, **changes: Any) -> dict[str, Any]:
    """Return a hold as replies list it."""
    return {
        "seq": seq,
        "target": target,
        "actor": "ada",
        "at": AT,
        "reason": "stop it",
        "in_flight": "abort",
        "queued": "discard",
        "flip_id": f"f-{seq}",
    } | changes


def flag(target: str, *holds: dict[str, Any], version: int = 7) -> Answer:
    """Return the answer to GET /v1/flags/..."""
    members = {"target": target, "killed": bool(holds), "holds": [*holds], "last_kill": 0, "seq": version}
    return Answer(200, members, {"etag": f'"{EPOCH}.{version}"'})


def problem(status: int, code: str, **members: Any) -> Answer:
    """Return a problem of the service."""
    return Answer(status, {"status": status, "code": code, "title": "No", "detail": "Do something else.", **members})


def lost(*, sent: bool) -> ServiceError:
    """Return the error of an exchange without a reply."""
    return ServiceError("no whole reply in time" if sent else "connection refused", sent=sent)


@dataclass
class Stream:
    """A reply that comes in parts."""

    status: int
    headers: list[tuple[str, str]]
    parts: list[bytes]
    breaks: bool = False

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")

    def chunks(self) -> Iterator[bytes]:
        yield from self.parts
        if self.breaks:
            raise ServiceError("the reply broke off", sent=True)

    def read(self, limit: int) -> bytes:
        return b"".join(self.parts)[:limit]


@dataclass
class Fake:
    """A service that is a function, and the clock of whoever asks it.

    Attributes:
        answering: answers, or raises ServiceError.
        streamed: the reply to an export.
        takes: how long each exchange takes on the clock, seconds.
        asked: every request, in order.
        slept: every pause, in order, seconds.
    """

    answering: Answering
    streamed: Stream | None = None
    takes: float = 0.01
    asked: list[Ask] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    settings: Settings | None = None
    clock: ManualClock = field(default_factory=ManualClock)

    def send(self, ask: Ask, deadline_s: float, /) -> Answer:
        self.asked.append(ask)
        self.clock.advance(min(self.takes, deadline_s))
        return self.answering(ask)

    @contextmanager
    def stream(self, ask: Ask, _deadline_s: float, _idle_s: float, /) -> Iterator[Body]:
        self.asked.append(ask)
        if self.streamed is None:
            raise lost(sent=False)
        yield self.streamed

    def connect(self, settings: Settings, _clocks: Clocks) -> Wire:
        self.settings = settings
        return self

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.advance(seconds)


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on standard output."""
        members = json.loads(self.out)
        assert isinstance(members, dict)
        return members


def run(
    fake: Fake,
    *words: str,
    environment: Mapping[str, str] = ENVIRONMENT,
    sleep: Callable[[float], None] | None = None,
    stdin: bytes = b"",
) -> Ran:
    """Run ``haltline words...`` against a fake."""
    outside = Outside(environment, fake.clock.clocks, sleep or fake.sleep, fake.connect)
    result = CliRunner().invoke(haltline, [*words], obj=outside, input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)
