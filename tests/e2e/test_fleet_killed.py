"""A control lane that is killed with SIGKILL in the middle of flips: no acknowledged kill is lost, and none doubled."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from app.storage.postgres import LOG_LOCK
from tests.e2e.server import Server
from tests.support.cli import Ran, haltline
from tests.support.counts import NIGHTLY, SEED
from tests.support.fault_modes import Fault, Mode
from tests.support.fault_proxy import FaultProxy
from tests.support.fleet import Fleet, url
from tests.support.postgres import SERVICE, PostgresServer

VICTIMS: Final = 2
DEATHS: Final = 200 if NIGHTLY else 20

pytestmark = pytest.mark.timeout(1_000 if NIGHTLY else 300)


@dataclass(frozen=True)
class Setting:
    """The lanes, the way to each lane that is killed, and the database under all."""

    fleet: Fleet
    paths: list[FaultProxy]
    postgres: PostgresServer
    database: str


@pytest.fixture
def setting(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer, postgres_database: str
) -> Iterator[Setting]:
    """Return control lanes: the first lives, the others are killed."""
    address = postgres_server.url(postgres_database, user=SERVICE)
    with Fleet(tmp_path_factory.mktemp("control"), address) as fleet, ExitStack() as stack:
        fleet.grow(control=VICTIMS)
        paths = [stack.enter_context(FaultProxy(lane.port)) for lane in fleet.control[1:]]
        yield Setting(fleet, paths, postgres_server, postgres_database)


def _crash(lane: Server, *, all_of_it: bool) -> None:
    """Kill the process that serves, or with it the one that would start it anew."""
    serving = lane.worker
    if all_of_it:
        lane.process.kill()
    serving.kill()


def _ready(lane: Server, dead: psutil.Process) -> None:
    """Wait until another process serves in the dead one's place; start a lane that gave up anew, as systemd would."""
    until = time.monotonic() + 60
    while lane.process.poll() is None:
        serving = [each.pid for each in psutil.Process(lane.process.pid).children()]
        with suppress(OSError, HTTPException):
            if serving not in ([], [dead.pid]) and lane.call("GET", "/readyz").status == 200:
                return
        assert time.monotonic() < until, lane.err
        time.sleep(0.02)
    lane.start()


def _flip(setting: Setting, victim: int, target: str, draw: random.Random, *, last: bool, way: str) -> Ran:
    """Kill a target by the command line, which begins at a lane that dies of it; return what that said."""
    lane, path = setting.fleet.control[1 + victim], setting.paths[victim]
    serving = lane.worker
    if way == "the reply is lost":
        path.set(Fault(Mode.RESET_AFTER, after=0))
    urls = f"{path.url},{url(setting.fleet.control[0])}"
    settings = {"HALTLINE_URL": urls, "HALTLINE_TOKEN": setting.fleet.operator}
    before = path.counts["up"]
    with ThreadPoolExecutor(1) as pool, ExitStack() as locked:
        if way == "it waits for the lock":
            connection = locked.enter_context(setting.postgres.connect(setting.database))
            connection.execute(f"SELECT pg_advisory_lock({LOG_LOCK})".encode())
        asked = pool.submit(haltline, "kill", target, "--reason", "why", "--no-wait", "--json", settings=settings)
        while path.counts["up"] == before and not asked.done():
            time.sleep(0.0005)
        assert path.counts["up"] > before, f"the lane was not asked: {asked.result(0).err}"
        time.sleep(0.03 if way == "it waits for the lock" else draw.uniform(0, 0.008))
        _crash(lane, all_of_it=last)
        locked.close()
        ran = asked.result(30)
    path.heal()
    if not last:
        _ready(lane, serving)
    return ran


def _one_after_another(setting: Setting, victim: int) -> dict[str, Ran]:
    draw = random.Random(f"{SEED} control lane {victim}")
    ways = ["at any time", "the reply is lost", "it waits for the lock"]
    targets = [f"run:r-{victim}-{number}" for number in range(DEATHS // VICTIMS)]
    return {
        target: _flip(setting, victim, target, draw, last=target == targets[-1], way=ways[number % len(ways)])
        for number, target in enumerate(targets)
    }


def _exported(setting: Setting, path: Path) -> list[dict[str, Any]]:
    """Return the entries of the log, exported and verified by the command line."""
    settings = {"HALTLINE_URL": url(setting.fleet.control[0]), "HALTLINE_TOKEN": setting.fleet.operator}
    ran = haltline("export", "-o", str(path), settings=settings)
    assert ran.code == 0, ran.err
    verified = haltline("verify", str(path), settings={})
    assert verified.code == 0, verified.err
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_a_control_lane_killed_in_the_middle_of_flips(setting: Setting, tmp_path: Path) -> None:
    """Twenty deaths: at any time, after the commit and before the reply, while waiting; each kill is acked once."""
    with ThreadPoolExecutor(VICTIMS) as pool:
        ran: dict[str, Ran] = {}
        for came in [pool.submit(_one_after_another, setting, victim) for victim in range(VICTIMS)]:
            ran.update(came.result(900 if NIGHTLY else 200))
    assert len(ran) == DEATHS
    assert {target: each.err for target, each in ran.items() if each.code != 0} == {}
    entries = _exported(setting, tmp_path / "log.jsonl")
    kills = Counter(entry["target"] for entry in entries if entry["kind"] == "kill")
    assert kills == dict.fromkeys(ran, 1)
    assert [entry["seq"] for entry in entries] == list(range(1, len(entries) + 1))
    by_seq = {entry["seq"]: entry for entry in entries}
    for target, each in ran.items():
        assert by_seq[each.json["seq"]]["target"] == target, "what was acked is what stands there"
