"""An agent under a live lease, in this process: what carries its lease requests is a node's frames, from memory."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from app.service.frames import Foreign, Frames, LeaseRequest, Regress
from app.service.published import Kept, Published, Tail
from app.service.store import Ttl
from haltline import KillSwitch
from haltline.canonical import parse
from haltline.errors import ServiceError
from haltline.flips import Position
from haltline.frames import STREAM_TYPE
from haltline.refresher import LeaseStream, LeaseTransport
from haltline.renewal import Reply
from haltline.replica import Mark, Replica
from haltline.run import Run
from haltline.scopes import Scope, Target
from haltline.switch import Driver
from haltline.verdict import Hold

NAMESPACE: Final = "default"
EPOCH: Final = "0123456789abcdef"
TTL_MS: Final = 5_000
BEAT_S: Final = TTL_MS / 4_000
BEATS: Final = 6
"""Frames after the first: then the stream ends in order, as a node's does within 9 s."""

AT: Final = "2026-01-01T00:00:00.000000Z"
CAPABILITY: Final = "send_email"

# Only its form counts: nothing here asks a service.
_SHAPE: Final = f"hlt_{NAMESPACE}_{'b' * 12}_{'0' * 49}"
_SCOPES: Final = (Scope.RUN, Scope.TENANT, Scope.FEATURE, Scope.CAPABILITY)


def others(kills: int) -> Replica:
    """Return a replica with so many active kills, on targets that are not our agent's, in all four scopes."""
    holds: dict[str, tuple[Hold, ...]] = {}
    marks: dict[str, Mark] = {}
    for seq in range(1, kills + 1):
        target = Target(_SCOPES[seq % 4], f"other-{seq}")
        holds[str(target)] = (Hold(seq, target, "alice", AT, "bench", "finish", "discard", f"f-{seq}"),)
        marks[str(target)] = Mark(seq, seq)
    position = Position(kills + 1, "a" * 64)
    return Replica(NAMESPACE, EPOCH, position, MappingProxyType(holds), MappingProxyType(marks))


class Node:
    """A node without a database: one state, read anew whenever it is asked for.

    Args:
        replica: the state.
        base: the position that its tail begins after; None for the state's own, so that nobody can be continued from
            an earlier one.
        entries: the tail's entries.
    """

    def __init__(self, replica: Replica, *, base: Position | None = None, entries: list[Kept] | None = None) -> None:
        tail = Tail(base if base is not None else replica.position, entries or [], len(entries or []))
        self._published = Published(replica, tail, Ttl(TTL_MS), 0)
        self._frames = Frames(namespace=NAMESPACE, timebase=secrets.token_hex(8))

    def answer(self, body: bytes) -> bytes:
        """Return the frame that answers a lease request, read a microsecond after it was received."""
        received = _raw_us()
        frame = self._frames.frame(self._read(received + 1), request(body), view=None, received_at_us=received)
        if isinstance(frame, Regress | Foreign):
            raise TypeError(frame.detail)
        return frame

    def beat(self) -> bytes:
        """Return a later frame of a stream, without its end."""
        line = self._frames.next(self._read(_raw_us()), None, self._published.replica.position.seq)
        assert line is not None  # noqa: S101 - a stream that has reached the state goes on from it
        return line.rstrip(b"\n")

    def _read(self, at_us: int) -> Published:
        return replace(self._published, read_at_us=at_us)


def request(body: bytes) -> LeaseRequest:
    """Return what a worker asks with."""
    asked = parse(body)
    return LeaseRequest(asked["nonce"], asked["epoch"], asked["seq"], asked["hash"])


def _raw_us() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) // 1_000


class Stream:
    """The stream of a node in memory: a frame, and four more a ttl."""

    status = 200
    content_type = STREAM_TYPE
    encoded = False

    def __init__(self, node: Node, body: bytes, over: threading.Event) -> None:
        self._node = node
        self._first: bytes | None = node.answer(body)
        self._left = BEATS
        self._over = over

    def line(self, *, deadline_s: float, limit: int) -> bytes | None:  # noqa: ARG002 - a port's names
        """Return the next frame when it is due."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        if self._over.wait(BEAT_S):
            raise ServiceError("interrupted", sent=True)
        self._left -= 1
        return self._node.beat() if self._left >= 0 else None

    def header(self, name: str) -> str:  # noqa: ARG002 - a port's names
        """Return no header."""
        return ""

    def read(self, limit: int) -> bytes:  # noqa: ARG002 - a port's names
        """Return nothing: it is asked for only where a service refuses."""
        return b""


class Memory:
    """Carries lease requests to a node in memory."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._over = threading.Event()

    def post(self, path: str, body: bytes, *, deadline_s: float, limit: int) -> Reply:  # noqa: ARG002 - a port's names
        """Return one frame."""
        return Reply(200, "application/json", encoded=False, body=self._node.answer(body))

    def stream(self, path: str, body: bytes, *, deadline_s: float) -> LeaseStream:  # noqa: ARG002 - as above
        """Return a stream of frames."""
        self._over.clear()
        return Stream(self._node, body, self._over)

    def interrupt(self) -> None:
        """Wake whoever reads a stream."""
        self._over.set()

    def rotate(self, later_s: float = 0.0) -> float:
        """Return for how long the node does not want to be asked: there is no other."""
        return later_s

    def close(self) -> None:
        """Do nothing: there is no connection."""


@contextmanager
def agent(kills: int) -> Iterator[Run]:
    """Enter a run with a path of four scopes (its capability included) under a lease that is renewed meanwhile.

    Args:
        kills: how many kills are active elsewhere.
    """
    node = Node(others(kills))

    def connect() -> LeaseTransport:
        return Memory(node)

    with (
        KillSwitch("http://127.0.0.1:9", token=_SHAPE, worker="bench", driver=Driver(connect=connect)) as switch,
        switch.run("r-42", tenant="acme", feature="outreach", timeout=30) as run,
    ):
        run.check(CAPABILITY)
        yield run
