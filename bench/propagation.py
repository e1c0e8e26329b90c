"""A durable kill until the check of one idle worker raises, beside raw Redis Pub/Sub to one subscriber."""

from __future__ import annotations

import itertools
import random
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Final

from bench.children import Child, child
from bench.command import alone
from bench.figure import Bound, Effort, Figure, noted, skipped
from bench.floor_pubsub import CHANNEL, HEAR_S, command, valkey
from bench.layouts import Killer, Layout, NoPostgres, embedded, lanes
from bench.measure import shown
from bench.spread import percentile, told
from tests.support.ports import LOOPBACK

NAME: Final = "propagation"
KILLS: Final = 200
TURNS: Final = 4
"""How often the floor and the service take turns."""

GAP_S: Final = (0.02, 0.27)
"""How long to wait before a kill, seconds: drawn, over as long as the frames of an idle stream are apart."""

BOUND: Final = Bound(must=10, goal=6, unit="x raw Pub/Sub")
LATE: Final = Bound(must=20, goal=10, unit=" ms")


@dataclass(frozen=True, slots=True)
class Times:
    """How long kills took to stop a worker, seconds.

    Attributes:
        sent: from when each was sent.
        acked: from when its ack arrived; below zero where the worker was stopped before that.
        replies: from when it was sent until its ack arrived.
    """

    sent: list[float] = field(default_factory=list)
    acked: list[float] = field(default_factory=list)
    replies: list[float] = field(default_factory=list)


Stop = Callable[[Times], None]
"""Kills once, and adds how long that took."""


def measure(effort: Effort) -> Iterator[Figure]:
    """Measure both layouts, each in turns with raw Pub/Sub."""
    kills = effort.of(KILLS)
    with valkey() as server:
        yield from _on(embedded(), server.port, kills)
        try:
            yield from _on(lanes(server.url), server.port, kills)
        except NoPostgres as why:
            yield skipped(NAME, "a kill through two lanes", str(why))


def _on(layouts: AbstractContextManager[Layout], redis_port: int, kills: int) -> Iterator[Figure]:
    times = Times()
    floor: list[float] = []
    with layouts as layout, stopping(layout) as stop, publishing(redis_port) as publish:
        stop(Times())  # the first of anything is slower
        publish()
        for turn in range(TURNS):
            share = kills * (turn + 1) // TURNS - kills * turn // TURNS
            for _ in range(share):
                time.sleep(random.uniform(*GAP_S))
                floor.append(publish())
            for _ in range(share):
                time.sleep(random.uniform(*GAP_S))
                stop(times)
    yield from figures(layout.title, times, floor)


@contextmanager
def stopping(layout: Layout) -> Iterator[Stop]:
    """Lend what stops one more capability of an idle worker."""
    numbers = itertools.count()
    with (
        child("bench.idle_worker", url=layout.worker.url, secret=layout.secret) as worker,
        Killer(layout) as killer,
    ):

        def stop(times: Times) -> None:
            name = f"bench-{next(numbers)}"
            _going(worker, name)
            killed = killer.kill(f"capability:{name}")
            at = worker.hear_of("stopped", seconds=HEAR_S)
            if at["lapsed"]:
                raise RuntimeError(f"the worker's lease lapsed while it waited for {name}")
            times.sent.append((at["stopped"] - killed.sent) / 1e9)
            times.acked.append((at["stopped"] - killed.acked) / 1e9)
            times.replies.append((killed.acked - killed.sent) / 1e9)

        yield stop


@contextmanager
def publishing(port: int) -> Iterator[Callable[[], float]]:
    """Lend what publishes one message to a process like the worker, and returns how long it took to see it, seconds."""
    numbers = itertools.count(1)
    with (
        child("bench.idle_subscriber", port=port, channel=CHANNEL) as subscriber,
        socket.create_connection((LOOPBACK, port), timeout=HEAR_S) as publisher,
    ):
        publisher.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def publish() -> float:
            number = next(numbers)
            subscriber.tell(number=number)
            subscriber.hear_of("going", seconds=HEAR_S)
            begun = time.monotonic_ns()
            publisher.sendall(command(number))
            seen = subscriber.hear_of("stopped", seconds=HEAR_S)
            publisher.recv(100)
            return float(seen["stopped"] - begun) / 1e9

        yield publish


def _going(worker: Child, name: str) -> None:
    worker.tell(capability=name)
    worker.hear_of("going", seconds=HEAR_S)


def figures(title: str, times: Times, floor: Sequence[float]) -> Iterator[Figure]:
    """Return the rows of one layout."""
    raw, taken = statistics.median(floor), statistics.median(times.acked)
    yield BOUND.figure(
        NAME,
        f"a kill is durable, by its ack, until the check of an idle worker raises, {title}",
        value=taken / raw,
        measured=f"{taken / raw:.1f}x, median {shown(taken)}",
        floor=f"raw Pub/Sub to an idle process: {told(floor)}",
    )
    late = percentile(times.sent, 0.99)
    yield LATE.figure(
        NAME,
        f"… the 99th percentile of {len(times.sent)} kills, from when each was sent: its commit included",
        value=late * 1e3,
        measured=f"{shown(late)}, most {shown(max(times.sent))}",
        floor=f"raw Pub/Sub most {shown(max(floor))}",
    )
    yield noted(
        NAME,
        "… from when the kill was sent; the ack itself",
        measured=f"{told(times.sent)}; ack {told(times.replies)}",
    )


if __name__ == "__main__":
    sys.exit(alone(measure))
