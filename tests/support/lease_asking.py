"""Lease requests and acks as a contract asks them, and what came of them, looked at for its shape."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final, Self

from haltline.canonical import canonical, parse
from haltline.errors import ServiceError
from haltline.renewal import Reply
from tests.support.lease_services import LeaseService, Streamed

ASK: Final[dict[str, Any]] = {
    "stream": False,
    "nonce": "0123456789abcdef",
    "worker": "worker-1",
    "instance": "instance-1",
    "namespace": "default",
    "epoch": None,
    "seq": 0,
    "hash": None,
}


ACKED: Final = ("worker", "instance", "namespace", "epoch", "seq", "hash")


def frame(service: LeaseService, **members: Any) -> dict[str, Any]:
    """Return the frame that a request is answered with."""
    reply = service.ask(canonical({**ASK, **members}))
    assert (reply.status, reply.content_type, reply.encoded) == (200, "application/json", False)
    told = parse(reply.body)
    assert isinstance(told, dict)
    return told


class Frames:
    """A stream, a frame at a time."""

    def __init__(self, service: LeaseService, **members: Any) -> None:
        self._stream = service.stream(canonical({**ASK, "stream": True, **members}))
        told = (self._stream.status, self._stream.content_type, self._stream.encoded)
        assert told == (200, "application/jsonl", False)

    def next(self) -> dict[str, Any]:
        """Return the next frame."""
        line = self._stream.line(deadline_s=10, limit=2**24)
        assert line is not None, "the stream ended"
        told = parse(line)
        assert isinstance(told, dict)
        return told

    def at(self, seq: int) -> dict[str, Any]:
        """Return the first frame that has reached a position."""
        while (told := self.next())["seq"] < seq:
            pass
        return told

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the stream."""
        self._stream.interrupt()
        with suppress(ServiceError):
            self._stream.line(deadline_s=1, limit=2**24)


def at(known: dict[str, Any]) -> dict[str, Any]:
    """Return the position that a frame brought the client to, as its next request states it."""
    return {name: known[name] for name in ("epoch", "seq", "hash")}


def code(reply: Reply) -> tuple[int, str]:
    """Return a problem's status and code, after looking at its shape."""
    assert reply.content_type == "application/problem+json"
    told = parse(reply.body)
    assert set(told) >= {"type", "title", "status", "detail", "code"}
    assert told["status"] == reply.status
    assert told["type"] == f"urn:haltline:problem:{told['code']}"
    return reply.status, told["code"]


def problem(stream: Streamed) -> tuple[int, str]:
    """Return the status and code of the problem that a request for a stream was answered with."""
    return code(Reply(stream.status, stream.content_type, stream.encoded, stream.read(2**16)))


def acking(service: LeaseService, **members: Any) -> bytes:
    """Return an ack of all that there is."""
    whole = {**ASK, **at(frame(service)), **members}
    return canonical({name: whole[name] for name in ACKED})
