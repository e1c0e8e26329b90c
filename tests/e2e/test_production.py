"""The production example for real: two control lanes and two worker nodes, started from the files in config/production.

Only addresses and ports are other ones: PostgreSQL and Valkey come from wheels, and everything is on this machine.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
from redis import Redis

from app.domain.lanes import Lane
from app.storage.postgres_pools import LANES
from haltline import Killed, KillSwitch
from sample.api import Api
from sample.server import Server
from sample.servers.postgres import SERVICE, Postgres
from sample.servers.valkey import Valkey
from sample.streams import streams
from tests.support.ports import LOOPBACK, free_port
from tests.unit.production.files import PRODUCTION, env_file

HALTLINE: Final = Path(sys.executable).with_name("haltline")
CHANNEL: Final = "haltline:default:doorbell"
PASSWORD: Final = "of-the-doorbell"
PATIENCE_S: Final = 20.0
pytestmark = pytest.mark.timeout(120)  # six servers are started, on a machine that does much else

SESSIONS: Final = {lane: sum(astuple(LANES[lane])) for lane in (Lane.CONTROL, Lane.WORKER)}
"""How many database sessions each may hold at most."""


@dataclass(frozen=True)
class Topology:
    """What runs."""

    postgres: Postgres
    valkey: Valkey
    control: list[Server]
    nodes: list[Server]
    api: Api
    notified: socket.socket

    def token(self, role: str) -> str:
        """Return a fresh token."""
        return self.api.issue(f"a-{role}", role)[1]


def clean() -> dict[str, str]:
    """Return this environment without settings of Haltline."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HALTLINE_")}


def settings(lane: str, postgres: Postgres, valkey: Valkey) -> dict[str, str]:
    """Return the environment of a lane as its file has it, with the addresses of this machine."""
    here = {"HALTLINE_DATABASE_URL": postgres.url("haltline", user=SERVICE), "HALTLINE_REDIS_URL": valkey.url}
    filed = env_file(PRODUCTION / f"{lane}.env")
    assert here.keys() <= filed.keys()
    return clean() | filed | here


def restrict(valkey: Valkey) -> None:
    """Give the doorbell's user the rights of valkey.acl, and no others."""
    words = next(
        line for line in (PRODUCTION / "valkey.acl").read_text().splitlines() if line.startswith("user haltline")
    )
    with contextlib.closing(Redis.from_url(valkey.admin_url)) as admin:
        admin.execute_command("ACL", "SETUSER", "haltline", "reset", "on", f">{PASSWORD}", *words.split()[4:])


@pytest.fixture(scope="module")
def topology(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topology]:
    """All of it, ready."""
    folder = tmp_path_factory.mktemp("production")
    with contextlib.ExitStack() as kept:
        postgres = kept.enter_context(Postgres())
        postgres.make_database("haltline")
        migrate = {**clean(), "HALTLINE_DATABASE_URL": postgres.url("haltline")}
        subprocess.run([HALTLINE.with_name("haltline-server"), "migrate"], env=migrate, check=True, timeout=30)
        postgres.grant_roles("haltline")
        valkey = kept.enter_context(Valkey(user="haltline", password=PASSWORD, channels=CHANNEL))
        restrict(valkey)
        notified = kept.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        told = f"haltline-test-{os.getpid()}-{free_port()}"
        notified.bind(f"\0{told}")  # a name in the abstract namespace, which is written with an @ (unix(7))
        lanes: dict[str, list[Server]] = {}
        for lane in (Lane.CONTROL, Lane.WORKER):
            environment = settings(lane, postgres, valkey) | {"NOTIFY_SOCKET": f"@{told}"}
            lanes[lane] = [
                Server(f"{lane} {number}", environment, port=free_port(), log=folder / f"{lane}-{number}.log")
                for number in (1, 2)
            ]
        first = lanes["control"][0]
        everyone = [*lanes["control"], *lanes["worker"]]
        kept.callback(end, everyone)
        first.begin()
        first.wait_until_ready()
        for server in everyone[1:]:
            server.begin()
        for server in everyone[1:]:
            server.wait_until_ready()
        api = Api([each.port for each in lanes["control"]], first.token())
        yield Topology(postgres, valkey, lanes["control"], lanes["worker"], api, notified)


def end(servers: list[Server]) -> None:
    """End servers, all at once."""
    for server in servers:
        server.tell()
    for server in servers:
        server.stop()


def addresses(servers: list[Server]) -> str:
    """Return what HALTLINE_URL is set to."""
    return ",".join(each.url for each in servers)


def typed(url: str, token: str, *words: str, **more: str) -> dict[str, Any]:
    """Run ``haltline`` and return what it answered."""
    done = subprocess.run(
        [HALTLINE, *words, "--json"],
        env={**clean(), "HALTLINE_URL": url, "HALTLINE_TOKEN": token, **more},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout.splitlines()[0]))


