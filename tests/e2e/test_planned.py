"""Planned work over three processes and a real service: one plans, one carries out, and this one counts the effects."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.server import Server
from tests.support.planners import COUNT, DUE_S
from tests.support.ports import LOOPBACK

ROOT: Final = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(120)


class Sink:
    """Counts the effects that arrive, by run and kind."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._server = socket.create_server((LOOPBACK, 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._count, args=(connection,), daemon=True).start()

    def _count(self, connection: socket.socket) -> None:
        with connection, connection.makefile("r") as lines:
            for line in lines:
                with self._lock:
                    self.seen[line.strip()] += 1

    def close(self) -> None:
        """Take no more."""
        self._server.close()


@contextmanager
def process(server: Server, token: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run one of the processes; its stdin is closed on leaving."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("HALTLINE_")}
    variables = {**mine, "HALTLINE_URL": f"http://{LOOPBACK}:{server.port}", "HALTLINE_TOKEN": token}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.planners", *map(str, arguments)],
        cwd=ROOT,
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            yield running
        finally:
            assert running.stdin is not None
            running.stdin.close()
            try:
                running.wait(20)
            except subprocess.TimeoutExpired:
                running.kill()


def carried_out(worker: subprocess.Popen[str], stamps: list[str]) -> Counter[str]:
    """Give a worker stamps, and return what it says came of each."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    told: Counter[str] = Counter()
    for stamp in stamps:
        worker.stdin.write(f"{stamp}\n")
        worker.stdin.flush()
        told[worker.stdout.readline().strip()] += 1
    return told


def revive(server: Server, target: str, hold: int) -> None:
    """Release one hold."""
    flag = server.call("GET", f"/v1/flags/{target.replace(':', '/')}")
    order = {"target": target, "holds": [hold], "reason": "mended"}
    assert server.call("POST", "/v1/revives", order, headers={"If-Match": flag.headers["ETag"]}).status == 201


@pytest.mark.parametrize("queued", ["discard", "drain"])
def test_what_was_planned_before_a_kill(tmp_path: Path, queued: str) -> None:
    """100 stamps, timers and retries: none after a kill that discards, nor after its revive; all if it drains.

    A run beside it is not touched: all of its planned work is carried out.
    """
    with ExitStack() as stack:
        server = stack.enter_context(Server(tmp_path))
        made = server.call("POST", "/v1/tokens", {"subject": "plans", "role": "worker"})
        assert made.status == 201, made
        token = str(made.members["token"])
        sink = Sink()
        stack.callback(sink.close)
        planner = stack.enter_context(process(server, token, "plan", sink.port))
        worker = stack.enter_context(process(server, token, "work", sink.port))
        assert planner.stdout is not None
        stamps = json.loads(planner.stdout.readline())
        due = time.monotonic() + DUE_S

        killed = server.kill("tenant:acme", queued=queued)
        assert killed.status == 201, killed
        time.sleep(killed.members["effective_in_ms"] / 1000)
        assert time.monotonic() < due - 1, "the machine is too slow: what should be late was due before the kill"
        assert sink.seen == Counter()
        ours = {"done" if queued == "drain" else "discarded": COUNT}
        assert carried_out(worker, stamps["r-1"]) == ours
        assert carried_out(worker, stamps["r-2"]) == {"done": COUNT}

        end = time.monotonic() + 40
        complete = Counter({f"r-2 {kind}": COUNT for kind in ("stamp", "timer", "retry")})
        if queued == "drain":
            complete += Counter({f"r-1 {kind}": COUNT for kind in ("stamp", "timer", "retry")})
        while not sink.seen >= complete and time.monotonic() < end:
            time.sleep(0.1)
        revive(server, "tenant:acme", killed.members["seq"])
        assert carried_out(worker, stamps["r-1"]) == ours
        time.sleep(1)
        if queued == "drain":
            complete["r-1 stamp"] += COUNT
        assert sink.seen == complete
