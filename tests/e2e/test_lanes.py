"""Control lanes and worker nodes as processes of their own: any control lane takes a kill, every node heeds it."""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from haltline import Halt, Killed, KillSwitch, Run, Unverified
from tests.e2e.server import Reply, Server, command
from tests.support.fleet import Fleet, crash, eventually, url
from tests.support.postgres import SERVICE, PostgresServer
from tests.support.valkey import Valkey

TTL_S: Final = 3.0
READ_S: Final = TTL_S / 8
"""How long a node that nobody rings for is late with a flip at most, twice the mean."""


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    """Yield the Redis between the nodes."""
    with Valkey(user="haltline") as running:
        yield running


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer, postgres_template: str, valkey: Valkey
) -> Iterator[Fleet]:
    """Yield a fleet that the tests of this file share; started all at once on an empty log."""
    database = postgres_server.create_database(template=postgres_template)
    settings = {"HALTLINE_REDIS_URL": valkey.url, "HALTLINE_TTL_MS": str(round(TTL_S * 1000))}
    address = postgres_server.url(database, user=SERVICE)
    with Fleet(tmp_path_factory.mktemp("fleet"), address, together=(2, 2), **settings) as running:
        yield running
    postgres_server.drop_database(database)


def kill(fleet: Fleet, target: str, *, at: int = 0) -> Reply:
    """Kill at one of the control lanes."""
    return fleet.control[at].kill(target)


def node_urls(fleet: Fleet) -> list[str]:
    """Return the addresses of the worker lanes."""
    return [url(node) for node in fleet.workers]


def log_seq(server: Server) -> int:
    """Return how far a node has read, as it tells itself; asking does not have it read."""
    for line in server.call("GET", "/metrics").body.decode().splitlines():
        if line.startswith("haltline_log_seq "):
            return int(float(line.split()[1]))
    raise AssertionError("a node tells how far it has read")


def lease(server: Server, token: str) -> int:
    """Ask for one frame, and return the status of the reply."""
    body = {"stream": False, "nonce": "0123456789abcdef", "worker": "w", "instance": "i"}
    known = {"epoch": None, "seq": 0, "hash": None}
    return server.call("POST", "/v1/lease", {**body, **known}, headers={"Authorization": f"Bearer {token}"}).status


def halt_of(run: Run) -> Halt | None:
    """Return what stops a run; None if nothing does for three ttl."""
    until = time.monotonic() + 3 * TTL_S
    while time.monotonic() < until:
        try:
            run.check()
        except Halt as halt:
            return halt
        time.sleep(0.001)
    return None


def test_all_at_once_on_an_empty_database(shared: Fleet) -> None:
    """Four processes that start together on an empty database serve one log, begun once; workers print no token."""
    reply = shared.control[1].call("GET", "/v1/log?limit=100")
    topics = [entry.get("topic") for entry in reply.members["entries"]]
    assert topics.count("log_opened") == 1
    assert topics[0] == "log_opened"
    assert all("hlt_" not in node.out for node in shared.workers)


@pytest.mark.parametrize("at", [0, 1])
def test_a_kill_at_either_control_lane_stops_workers_of_either_node(shared: Fleet, at: int) -> None:
    """A kill at one control lane halts a worker at each node, long before the ttl."""
    token, _ = shared.issue("worker", f"mailer-{at}")
    here, there = node_urls(shared)
    with (
        KillSwitch([here, there], token=token) as one,
        KillSwitch(f"{there},{here}", token=token) as other,
        one.run(f"r-{at}", timeout=10) as left,
        other.run(f"r-{at}", timeout=10) as right,
    ):
        left.check()
        right.check()
        began = time.monotonic()
        assert kill(shared, f"run:r-{at}", at=at).status == 201
        assert isinstance(halt_of(left), Killed)
        assert isinstance(halt_of(right), Killed)
        assert time.monotonic() - began < TTL_S


def test_a_flip_rings_at_every_node(shared: Fleet) -> None:
    """Through Redis a flip reaches all other processes sooner than they would have looked by themselves."""
    late = []
    for n in range(6):
        seq = kill(shared, f"run:ring-{n}", at=n % 2).members["seq"]
        began = time.monotonic()
        others = [shared.control[1 - n % 2], *shared.workers]
        assert eventually(lambda: all(log_seq(server) >= seq for server in others), TTL_S)  # noqa: B023 - called here
        late.append(time.monotonic() - began)
    assert statistics.median(late) < READ_S / 2, late


