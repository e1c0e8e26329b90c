"""A kill that is revived within milliseconds is a stop: every live run that it hit is halted, and stays so."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Final

import pytest

from tests.e2e.server import Server
from tests.support.counts import NIGHTLY, SEED
from tests.support.fleet import kill, url
from tests.support.probes import Probe, on_lease_clock

BLIPS: Final = 1_000 if NIGHTLY else 100
AT_ONCE: Final = 4
ALIVE: Final = 5
"""How many runs are never hit by a blip of their own."""
TTL_MS: Final = 500

pytestmark = pytest.mark.timeout(600 if NIGHTLY else 60)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a node."""
    with Server(tmp_path_factory.mktemp("node"), more={"HALTLINE_TTL_MS": str(TTL_MS)}) as running:
        yield running


@pytest.fixture(scope="module")
def probes(node: Server) -> Iterator[list[Probe]]:
    """Return two worker processes."""
    with ExitStack() as stack:
        yield [stack.enter_context(Probe(url(node), node.token, PROBER_FLUSH_S="0.3")) for _ in range(2)]


def blip(node: Server, target: str, seconds: float) -> int:
    """Kill a target and revive it so many seconds later; return the kill's effective_at on the lease clock."""
    connection = node.connect()
    try:
        killed = kill(node, target)
        time.sleep(seconds)
        revived = node.call(
            "POST",
            "/v1/revives",
            {"target": target, "holds": [killed.members["seq"]], "reason": "a slip"},
            over=connection,
            headers={"If-Match": killed.headers["ETag"]},
        )
        assert revived.status == 201, revived.body
        return on_lease_clock(killed.members["effective_at"])
    finally:
        connection.close()


def test_every_blip_halts_every_live_run_for_good(node: Server, probes: list[Probe]) -> None:
    """A hundred of 1 to 50 ms, of runs and of tenants, four at a time; at last one of the whole world."""
    draw = random.Random(f"{SEED} blips")
    targets = {f"r-{number}": f"tenant:t-{number}" if number % 2 else f"run:r-{number}" for number in range(BLIPS)}
    alive = [f"alive-{number}" for number in range(ALIVE)]
    home = {run: probes[number % 2] for number, run in enumerate((*targets, *alive))}
    for run, probe in home.items():
        probe.order("arm", run, f"t-{run.partition('-')[2]}" if run in targets else "elsewhere")
    for run, probe in home.items():
        probe.until(lambda run=run, probe=probe: probe.of(run).armed)  # type: ignore[misc]
    lengths = [draw.uniform(0.001, 0.05) for _ in targets]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        ends = dict(
            zip(
                targets,
                pool.map(lambda each: blip(node, *each), zip(targets.values(), lengths, strict=True)),
                strict=True,
            )
        )
    for run, effective_at in ends.items():
        told = home[run].told_until(run, effective_at + TTL_MS * 1_000_000)
        assert told.passes_after(effective_at) == []
        assert told.stretches[-1].reason == "killed"
        halted = next(each.first for each in told.stops() if each.reason == "killed")
        assert told.passes_after(halted) == [], "a halt is for good"
    others = [each.reason for run in alive for each in home[run].of(run).stops()]
    assert "killed" not in others, "nobody else is halted"
    everywhere = blip(node, "global", 0.001)
    for run in alive:
        told = home[run].told_until(run, everywhere + TTL_MS * 1_000_000)
        assert told.passes_after(everywhere) == []
        assert told.stretches[-1].reason == "killed"
