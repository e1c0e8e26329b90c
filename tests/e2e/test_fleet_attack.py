"""Killing while the service is under attack: floods, slow bodies and streams do not keep a kill from being answered."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.server import Server
from tests.support.counts import NIGHTLY
from tests.support.fleet import Fleet
from tests.support.postgres import SERVICE, PostgresServer
from tests.support.probes import ROOT

KILLS: Final = 200 if NIGHTLY else 50
WORSE: Final = 20.0
"""How much slower than on an idle service the slowest of a hundred kills may be."""
ENOUGH_S: Final = 2.0
"""Whatever it was on an idle service, this is soon enough, seconds."""

pytestmark = pytest.mark.timeout(300 if NIGHTLY else 120)


@contextmanager
def attacked(server: Server, token: str, **attackers: int) -> Iterator[dict[str, int]]:
    """Attack a node from processes of their own, each ``what=count`` one; yield what comes of each, at the end."""
    came: dict[str, int] = {}
    with ExitStack() as stack:
        running = {}
        for name, count in attackers.items():
            what = name.partition("_")[0]
            running[name] = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.support.attacker", what, str(server.port), str(count)],
                    cwd=ROOT,
                    env={**os.environ, "HALTLINE_TOKEN": token},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(running[name].kill)
        for each in running.values():
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        yield came
        for name, each in running.items():
            out, _ = each.communicate(timeout=15)
            came[name] = int(out)


def kills(server: Server, name: str, count: int) -> list[float]:
    """Kill so many runs, each over a connection of its own as the command line does; return how long each took."""
    took = []
    for number in range(count):
        began = time.monotonic()
        reply = server.kill(f"run:{name}-{number}")
        took.append(time.monotonic() - began)
        assert reply.status == 201, reply.body
    return took


def told(label: str, took: list[float]) -> tuple[float, float]:
    """Print and return the median and the 99th percentile, seconds."""
    ordered = sorted(took)
    middle, most = ordered[len(ordered) // 2], ordered[math.ceil(len(ordered) * 0.99) - 1]
    print(f"{label}: {len(took)} kills, p50 {middle * 1e3:.1f} ms, p99 {most * 1e3:.1f} ms")  # noqa: T201
    return middle, most


def test_kills_under_attack(tmp_path: Path, postgres_server: PostgresServer, postgres_database: str) -> None:
    """Worker lane at ten times its load, 200 slow bodies at both lanes, 200 streams, half never read: no kill fails."""
    with Fleet(tmp_path, postgres_server.url(postgres_database, user=SERVICE)) as fleet, ExitStack() as siege:
        fleet.grow(workers=[{}])
        control, worker = fleet.control[0], fleet.workers[0]
        kills(control, "warm", 5)
        _, idle = told("idle", kills(control, "idle", KILLS))
        token = fleet.worker_token
        there = siege.enter_context(attacked(worker, token, flood_1=40, flood_2=40, bodies=100, streams=200))
        here = siege.enter_context(attacked(control, token, bodies=100))
        _, most = told("under attack", kills(control, "attack", KILLS))
        siege.pop_all().close()
        assert most < max(WORSE * idle, ENOUGH_S)
        assert there["flood_1"] + there["flood_2"] > 10 * KILLS, "that was no flood"
        assert there["streams"] >= 200
        assert there["bodies"] + here["bodies"] >= 200


def test_kills_under_attack_in_one_process(tmp_path: Path) -> None:
    """The embedded form, both lanes in one process on SQLite: slower, but each kill is answered."""
    with Server(tmp_path) as server, ExitStack() as siege:
        token = server.call("POST", "/v1/tokens", {"role": "worker", "subject": "attacker"}).members["token"]
        kills(server, "warm", 5)
        _, idle = told("idle, embedded", kills(server, "idle", KILLS // 2))
        siege.enter_context(attacked(server, token, flood=8, bodies=50, streams=50))
        _, most = told("under attack, embedded", kills(server, "attack", KILLS // 2))
        assert most < max(WORSE * idle, ENOUGH_S)
