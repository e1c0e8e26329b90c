"""Every way to make a child process, before a real node: no child acts on its parent's lease, none disturbs it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.server import Server
from tests.support.counts import NIGHTLY
from tests.support.fault_proxy import FaultProxy
from tests.support.ports import LOOPBACK, free_port
from tests.support.probes import now, on_lease_clock

ROOT: Final = Path(__file__).parents[2]
FORKS: Final = 1_000 if NIGHTLY else 40
SOON_S: Final = 5.0
"""Within a second on a quiet machine: a child's first lease is one exchange."""

pytestmark = pytest.mark.timeout(1_200 if NIGHTLY else 60)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a node that grants leases of 2 s, so that an inherited one would still be running."""
    with Server(tmp_path_factory.mktemp("node"), more={"HALTLINE_TTL_MS": "2000"}) as running:
        yield running


@pytest.fixture
def path(node: Server) -> Iterator[FaultProxy]:
    """Return a path to the node that counts connections."""
    with FaultProxy(node.port) as proxy:
        yield proxy


def environment(path: FaultProxy, node: Server) -> dict[str, str]:
    """Return the environment of an agent."""
    return {**os.environ, "HALTLINE_URL": path.url, "HALTLINE_TOKEN": node.token, "PYTHONPATH": _search_path()}


def _search_path() -> str:
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))


def tell(path: FaultProxy, node: Server, module: str, *words: str, timeout: float = 50) -> Any:
    """Run a module of tests/support to its end, and return what it tells."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-m", f"tests.support.{module}", *words],
        cwd=ROOT,
        env=environment(path, node),
        stdout=subprocess.PIPE,
        check=True,
        timeout=timeout,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", ["os.fork", "fork"])
def test_a_forked_child_gets_a_lease_of_its_own(node: Server, path: FaultProxy, case: str) -> None:
    """It never passes on the inherited one, and its parent's connection stays as it was: two in all."""
    told = tell(path, node, "forking", case, "0")
    assert told["at_once"] == "not_ready"
    assert told["after"] == "go"
    assert told["took"] < SOON_S
    assert told["parent_stopped"] == 0
    assert path.counts["connections"] == 2


@pytest.mark.parametrize("case", ["spawn", "forkserver"])
def test_a_spawned_child_starts_from_nothing(node: Server, path: FaultProxy, case: str) -> None:
    """It has no run, which means stopped, until it makes its own; its parent's connection stays as it was."""
    told = tell(path, node, "forking", case, "0")
    assert told["at_once"] == "no_run"
    assert told["after"] == "go"
    assert told["took"] < SOON_S
    assert told["parent_stopped"] == 0
    assert path.counts["connections"] == 2


def test_forking_while_locks_are_held_never_deadlocks(node: Server, path: FaultProxy) -> None:
    """Forty times on a push: each child is live by a connection of its own, while its parent's goes on."""
    kill = node.kill("capability:frozen_tool")
    assert kill.status in (200, 201)
    told = tell(path, node, "forking", "many", str(FORKS), timeout=1_000 if NIGHTLY else 55)
    assert told["passed_at_once"] == 0
    assert told["live"] == FORKS
    assert told["took"] < SOON_S
    assert told["parent_stopped"] == 0
    assert path.counts["connections"] == FORKS + 1


def test_a_pool_of_forked_processes(node: Server, path: FaultProxy) -> None:
    """A ProcessPoolExecutor that was given work after the parent armed: the first task of each process stops first."""
    told = tell(path, node, "preforking", "pool")
    first: dict[int, dict[str, Any]] = {}
    for task in told:
        first.setdefault(task["pid"], task)
    assert all(task["pid"] != task["armed_by"] for task in told)
    assert {task["at_once"] for task in first.values()} == {"not_ready"}
    assert {task["after"] for task in told} == {"go"}
    assert max(task["took"] for task in first.values()) < SOON_S
    assert told[0]["parent_stopped"] == 0
    assert path.counts["connections"] == 1 + len(first)


@contextmanager
def preloaded(path: FaultProxy, node: Server) -> Iterator[int]:
    """Run gunicorn with ``--preload`` and two workers, and return its port."""
    port = free_port()
    gunicorn = subprocess.Popen(
        [
            Path(sys.executable).with_name("gunicorn"),
            *("--preload", "--workers=2", "--no-control-socket", f"--bind={LOOPBACK}:{port}", "--log-level=error"),
            "tests.support.preforking:application",
        ],
        cwd=ROOT,
        env=environment(path, node),
    )
    try:
        yield port
    finally:
        gunicorn.send_signal(signal.SIGTERM)
        try:
            gunicorn.wait(10)
        except subprocess.TimeoutExpired:
            gunicorn.kill()
            gunicorn.wait(5)


def ask(port: int, path: str = "/") -> dict[str, Any]:
    """Ask one of the workers."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=15)
    try:
        connection.request("GET", path)
        seen: dict[str, Any] = json.loads(connection.getresponse().read())
        return seen
    finally:
        connection.close()


def ask_both(port: int, path: str = "/") -> dict[int, dict[str, Any]]:
    """Return the first answer of each of two workers."""
    answers: dict[int, dict[str, Any]] = {}
    until = time.monotonic() + 20
    while len(answers) < 2:
        assert time.monotonic() < until, answers
        try:
            seen = ask(port, path)
        except OSError:
            time.sleep(0.05)  # it is starting
            continue
        answers.setdefault(seen["pid"], seen)
    return answers


def test_gunicorn_with_preload(node: Server, path: FaultProxy) -> None:
    """Its import armed a run: no worker passes on the master's lease, each gets its own, and a kill stops both."""
    with preloaded(path, node) as port:
        answers = ask_both(port)
        for seen in answers.values():
            assert seen["parent"] == seen["armed_by"] != seen["pid"]
            assert seen["at_once"] == "not_ready"
            assert seen["after"] == "go"
            assert seen["took"] < SOON_S
        assert path.counts["connections"] == 3, "the master keeps its own"
        killed = node.kill("run:r-1")
        effective_at = on_lease_clock(killed.members["effective_at"])
        while now() < effective_at:
            time.sleep(0.02)
        assert {seen["after"] for seen in ask_both(port, "/now").values()} == {"killed"}
