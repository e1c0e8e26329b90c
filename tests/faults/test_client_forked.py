"""A forked child has no permission until it is granted its own, and forking never deadlocks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from haltline.testing import FakeService
from tests.support.counts import NIGHTLY
from tests.support.fault_server import FaultServer

FORKS: Final = 1_000 if NIGHTLY else 50


@pytest.fixture
def server() -> Iterator[FaultServer]:
    """Return a server that grants leases of 2 s, so that an inherited one would still be running."""
    with FaultServer(FakeService(ttl_ms=2_000)) as running:
        yield running


def tell(server: FaultServer, case: str, count: int = 0, *, timeout: float = 30) -> dict[str, Any]:
    """Run a case in a process of its own, and return what it tells."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "tests.support.forking", case, str(count)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "HALTLINE_URL": server.url, "HALTLINE_TOKEN": server.service.token},
        stdout=subprocess.PIPE,
        check=True,
        timeout=timeout,
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.parametrize("case", ["os.fork", "fork"])
def test_a_forked_child_waits_for_its_own_lease(server: FaultServer, case: str) -> None:
    """It inherits run and context, but never passes on the parent's lease; the parent is not disturbed."""
    told = tell(server, case)
    assert told["at_once"] == "not_ready"
    assert told["current"] is True
    assert told["after"] == "go"
    assert told["took"] < 2
    assert told["parent_stopped"] == 0


@pytest.mark.parametrize("case", ["spawn", "forkserver"])
def test_a_spawned_child_starts_from_nothing(server: FaultServer, case: str) -> None:
    """It has no current run, which means stopped, until it makes its own switch."""
    told = tell(server, case)
    assert told["at_once"] == "no_run"
    assert told["after"] == "go"
    assert told["took"] < 2
    assert told["parent_stopped"] == 0


@pytest.mark.timeout(1_200 if NIGHTLY else 60)
def test_forking_while_the_refresher_is_busy_never_deadlocks(server: FaultServer) -> None:
    """Fifty times on a push, a thousand at night: every child is live within 2 s, none passes before."""
    server.service.kill("capability:frozen_tool")
    told = tell(server, "many", FORKS, timeout=1_000 if NIGHTLY else 50)
    assert told["passed_at_once"] == 0
    assert told["live"] == FORKS
    assert told["took"] < 2
    assert told["parent_stopped"] == 0


def test_a_child_of_a_killed_run_is_killed(server: FaultServer) -> None:
    """What the parent knew of kills is kept: the child needs no lease to know that it must stop."""
    assert tell(server, "killed") == {"at_once": "killed"}


def test_a_child_asks_in_its_own_name(server: FaultServer) -> None:
    """Its default worker name has its own process id, and its instance is another: its acks are not its parent's."""
    told = tell(server, "identity")
    assert told["child"][0].endswith(f".{told['pid']}")
    assert told["child"][0] != told["parent"][0]
    assert told["child"][1] != told["parent"][1]
