"""A kill until a worker's check raises, beside a switch in Unleash until its client's is_enabled() changes."""

from __future__ import annotations

import os
import random
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Final

from bench.children import ROOT, child
from bench.command import alone
from bench.figure import Bound, Effort, Figure, skipped
from bench.layouts import embedded
from bench.measure import shown
from bench.peers import NotInstalled, environment
from bench.propagation import GAP_S, Times, stopping
from bench.spread import told
from bench.unleash_server import FLAG, Unleash, unleash

NAME: Final = "unleash"
KILLS: Final = 60
CLIENTS: Final = 15

DEFAULT_S: Final = 15
"""How often a client asks if nothing else is said, seconds."""

FAST_S: Final = 1

BOUNDS: Final = {
    DEFAULT_S: Bound(must=500, goal=1_000, unit="x sooner", least=True),
    FAST_S: Bound(must=50, goal=100, unit="x sooner", least=True),
}
SWITCHES: Final = {DEFAULT_S: 2, FAST_S: 8}
"""How often the flag is switched; each is seen by all clients, at as many phases of their interval."""


def measure(effort: Effort) -> Iterator[Figure]:
    """Measure both intervals, and kills of an idle worker before and after."""
    try:
        python = environment()
        with unleash() as server:
            ours = kills(effort.of(KILLS) // 2)
            theirs = {interval: switched(server, python, interval) for interval in BOUNDS}
            ours += kills(effort.of(KILLS) // 2)
    except NotInstalled as why:
        for interval in BOUNDS:
            yield skipped(NAME, title(interval), str(why))
        return
    mine = statistics.median(ours)
    for interval, bound in BOUNDS.items():
        median = statistics.median(theirs[interval])
        yield bound.figure(
            NAME,
            title(interval),
            value=median / mine,
            measured=f"{median / mine:,.0f}x sooner, {shown(mine)}",
            floor=f"Unleash {told(theirs[interval])}",
        )


def title(interval: int) -> str:
    """Return what a row is called."""
    asks = "its default" if interval == DEFAULT_S else "a poll"
    return f"a kill until a worker stops, beside a switch in Unleash seen by its client at {asks} of {interval} s"


def kills(times: int) -> list[float]:
    """Return how long so many kills took from when each was sent, seconds."""
    taken = Times()
    with embedded() as layout, stopping(layout) as stop:
        stop(Times())  # the first of anything is slower
        for _ in range(times):
            time.sleep(random.uniform(*GAP_S))
            stop(taken)
    return taken.sent


def switched(server: Unleash, python: str, interval: int) -> list[float]:
    """Return how long it took from when each switch was sent until each client saw it, seconds."""
    taken: list[float] = []
    given = {"url": server.url, "secret": server.client, "flag": FLAG, "interval_s": interval, "clients": CLIENTS}
    path = os.pathsep.join((str(ROOT), str(ROOT / "client")))
    with child(
        "bench.unleash_client", python=python, environment={"PYTHONPATH": path}, enabled=False, **given
    ) as clients:
        clients.hear_of("ready", seconds=4 * interval + 20)
        for number in range(SWITCHES[interval]):
            time.sleep(random.uniform(0, FAST_S))
            on = number % 2 == 0
            sent, _ = server.switch(on=on)
            clients.tell(enabled=on)
            seen = clients.hear_of("seen", seconds=4 * interval + 20)["seen"]
            taken += [(at - sent) / 1e9 for at in seen]
    return taken


if __name__ == "__main__":
    sys.exit(alone(measure))