def test_without_redis_flips_are_read_all_the_same(shared: Fleet, valkey: Valkey) -> None:
    """Redis frozen: kills take no longer, and every node reads them within the ttl."""
    with valkey.frozen():
        began = time.monotonic()
        seqs = [kill(shared, f"run:frozen-{n}").members["seq"] for n in range(5)]
        assert time.monotonic() - began < TTL_S
        assert all(eventually(lambda node=node: log_seq(node) >= seqs[-1], TTL_S) for node in shared.workers)  # type: ignore[misc]


def test_routes_stand_at_their_lane(shared: Fleet) -> None:
    """A kill sent to a worker node and a lease asked of a control lane are refused, and told where to go."""
    refused = shared.workers[0].kill("run:r-1")
    assert (refused.status, refused.members["code"], refused.members["lane"]) == (404, "wrong_lane", "control")
    token, _ = shared.issue("worker", "lost")
    assert lease(shared.control[0], token) == 404
    assert lease(shared.workers[0], token) == 200
    for server in (*shared.control, *shared.workers):
        assert server.call("GET", "/readyz").status == 200


def test_a_revoked_token_ends_leases_at_the_nodes(shared: Fleet) -> None:
    """A token revoked at a control lane gets no lease at any node, and its workers stop within the ttl."""
    token, token_id = shared.issue("worker", "leaver")
    with KillSwitch(node_urls(shared), token=token) as switch, switch.run("r-leaver", timeout=10) as run:
        run.check()
        admin = {"Authorization": f"Bearer {shared.admin}"}
        assert shared.control[1].call("DELETE", f"/v1/tokens/{token_id}", headers=admin).status == 204
        began = time.monotonic()
        assert isinstance(halt_of(run), Unverified)
        assert time.monotonic() - began < TTL_S
    assert [lease(node, token) for node in shared.workers] == [401, 401]


def test_a_busy_worker_lane_does_not_delay_a_kill(shared: Fleet) -> None:
    """While both nodes are asked for leases without a pause, every kill is taken, soon."""
    token, _ = shared.issue("worker", "busy")
    over = threading.Event()
    answered: list[int] = []

    def ask(node: Server) -> None:
        while not over.is_set():
            answered.append(lease(node, token))

    asking = [threading.Thread(target=ask, args=(node,)) for node in shared.workers * 4]
    for thread in asking:
        thread.start()
    took = []
    for n in range(10):
        began = time.monotonic()
        assert kill(shared, f"run:busy-{n}", at=n % 2).status == 201
        took.append(time.monotonic() - began)
    over.set()
    for thread in asking:
        thread.join(10)
    assert 200 in answered
    assert statistics.median(took) < 0.5, took


def test_a_control_lane_killed_is_no_loss(shared: Fleet, tmp_path: Path) -> None:
    """With one control lane killed -9, the command line, given both addresses, kills at the other; workers stop."""
    token, _ = shared.issue("worker", "survivor")
    with KillSwitch(node_urls(shared), token=token) as switch, switch.run("r-crash", timeout=10) as run:
        run.check()
        crash(shared.control[0])
        try:
            done = subprocess.run(
                [Path(sys.executable).with_name("haltline"), "kill", "run", "r-crash", "--reason", "why"],
                cwd=tmp_path,
                env={
                    "HOME": str(tmp_path),
                    "HALTLINE_URL": f"{url(shared.control[0])},{url(shared.control[1])}",
                    "HALTLINE_TOKEN": shared.operator,
                },
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert isinstance(halt_of(run), Killed)
        finally:
            shared.control[0].start()
            shared.control[0].token = shared.operator
    assert kill(shared, "run:again", at=0).status == 201


def test_a_database_that_was_not_migrated(tmp_path: Path, postgres_server: PostgresServer) -> None:
    """Either lane refuses to start on a database without tables, and says what to run first."""
    database = postgres_server.create_database()
    for lane in ("control", "worker"):
        done = command(
            tmp_path,
            "serve",
            "--lane",
            lane,
            HALTLINE_DATABASE_URL=postgres_server.url(database),
            HALTLINE_REDIS_URL="",
        )
        assert done.returncode == 2
        assert "run `haltline-server migrate`" in done.stderr
    postgres_server.drop_database(database)


def test_sqlite_has_no_lanes(tmp_path: Path) -> None:
    """An SQLite file is one process's: either lane alone is refused, with what to do."""
    for lane in ("control", "worker"):
        done = command(tmp_path, "serve", "--lane", lane)
        assert done.returncode == 2
        assert "set it to all, or use PostgreSQL" in done.stderr
