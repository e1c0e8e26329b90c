"""A process that is stopped around a kill lets nothing pass after it is resumed: clients and nodes, for real (SIGSTOP).

All trials of a round happen side by side. A check counts as a violation only if the clock was read after effective_at
BEFORE it and it passed nevertheless: a pause between a check and the note of it counts against nobody.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Final

import pytest

from tests.e2e.server import Server
from tests.support.counts import NIGHTLY, SEED
from tests.support.fault_modes import Mode
from tests.support.fault_proxy import FaultProxy
from tests.support.fleet import Fleet, kill, stopped, url
from tests.support.postgres import SERVICE, PostgresServer
from tests.support.probes import Probe, now, on_lease_clock

TTL_MS: Final = 400
TTL_S: Final = TTL_MS / 1000
CLIENTS: Final = 10
"""How many clients are stopped in a round, each on its own."""
NODES: Final = 2
ON_EACH: Final = 5
"""How many runs live on leases of each node that is stopped; each is killed at another moment."""
ROUNDS: Final = 10 if NIGHTLY else 1

SOON_NS: Final = 4_000_000_000
"""Two seconds on a machine that is not busy: here others test beside this."""

pytestmark = pytest.mark.timeout(900 if NIGHTLY else 180)


@pytest.fixture(scope="module")
def link(postgres_server: PostgresServer) -> Iterator[FaultProxy]:
    """Return the way of the first worker lane to the primary."""
    with FaultProxy(str(postgres_server.folder / "socket" / ".s.PGSQL.5432")) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def fleet(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer, postgres_template: str, link: FaultProxy
) -> Iterator[Fleet]:
    """Return a control lane and worker lanes: one for clients that are stopped, the others are stopped themselves."""
    database = postgres_server.create_database(template=postgres_template)
    folder = tmp_path_factory.mktemp("fleet")
    with Fleet(folder, postgres_server.url(database, user=SERVICE), HALTLINE_TTL_MS=str(TTL_MS)) as running:
        linked = f"postgresql://{SERVICE}@127.0.0.1:{link.port}/{database}"
        running.grow(workers=[{"HALTLINE_DATABASE_URL": linked}, *({} for _ in range(NODES))])
        yield running
    postgres_server.drop_database(database)


@pytest.fixture(scope="module")
def paths(fleet: Fleet) -> Iterator[list[FaultProxy]]:
    """Return the paths from the clients that are stopped to their node."""
    with ExitStack() as stack:
        yield [stack.enter_context(FaultProxy(fleet.workers[0].port)) for _ in range(CLIENTS)]


@pytest.fixture(scope="module")
def clients(fleet: Fleet, paths: list[FaultProxy]) -> Iterator[list[Probe]]:
    """Return the probes, those that are stopped themselves first."""
    direct = [url(lane) for lane in fleet.workers[1:]]
    with ExitStack() as stack:
        urls = [*(path.url for path in paths), *direct]
        yield [stack.enter_context(Probe(each, fleet.worker_token)) for each in urls]


def _killed_meanwhile(fleet: Fleet, run: str, began: float, after_s: float) -> int:
    """Kill a run so many seconds after a moment, and return effective_at on the lease clock."""
    time.sleep(max(0.0, began + after_s - time.monotonic()))
    reply = kill(fleet.control[0], f"run:{run}")
    return on_lease_clock(reply.members["effective_at"])


def _stop_client(fleet: Fleet, probe: Probe, path: FaultProxy, run: str, draw: random.Random) -> int:
    """Stop a client around a kill of its run, and return effective_at.

    Half of them are cut off just before the kill: what lies in the socket's buffer when they are resumed is old news,
    and the news of the kill is not behind it.
    """
    time.sleep(draw.uniform(0, TTL_S))
    pause = draw.uniform(0.5, 3) * TTL_S
    began = time.monotonic()
    os.kill(probe.process.pid, signal.SIGSTOP)
    when = draw.uniform(0, pause * 0.8)
    time.sleep(when)
    if draw.random() < 0.5:
        path.set(Mode.LOSE)
    try:
        effective_at = _killed_meanwhile(fleet, run, began, when)
        time.sleep(max(0.0, began + pause - time.monotonic()))
    finally:
        os.kill(probe.process.pid, signal.SIGCONT)
    probe.told_until(run, effective_at + 300_000_000)
    path.heal()
    return effective_at


def _stop_node(fleet: Fleet, lane: Server, runs: list[str], draw: random.Random) -> tuple[list[int], int]:
    """Stop a node around kills of runs that hold its leases; return each effective_at and when it was resumed."""
    time.sleep(draw.uniform(0, TTL_S))
    pause = draw.uniform(0.5, 3) * TTL_S
    began = time.monotonic()
    with ThreadPoolExecutor(len(runs)) as pool:
        with stopped(lane):
            kills = [pool.submit(_killed_meanwhile, fleet, run, began, draw.uniform(0, pause * 0.8)) for run in runs]
            time.sleep(pause)
            resumed = now()
        return [kill.result() for kill in kills], resumed


def _assert_stopped(probe: Probe, run: str, effective_at: int) -> None:
    """Assert that a run let nothing pass after effective_at, and that it is halted for good."""
    told = probe.told_until(run, effective_at + 300_000_000)
    assert told.passes_after(effective_at) == []
    assert probe.killed(run).passes_after(effective_at) == []


@pytest.mark.parametrize("turn", range(ROUNDS))
def test_a_client_that_was_stopped_around_a_kill(
    fleet: Fleet, clients: list[Probe], paths: list[FaultProxy], turn: int
) -> None:
    """Ten at once: resumed, none passes a check on a reading later than effective_at."""
    draw = random.Random(f"{SEED} clients {turn}")
    probes, runs = clients[:CLIENTS], [f"client-{turn}-{number}" for number in range(CLIENTS)]
    for probe, run in zip(probes, runs, strict=True):
        probe.arm(run)
    with ThreadPoolExecutor(CLIENTS) as pool:
        each = [
            pool.submit(_stop_client, fleet, probe, path, run, random.Random(draw.random()))
            for probe, path, run in zip(probes, paths, runs, strict=True)
        ]
        ends = [future.result() for future in each]
    for probe, run, effective_at in zip(probes, runs, ends, strict=True):
        _assert_stopped(probe, run, effective_at)
        probe.order("drop", run)


@pytest.mark.parametrize("turn", range(ROUNDS))
def test_a_node_that_was_stopped_around_a_kill(fleet: Fleet, clients: list[Probe], turn: int) -> None:
    """Two nodes, five runs on each: resumed, a node grants nothing on what it knew before, and serves on in 2 s."""
    draw = random.Random(f"{SEED} nodes {turn}")
    lanes = fleet.workers[1:]
    probes = clients[CLIENTS:]
    runs = [[f"node-{turn}-{lane}-{number}" for number in range(ON_EACH)] for lane in range(NODES)]
    for number in range(NODES):
        for run in (*runs[number], f"alive-{turn}-{number}"):
            probes[number].arm(run)
    with ThreadPoolExecutor(NODES) as pool:
        each = [
            pool.submit(_stop_node, fleet, lane, mine, random.Random(draw.random()))
            for lane, mine in zip(lanes, runs, strict=True)
        ]
        came = [future.result() for future in each]
    for number, (ends, resumed) in enumerate(came):
        alive = f"alive-{turn}-{number}"
        for run, effective_at in zip(runs[number], ends, strict=True):
            _assert_stopped(probes[number], run, effective_at)
        assert probes[number].went_on(alive, resumed) - resumed < SOON_NS
        for run in (*runs[number], alive):
            probes[number].order("drop", run)


@pytest.mark.parametrize("mode", [Mode.STALL, Mode.LOSE, Mode.REFUSE], ids=lambda mode: mode.name.lower())
def test_a_node_that_is_cut_off_from_the_primary(
    fleet: Fleet, clients: list[Probe], link: FaultProxy, mode: Mode
) -> None:
    """It grants nothing on what it read before: its clients stop, and go on soon after it can read again."""
    probe, cut, alive = clients[0], f"cut-{mode.name}", f"alive-{mode.name}"
    probe.arm(cut)
    probe.arm(alive)
    began = link.set(mode)
    reply = kill(fleet.control[0], f"run:{cut}")
    effective_at = on_lease_clock(reply.members["effective_at"])
    lapsed = began + TTL_MS * 1_000_000
    told = probe.told_until(cut, max(effective_at, lapsed) + 600_000_000)
    healed = link.heal()
    assert told.passes_after(effective_at) == []
    assert probe.of(alive).passes_after(lapsed, until=healed) == []
    assert probe.went_on(alive, healed) - healed < SOON_NS
    assert probe.killed(cut).passes_after(effective_at) == []
    for run in (cut, alive):
        probe.order("drop", run)