def asked(server: Server, method: str, path: str) -> tuple[int, dict[str, Any]]:
    """Ask one server directly."""
    connection = http.client.HTTPConnection(LOOPBACK, server.port, timeout=10)
    with contextlib.closing(connection):
        connection.request(method, path, "{}", {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def halted(switch: KillSwitch, run: str) -> bool:
    """Return whether a fresh run of an id is refused because it is killed, and not for want of a lease."""
    try:
        with switch.run(run) as entered:
            until = time.monotonic() + PATIENCE_S
            while time.monotonic() < until:
                entered.wait(timeout=PATIENCE_S)
                time.sleep(0.005)
    except Killed:
        return True
    return False


def test_the_service_manager_is_told(topology: Topology) -> None:
    """A unit of Type=notify is up once the server says so: it sends READY=1 to the socket that it was given."""
    topology.notified.settimeout(PATIENCE_S)
    said = topology.notified.recv(4096).decode()
    assert "READY=1" in said.splitlines()


def test_each_lane_has_its_own_routes(topology: Topology) -> None:
    """A control lane grants no lease and a worker node takes no kill; each says which lane does."""
    for server, path in ((topology.control[0], "/v1/lease"), (topology.nodes[0], "/v1/kills")):
        status, problem = asked(server, "POST", path)
        assert (status, problem["code"]) == (404, "wrong_lane")


def test_every_lane_hears_the_doorbell(topology: Topology) -> None:
    """With the rights of valkey.acl all four listen on the channel of the namespace, and may do nothing else."""
    with contextlib.closing(Redis.from_url(topology.valkey.admin_url)) as admin:
        until = time.monotonic() + PATIENCE_S
        while (heard_by := dict(admin.pubsub_numsub(CHANNEL))[CHANNEL.encode()]) < 4 and time.monotonic() < until:
            time.sleep(0.05)
    assert heard_by == 4


def test_database_sessions(topology: Topology) -> None:
    """All lanes together hold no more sessions than postgresql.conf counts for them, in its words."""
    words = (PRODUCTION / "postgresql.conf").read_text(encoding="utf-8")
    assert f"{SESSIONS[Lane.CONTROL]} for each control lane and {SESSIONS[Lane.WORKER]} for each worker node" in words
    with topology.postgres.connect("haltline") as connection:
        row = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", (SERVICE,)).fetchone()
    assert row is not None
    assert 0 < row[0] <= 2 * sum(SESSIONS.values())


@pytest.mark.parametrize("balancer", ["haproxy", "nginx"])
def test_through_a_balancer(topology: Topology, tmp_path: Path, balancer: str) -> None:
    """Through the balancer, over TLS, a worker has its stream, a kill is answered, and the worker is halted by it."""
    program = shutil.which(balancer) or shutil.which(balancer, path="/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip(f"{balancer} is not installed: its recipe is checked by its words only")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = ca.issue_cert("localhost", LOOPBACK)
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "tls.pem")
    issued.private_key_pem.write_to_path(tmp_path / "tls.key")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "tls.crt")
    fronts = {"8787": free_port(), "8788": free_port()}
    name = {"haproxy": "haproxy.cfg", "nginx": "nginx.conf"}[balancer]
    (tmp_path / name).write_text(recipe(PRODUCTION / name, topology, fronts, tmp_path), encoding="utf-8")
    arguments = {
        "haproxy": ["-f", str(tmp_path / name)],
        "nginx": ["-p", str(tmp_path), "-e", "stderr", "-c", str(tmp_path / name), "-g", "daemon off; pid n.pid;"],
    }[balancer]
    with subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            through(topology, fronts, str(tmp_path / "ca.pem"), balancer)
        finally:
            process.terminate()
            said = process.communicate(timeout=20)[1]
    assert process.returncode in {0, -15, 143}, said.decode()


def through(topology: Topology, fronts: dict[str, int], ca: str, run: str) -> None:
    """Kill a run through a balancer, while a worker asks through it."""
    control, worker = (f"https://localhost:{port}" for port in fronts.values())
    operator = topology.token("operator")
    with KillSwitch(worker, token=topology.token("worker"), ca=ca) as switch:
        assert switch.ensure(PATIENCE_S), switch.trouble
        assert sum(streams(each.port) for each in topology.nodes) > 0
        typed(control, operator, "kill", "run", run, "--reason", "why", HALTLINE_CA=ca)
        assert halted(switch, run)


def recipe(path: Path, topology: Topology, fronts: dict[str, int], folder: Path) -> str:
    """Return a balancer's configuration with the ports and files of this test."""
    text = path.read_text(encoding="utf-8").replace("/etc/haltline", str(folder))
    text = text.replace("maxconn 22000", "maxconn 100")  # it does not start where it may open fewer files than that
    for lane, servers in (("control", topology.control), ("worker", topology.nodes)):
        for number, server in enumerate(servers, 1):
            text = re.sub(rf"{lane}-{number}:\d+", f"{LOOPBACK}:{server.port}", text)
    text = re.sub(r"(bind :|listen )(8787|8788)", lambda found: f"{found[1]}{fronts[found[2]]}", text)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "".join(f"    {kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    return text.replace("http {\n", f"http {{\n{folders}")


def test_a_kill_by_the_other_control_lane(topology: Topology, tmp_path: Path) -> None:
    """With the first control lane and the first node gone, a kill is answered once, and a worker is halted by it.

    The last test: they stay away.
    """
    operator, worker = topology.token("operator"), topology.token("worker")
    with KillSwitch(addresses(topology.nodes), token=worker) as switch:
        assert switch.ensure(PATIENCE_S)
        end([topology.control[0], topology.nodes[0]])
        killed = typed(addresses(topology.control), operator, "kill", "run", "r-1", "--reason", "why")
        assert killed["target"] == "run:r-1"
        assert halted(switch, "r-1")
    flips = [
        entry
        for entry in log(topology, tmp_path / "log.jsonl")
        if entry["kind"] == "kill" and entry["target"] == "run:r-1"
    ]
    assert [entry["seq"] for entry in flips] == [killed["seq"]]


def log(topology: Topology, path: Path) -> list[dict[str, Any]]:
    """Return the entries of the log, exported to a file."""
    typed(addresses(topology.control), topology.token("observer"), "export", "--output", str(path))
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
