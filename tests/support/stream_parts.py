"""What a random timeline of streams is made of: nodes, and the wires between them and the client."""

from __future__ import annotations

from dataclasses import dataclass, field

from haltline.canonical import canonical, parse
from haltline.following import Following
from haltline.renewal import Ask


@dataclass(slots=True)
class Node:
    """One node: a clock of its own, and what it has read.

    Attributes:
        name: its timebase.
        ppm: how fast its clock runs.
        offset: what its clock shows at the beginning, microseconds.
        seq: how far it has read the log.
        ttl_ms: the ttl that it has read.
        read_at: when it began the newest read, on its clock.
        asleep: how long it has slept in all, while its clock stood still, nanoseconds.
        wakes: when its present sleep ends, true time.
        fell: when that began.
    """

    name: str
    ppm: int
    offset: int
    seq: int = 1
    ttl_ms: int = 0
    read_at: int = -1
    asleep: int = 0
    wakes: int = 0
    fell: int = 0


@dataclass(slots=True)
class Wire:
    """One stream between a node and the client.

    Attributes:
        ask: the request.
        node: who sends.
        following: the client's side.
        sent: the line of each frame and when it arrives, in order.
        cursor: what the node has sent.
        ends: when the node ends it, true time.
        arrives: when the last frame arrives.
        received_at: when the node received the request, on its clock; None before.
        broken: whether nothing arrives any more.
        cut: whether nothing is sent any more.
        over: whether the client has left it.
    """

    ask: Ask
    node: Node
    following: Following
    ends: int
    cursor: int = 0
    arrives: int = 0
    received_at: int | None = None
    begun: bool = False
    broken: bool = False
    cut: bool = False
    over: bool = False
    inbox: list[bytes | None] = field(default_factory=list)


def named(line: bytes, timebase: str) -> bytes:
    """Return a frame with its timebase named."""
    frame = parse(line)
    frame["timebase"] = timebase
    return canonical(frame)
