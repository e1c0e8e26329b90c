"""Killing while the service is under attack: floods, slow bodies and streams do not keep a kill from being answered.

What is attacked is compared with what is not, on the same machine in the same seconds: each kill of the one is followed
by one of the other. So a machine that is busy with the attackers, or with others, weighs on both alike. Both share that
machine and a database, so neither may take some seconds, whatever the other one takes.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.server import Server
from tests.support.counts import NIGHTLY
from tests.support.fault_modes import Fault, Mode
from tests.support.fault_proxy import FaultProxy
from tests.support.fleet import Fleet
from tests.support.postgres import SERVICE, PostgresServer
from tests.support.probes import ROOT

KILLS: Final = 200 if NIGHTLY else 50
WORSE: Final = 2.0
"""How much slower than at the lane that is not attacked the slowest of a hundred kills may be, and besides:"""
SLACK_S: Final = 0.25
"""seconds."""
MOST_S: Final = 5.0
"""How long the slowest of a hundred kills may take anywhere, seconds; far more than it does on a machine that others
use as well (docs/benchmarks.md)."""

ROUND_TRIP_S: Final = 0.1
"""How far from its database the lane is that strangers flood: six look-ups at once are sixty a second."""
STRANGERS: Final = 80
UNSEEN: Final = 40 if NIGHTLY else 12
"""How many operators kill at a lane that has never seen their tokens."""

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


def kills(servers: Sequence[Server], name: str, count: int) -> list[list[float]]:
    """Kill so many runs at each server in turn, each over a connection of its own as the command line does.

    Returns:
        how long each took, seconds, for each server; none has failed.
    """
    took: list[list[float]] = [[] for _ in servers]
    for number in range(count):
        for which, server in enumerate(servers):
            began = time.monotonic()
            reply = server.kill(f"run:{name}-{which}-{number}")
            took[which].append(time.monotonic() - began)
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
        fleet.grow(control=1, workers=[{}])
        control, worker = fleet.control[0], fleet.workers[0]
        kills(fleet.control, "warm", 5)
        token = fleet.worker_token
        there = siege.enter_context(attacked(worker, token, flood_1=40, flood_2=40, bodies=100, streams=200))
        here = siege.enter_context(attacked(control, token, bodies=100))
        attacked_lane, other_lane = kills(fleet.control, "attack", KILLS)
        _, most = told("under attack", attacked_lane)
        _, beside = told("the control lane that is not attacked", other_lane)
        siege.pop_all().close()
        assert max(most, beside) < MOST_S
        assert most < WORSE * beside + SLACK_S
        assert there["flood_1"] + there["flood_2"] > 2 * KILLS, "that was no flood"  # they may be over in a second
        assert there["streams"] >= 200
        assert there["bodies"] + here["bodies"] >= 200


def test_kills_while_strangers_flood(tmp_path: Path, postgres_server: PostgresServer, postgres_database: str) -> None:
    """Made-up tokens at a lane far from its database, more than it can look up: who may kill is not put off there.

    Not even with a token that this lane has never seen: made before it started, or elsewhere while it is attacked.
    """
    near = postgres_server.url(postgres_database, user=SERVICE)
    with (
        FaultProxy(str(postgres_server.folder / "socket" / ".s.PGSQL.5432")) as link,
        Fleet(tmp_path, near) as fleet,
        ExitStack() as siege,
    ):
        before = [fleet.issue("operator", f"before-{number}")[0] for number in range(UNSEEN)]
        link.set(Fault(Mode.LATENCY, seconds=ROUND_TRIP_S / 2))
        fleet.grow(control=1, url=f"postgresql://{SERVICE}@127.0.0.1:{link.port}/{postgres_database}")
        far = fleet.control[1]
        strangers = siege.enter_context(attacked(far, "", strangers=STRANGERS))
        time.sleep(1.0)  # until every place is taken, and as many wait as there will be
        meanwhile = [fleet.issue("operator", f"meanwhile-{number}")[0] for number in range(UNSEEN)]
        took = kills_by(far, "before", before)
        time.sleep(3.0)  # the notes are read each eighth of a ttl, and what they tell of a second later at most
        took += kills_by(far, "meanwhile", meanwhile)
        _, most = told("strangers flood, each token the first time", took)
        siege.pop_all().close()
        assert most < MOST_S
        assert strangers["strangers"] > 2 * STRANGERS, "that was no flood: all of them were looked up"


def kills_by(server: Server, name: str, tokens: Sequence[str]) -> list[float]:
    """Kill a run with each token, and return how long each took, seconds; none has failed."""
    took = []
    for number, token in enumerate(tokens):
        server.token = token
        took += kills([server], f"{name}-{number}", 1)[0]
    return took


def test_kills_under_attack_in_one_process(tmp_path: Path) -> None:
    """The embedded form, both lanes in one process on SQLite: slower, but each kill is answered."""
    for name in ("attacked", "beside"):
        (tmp_path / name).mkdir()
    with Server(tmp_path / "attacked") as server, Server(tmp_path / "beside") as other, ExitStack() as siege:
        token = server.call("POST", "/v1/tokens", {"role": "worker", "subject": "attacker"}).members["token"]
        kills([server, other], "warm", 5)
        siege.enter_context(attacked(server, token, flood=8, bodies=50, streams=50))
        under_attack, idle = kills([server, other], "attack", KILLS)
        _, most = told("under attack, embedded", under_attack)
        _, beside = told("the service that is not attacked", idle)
        assert max(most, beside) < MOST_S
        assert most < WORSE * beside + SLACK_S
