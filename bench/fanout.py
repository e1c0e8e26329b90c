"""A durable kill until the last of 1,000 and of 10,000 workers is told of it, and what their streams cost the node."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from bench.children import Child, child
from bench.command import alone
from bench.figure import Bound, Effort, Figure, Met, missed, noted, skipped
from bench.floor_pubsub import HEAR_S, OPEN_S, publishing, rounds, valkey
from bench.layouts import Killed, Killer, Layout, NoPostgres, embedded, lanes
from bench.measure import shown
from bench.service import Service
from bench.spread import GAP_S, Spread, lasts, repeated, spread, told

NAME: Final = "fanout"
THOUSAND: Final = 1_000
TEN_THOUSAND: Final = 10_000

WARM: Final = 50
"""Streams that are opened and closed again before anything counts: what is loaded once belongs to no stream."""

BOUND: Final = Bound(must=3, goal=1.5, unit="x raw Pub/Sub")
LATE_MS: Final = 300
"""What has to hold of 10,000, milliseconds; the goal is the one beside raw Pub/Sub."""

ACK_WITHIN_S: Final = 0.05
"""How long a client waits at most before it acknowledges a flip, seconds."""

ACKS_S: Final = 30.0

BEATS: Final = 4
"""Frames a second and stream, at a ttl of one second."""

ENOUGH: Final = 0.95

MEMORY: Final = Bound(must=32, goal=16, unit=" KiB")
RENEWALS: Final = Bound(must=0.6, goal=0.4, unit=" core")


class NotCarried(Exception):
    """The node does not carry so many streams."""


@dataclass(frozen=True, slots=True)
class Steady:
    """What so many streams cost while nothing is flipped.

    Attributes:
        cores: processor time of the node by time.
        frames: frames a second that arrived.
        asked: requests a second that followed a stream's orderly end.
        broken: streams that ended otherwise.
        reader: processor time of the process that reads them by time.
    """

    cores: float
    frames: float
    asked: float
    broken: int
    reader: float


@dataclass(frozen=True, slots=True)
class Fanned:
    """What was measured with so many streams.

    Attributes:
        sent: kills, from when each was sent.
        acked: the same kills, from when the ack arrived.
        memory: what a stream takes, bytes.
        steady: what the streams cost while nothing is flipped.
    """

    sent: Sequence[Spread]
    acked: Sequence[Spread]
    memory: float
    steady: Steady


def measure(effort: Effort) -> Iterator[Figure]:
    """Measure both layouts in turns with raw Pub/Sub."""
    with valkey() as server:
        yield from _on(embedded, server.port, effort)
        try:
            yield from _on(partial(lanes, server.url), server.port, effort)
        except NoPostgres as why:
            yield skipped(NAME, "a kill through two lanes, read by the last of many", str(why))


def _on(make: Callable[[], AbstractContextManager[Layout]], redis_port: int, effort: Effort) -> Iterator[Figure]:
    for size in (THOUSAND, TEN_THOUSAND):
        times = effort.of(rounds(size), at_least=4)
        try:
            with publishing(redis_port, size) as publish:
                floor = repeated(publish, times // 2)
            with make() as layout:
                fanned = fan(layout, size, times=times, seconds=effort.seconds)
            with publishing(redis_port, size) as publish:
                floor += repeated(publish, times - times // 2)
        except NotCarried as why:
            yield missed(NAME, f"a kill read by the last of {size:,} workers", str(why))
            continue
        yield from figures(layout.title, size, fanned, floor)
        if size == THOUSAND:
            with make() as layout:
                fanned = fan(layout, size, times=times // 2, seconds=0.1, acks=True)
            yield noted(
                NAME,
                f"… read by the last of {size:,}, each of which acknowledges within {ACK_WITHIN_S * 1e3:g} ms",
                measured=told(lasts(fanned.sent)),
            )


def fan(layout: Layout, size: int, *, times: int, seconds: float, acks: bool = False) -> Fanned:
    """Open so many streams, kill so many times, and watch them for so long.

    Args:
        layout: the running service.
        size: how many streams.
        times: how many kills.
        seconds: how long to watch the streams while nothing is flipped.
        acks: whether every worker acknowledges each kill, on a connection of its own.
    """
    with streams(layout, WARM), Killer(layout) as killer:
        warm = killer.kill("run:bench-warm")
    time.sleep(0.5)  # the node notices that they are gone
    before = layout.worker.rss()
    with streams(layout, size) as readers, Killer(layout) as killer, ExitStack() as stack:
        memory = (layout.worker.rss() - before) / size
        steady = watched(layout.worker, readers, seconds)
        sent: list[Spread] = []
        acked: list[Spread] = []
        answering = stack.enter_context(acknowledging(layout, size, warm)) if acks else None
        for number in range(times):
            time.sleep(GAP_S[0] + (GAP_S[1] - GAP_S[0]) * number / times)
            killed = killer.kill(f"run:bench-{number}")
            if answering is not None:
                answering.tell(seq=killed.seq, hash=killed.hash, within_s=ACK_WITHIN_S)
            heard = readers.hear_of("seq", seconds=HEAR_S)
            while heard["seq"] < killed.seq:
                heard = readers.hear_of("seq", seconds=HEAR_S)
            sent.append(spread(heard, killed.sent))
            acked.append(spread(heard, killed.acked))
            if answering is not None:
                answering.hear_of("seq", seconds=ACKS_S)
    return Fanned(sent, acked, memory, steady)


@contextmanager
def acknowledging(layout: Layout, size: int, known: Killed) -> Iterator[Child]:
    """Keep so many workers at hand that acknowledge what they are told of."""
    given: dict[str, Any] = {"port": layout.worker.port, "size": size, "secret": layout.secret}
    with child("bench.acks_client", **given, epoch=known.epoch, seq=known.seq, hashed=known.hash) as answering:
        answering.hear_of("open", seconds=OPEN_S)
        yield answering


@contextmanager
def streams(layout: Layout, size: int) -> Iterator[Child]:
    """Open so many lease streams from one process."""
    with child("bench.streams_client", port=layout.worker.port, size=size, secret=layout.secret) as readers:
        try:
            readers.hear_of("open", seconds=OPEN_S)
        except TimeoutError as error:
            readers.tell()
            there = readers.hear_of("messages", seconds=HEAR_S)["open"]
            raise NotCarried(f"{there:,} of {size:,} streams were open after {OPEN_S:g} s") from error
        yield readers


def watched(node: Service, readers: Child, seconds: float) -> Steady:
    """Watch the streams for so long while nothing is flipped."""
    readers.tell()
    begun = readers.hear_of("messages", seconds=HEAR_S)
    used, since = node.cpu_s(), time.monotonic()
    time.sleep(seconds)
    readers.tell()
    seen = readers.hear_of("messages", seconds=HEAR_S)
    used, passed = node.cpu_s() - used, time.monotonic() - since
    reader = (seen["cpu_s"] - begun["cpu_s"]) / passed
    return Steady(used / passed, seen["messages"] / passed, seen["asked"] / passed, seen["broken"], reader)


def figures(title: str, size: int, fanned: Fanned, floor: Sequence[Spread]) -> Iterator[Figure]:
    """Return the rows of one measurement."""
    raw = statistics.median(lasts(floor))
    last = statistics.median(lasts(fanned.sent))
    beside = f"raw Pub/Sub to {size:,}: {told(lasts(floor))}"
    what = f"a kill sent, durable, and read by the last of {size:,} workers, {title}"
    row = BOUND.figure(
        NAME, what, value=last / raw, measured=f"{last / raw:.2f}x, {told(lasts(fanned.sent))}", floor=beside
    )
    if size == TEN_THOUSAND:
        within = Met.GOAL if row.met is Met.GOAL else Met.MUST
        met = within if last * 1e3 <= LATE_MS else Met.MISSED
        row = replace(row, must=f"≤ {LATE_MS} ms", met=met)
    yield row
    first = statistics.median(each.first for each in fanned.sent)
    yield noted(
        NAME,
        "… from the ack; the first worker, from when it was sent",
        measured=f"{told(lasts(fanned.acked))}; first {shown(first)}",
    )
    yield MEMORY.figure(
        NAME,
        f"… memory of one stream on the node, {size:,} open",
        value=fanned.memory / 1_024,
        measured=f"{fanned.memory / 1_024:.1f} KiB",
        floor="",
    )
    steady = fanned.steady
    due = BEATS * size
    measured = (
        f"{steady.cores:.2f} core; {steady.frames:,.0f} frames/s and {steady.asked:,.0f} hand-overs/s arrived, "
        f"{steady.broken} broken; their reader {steady.reader:.2f} core"
    )
    what = f"… {size:,} streams, four frames a second each, nothing flipped"
    if size == TEN_THOUSAND:
        # A node that falls behind costs less, and has failed all the same.
        kept = steady.frames >= ENOUGH * due and not steady.broken
        value = steady.cores if kept else math.inf
        yield RENEWALS.figure(NAME, what, value=value, measured=measured, floor=f"{due:,} frames/s are due")
    else:
        yield noted(NAME, what, measured=measured, floor=f"{due:,} frames/s are due")


if __name__ == "__main__":
    sys.exit(alone(measure))
