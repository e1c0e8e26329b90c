"""A fan-out over three processes, stopped by one kill of its root; a process of its own counts the effects."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.server import Server
from tests.support.ports import LOOPBACK

ROOT: Final = Path(__file__).parents[2]
TTL_S: Final = 3.0
SHARES: Final = (17, 16, 17)  # 50 in all
"""How many children the process of the root has, the one below it, and the one that is called."""

pytestmark = pytest.mark.timeout(180)


@contextmanager
def branch(server: Server, *arguments: object) -> Iterator[int]:
    """Run one process of the tree, and yield the port that it says."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("HALTLINE_")}
    variables = {**mine, "HALTLINE_URL": f"http://{LOOPBACK}:{server.port}", "HALTLINE_TOKEN": server.token}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.branches", *map(str, arguments)],
        cwd=ROOT,
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said, f"{arguments[0]} ended with {process.wait(10)}"
            yield int(said)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


class Counted:
    """What the sink has written down so far."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def effects(self, root: str, *, after: float = 0.0) -> Counter[str]:
        """Return how many effects of each run of a tree came after a moment, seconds of the wall clock."""
        return Counter(run for at, what, run, *_ in self._lines() if what == "effect" and of(run, root) and at > after)

    def stops(self) -> dict[str, str]:
        """Return why each run has stopped."""
        return {run: more[0] for _, what, run, *more in self._lines() if what == "stop"}

    def _lines(self) -> Iterator[tuple[float, str, str, *tuple[str, ...]]]:
        for line in self._file.read_text("utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                at, what, run, *more = line.split()
                yield (int(at) / 1e9, what, run, *more)


def of(run: str, root: str) -> bool:
    """Return whether a run is in the tree of a root, by its id."""
    return run.startswith(f"{root}.")


def until(holds: Callable[[], bool], what: str, within_s: float = 40) -> None:
    """Wait until something holds."""
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, f"not within {within_s} s: {what}"
        time.sleep(0.1)


def test_one_kill_stops_a_fan_out(tmp_path: Path) -> None:
    """50 children in 3 processes, reached by environment and by header: none has an effect after effective_at.

    A sibling run in the same three processes goes on, and a revive brings none of the 50 back.
    """
    file = tmp_path / "sink"
    counted = Counted(file)
    with ExitStack() as stack:
        server = stack.enter_context(Server(tmp_path, {"HALTLINE_TTL_MS": str(round(TTL_S * 1000))}))
        operator = server.token
        worker = server.call("POST", "/v1/tokens", {"subject": "tree", "role": "worker"})
        assert worker.status == 201, worker
        server.token = str(worker.members["token"])
        sink = stack.enter_context(branch(server, "sink", file))
        far = stack.enter_context(branch(server, "far", sink, SHARES[2]))
        stack.enter_context(branch(server, "root", sink, SHARES[0], far, SHARES[1]))
        server.token = operator
        until(lambda: len(counted.effects("r-1")) == 50 and len(counted.effects("r-2")) == 3, "all at work")

        killed = server.kill("run:r-1")
        assert killed.status == 201, killed
        effective_at = datetime.fromisoformat(killed.members["effective_at"]).timestamp()
        until(lambda: len(counted.stops()) == 50, "all stopped")
        until(lambda: len(counted.effects("r-2", after=effective_at + 1)) == 3, "the sibling goes on everywhere")
        assert set(counted.stops().values()) == {"killed"}
        assert counted.effects("r-1", after=effective_at) == Counter()

        flag = server.call("GET", "/v1/flags/run/r-1")
        order = {"target": "run:r-1", "holds": [killed.members["seq"]], "reason": "mended"}
        assert server.call("POST", "/v1/revives", order, headers={"If-Match": flag.headers["ETag"]}).status == 201
        revived = time.time()
        until(lambda: len(counted.effects("r-2", after=revived + 1)) == 3, "the sibling still goes on")
        assert counted.effects("r-1", after=effective_at) == Counter()
        assert all(of(run, "r-1") for run in counted.stops())
