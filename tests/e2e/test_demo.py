"""The demo: every rung is pulled on a fleet of real processes that really send mail, and every bound holds."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
ALL: Final = {"r-1", "r-2", "r-3"}
HIT: Final = {
    "capability:send_email": ALL,
    "run:r-1": {"r-1"},
    "tenant:acme": {"r-1", "r-2"},
    "global": ALL,
}


def surroundings(folder: Path) -> dict[str, str]:
    """Return an environment in which temporary files go to ``folder``, and by which every process can be known."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HALTLINE_")}
    return {**kept, "TMPDIR": str(folder)}


def left_behind(folder: Path) -> list[object]:
    """Return the processes and files that are left of a demo in these surroundings."""
    left: list[object] = list(folder.iterdir())
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("TMPDIR") == str(folder):
                left.append(process)
    return left


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder for the demo's temporary files."""
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def played(folder: Path) -> dict[str, Any]:
    """Return what the demo found, played once with short pauses."""
    done = subprocess.run(
        [sys.executable, "-m", "sample.demo", "--short", "--json"],
        cwd=ROOT,
        env=surroundings(folder),
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["ok"] is True
    assert found["broken"] == []
    return found


def test_nothing_after_effective_at(played: dict[str, Any]) -> None:
    """On every rung, no worker that it hits has a mail accepted after effective_at."""
    after = {pull["target"]: hits(pull, "after_effective") for pull in played["pulls"]}
    assert after == {target: dict.fromkeys(runs, 0) for target, runs in HIT.items()}


def test_unrelated_go_on(played: dict[str, Any]) -> None:
    """Workers that a rung does not hit send on while it is pulled."""
    for pull in played["pulls"]:
        spared = {worker["run"]: worker["after_effective"] for worker in pull["workers"] if not worker["hit"]}
        assert spared.keys() == ALL - HIT[pull["target"]]
        assert all(count > 0 for count in spared.values()), pull


def test_frozen_tool_leaves_reading(played: dict[str, Any]) -> None:
    """A frozen capability stops sending and leaves reading."""
    frozen = played["pulls"][0]
    assert frozen["target"] == "capability:send_email"
    assert all(count > 0 for count in hits(frozen, "reads").values())


def test_revive_starts_nothing(played: dict[str, Any]) -> None:
    """Between a revive and its restart no halted run has a mail accepted; after the restart mail flows again."""
    for pull in played["pulls"][1:]:
        assert set(hits(pull, "before_go").values()) == {0}
        assert all(count > 0 for count in hits(pull, "after_go").values())


def test_service_stopped(played: dict[str, Any]) -> None:
    """Without the service every worker stops within ttl, says why, and goes on in the same run when it is back."""
    assert {worker["run"] for worker in played["service_stopped"]} == ALL
    for worker in played["service_stopped"]:
        assert worker["after_limit"] == 0
        assert worker["why"] != ""
        assert worker["same_run"] is True
        assert worker["after_start"] > 0


def test_log_tells_the_story(played: dict[str, Any]) -> None:
    """The log holds each kill and each revive in order, with who and why, and its chain is whole."""
    flips = [(e["kind"], e["target"], e["actor"]) for e in played["log"] if e["kind"] in {"kill", "revive"}]
    assert flips == [flip for target in HIT for flip in (("kill", target, "dana"), ("revive", target, "rui"))]
    assert all(entry["reason"] for entry in played["log"] if entry["kind"] != "note")
    assert [entry["seq"] for entry in played["log"]] == list(range(1, len(played["log"]) + 1))
    assert played["chain"] == "verified"


def test_nothing_is_left_behind(played: dict[str, Any], folder: Path) -> None:
    """The demo ends every process that it started, and removes its files."""
    assert left_behind(folder) == []


def test_interrupted(tmp_path: Path) -> None:
    """Ctrl-C in the middle ends everything too, and is no success."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sample.demo", "--short"],
        cwd=ROOT,
        env=surroundings(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        assert any("acknowledged" in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == "demo: interrupted; what it started has ended\n"
    assert left_behind(tmp_path) == []


def hits(pull: dict[str, Any], member: str) -> dict[str, Any]:
    """Return one figure of each worker that a pull hits, by run."""
    return {worker["run"]: worker[member] for worker in pull["workers"] if worker["hit"]}
