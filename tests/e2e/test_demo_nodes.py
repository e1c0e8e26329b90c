"""The demo with many nodes: two processes are killed while a kill is on its way, and every bound still holds."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from sample.children import TELL_S
from sample.ports import free_port
from sample.server import Server
from tests.e2e.test_demo import ALL, HIT, ROOT, hits, left_behind, surroundings

NODES = [sys.executable, "-m", "sample.demo", "--nodes", "2", "--short"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder for the demo's temporary files."""
    return tmp_path_factory.mktemp("demo-nodes")


@pytest.fixture(scope="module")
def played(folder: Path) -> dict[str, Any]:
    """Return what the demo found, played once with short pauses; it says so by its exit status."""
    done = subprocess.run(
        [*NODES, "--json"],
        cwd=ROOT,
        env=surroundings(folder),
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["broken"] == []
    return found


pytestmark = pytest.mark.timeout(160)


def test_nothing_after_effective_at(played: dict[str, Any]) -> None:
    """On every rung, the struck one too, no worker that it hits has a mail accepted after effective_at."""
    after = {pull["target"]: hits(pull, "after_effective") for pull in played["pulls"]}
    assert after == {target: dict.fromkeys(runs, 0) for target, runs in HIT.items()}


def test_two_were_struck(played: dict[str, Any]) -> None:
    """The last kill was struck: its control lane and the node that carried the most streams; others took over."""
    *unstruck, struck = (pull["fail_over"] for pull in played["pulls"])
    assert unstruck == [None] * 3
    assert struck["control"] == "control lane 1"
    assert struck["node"].startswith("worker node ")
    assert struck["streams"] >= len(ALL) / 2
    assert struck["answered_ms"] > 0


def test_every_worker_was_told(played: dict[str, Any]) -> None:
    """Every worker was stopped by the kill itself, though the node of most of them was gone before it was written."""
    assert played["pulls"][-1]["fail_over"]["heard_ms"].keys() == ALL
    assert all(ms is not None and ms > 0 for ms in played["pulls"][-1]["fail_over"]["heard_ms"].values())


def test_one_kill_in_the_log(played: dict[str, Any]) -> None:
    """The kill that was sent twice is in the log once, where it was acknowledged, and the chain is whole."""
    kills = [entry["seq"] for entry in played["log"] if entry["kind"] == "kill" and entry["target"] == "global"]
    assert kills == [played["pulls"][-1]["seq"]]
    assert played["chain"] == "verified"


def test_the_fleet_goes_on_with_what_is_left(played: dict[str, Any]) -> None:
    """With one control lane and one node less, the revive works and every worker sends again after its restart."""
    assert all(count > 0 for count in hits(played["pulls"][-1], "after_go").values())


def test_all_of_it_stopped(played: dict[str, Any]) -> None:
    """Without any lane every worker stops within ttl, says why, and goes on when all are back, the struck ones too."""
    assert {worker["run"] for worker in played["service_stopped"]} == ALL
    for worker in played["service_stopped"]:
        assert (worker["after_limit"], worker["same_run"]) == (0, True)
        assert worker["why"] != ""
        assert worker["after_start"] > 0


def test_nothing_is_left_behind(played: dict[str, Any], folder: Path) -> None:
    """The demo ends every process that it started, the database's too, and removes its files."""
    assert left_behind(folder) == []


def test_interrupted(tmp_path: Path) -> None:
    """Ctrl-C in the middle ends everything too, the database included, and is no success."""
    process = subprocess.Popen(
        NODES,
        cwd=ROOT,
        env=surroundings(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if "acknowledged" in line:
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=40)
    assert process.returncode == 130
    assert errors == "demo: interrupted; what it started has ended\n"
    assert left_behind(tmp_path) == []
    pids = [int(pid) for pid in re.findall(r"process (\d+)", "".join(said))]
    assert len(pids) >= 9  # PostgreSQL, Valkey, two control lanes, two worker nodes, three workers
    assert [pid for pid in pids if psutil.pid_exists(pid)] == []


def test_a_frozen_lane_can_be_ended(tmp_path: Path) -> None:
    """What was frozen for the blow ends in order like everything else, should the blow not fall."""
    environment = {**surroundings(tmp_path), "HALTLINE_DATABASE_URL": f"sqlite:///{tmp_path}/haltline.db"}
    server = Server("the service", environment, port=free_port(), log=tmp_path / "service.log")
    try:
        server.begin()
        server.wait_until_ready()
        server.freeze()
        began = time.monotonic()
    finally:
        server.stop()
    assert time.monotonic() - began < TELL_S
