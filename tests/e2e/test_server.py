"""The server as it is run: started, asked, killed and stopped for real."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from haltline.flips import Kill, Position, follow
from tests.e2e.server import TOKEN, Server, command
from tests.support.ports import LOOPBACK, free_port


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Yield a fresh server."""
    with Server(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield a server that the tests share which leave it as it was."""
    with Server(tmp_path_factory.mktemp("shared")) as running:
        yield running


def exported(server: Server) -> tuple[list[Kill], str]:
    """Return the kills of the whole log, its chain verified, and the head that the export names."""
    reply = server.call("GET", "/v1/log/export")
    assert reply.status == 200
    entries = list(follow((json.loads(line) for line in reply.body.splitlines()), after=Position()))
    end = entries[-1].position
    assert reply.headers["Haltline-Head"] == f"{end.seq}:{end.hash}"
    return [entry for entry in entries if isinstance(entry, Kill)], reply.headers["Haltline-Head"]


def test_the_first_start_prints_an_admin_token_once(tmp_path: Path) -> None:
    """The first start prints one admin token to standard output, a second start none, the journal never."""
    with Server(tmp_path) as server:
        assert len(TOKEN.findall(server.out)) == 1
        assert "haltline kill run r-42" in server.out
        assert server.call("GET", "/v1/flags").status == 200
    with Server(tmp_path, token=server.token) as again:
        assert len(TOKEN.findall(again.out)) == 1
        assert again.call("GET", "/v1/flags").status == 200
        assert TOKEN.findall(again.err) == []
    other = command(tmp_path, "serve", "--namespace", "staging", port=server.port)
    assert other.returncode == 2
    assert "staging" in other.stderr
    assert "Traceback" not in other.stderr


def test_the_first_start_on_postgresql(tmp_path: Path, postgres_url: str) -> None:
    """Where an admin may not kill, the first start says so, and prints the lines that make the tokens of who may."""
    with Server(tmp_path, more={"HALTLINE_DATABASE_URL": postgres_url}) as server:
        assert server.kill("run:r-1").status == 403
        assert "neither kill nor revive" in server.out
        line = next(line.split() for line in server.out.splitlines() if "--role operator" in line)
        assert line[:3] == ["haltline-server", "token", "create"]
        made = command(tmp_path, *line[1:], HALTLINE_DATABASE_URL=postgres_url)
        assert made.returncode == 0, made.stderr
        server.token = made.stdout.strip()
        assert server.kill("run:r-1").status == 201


def test_kill_replay_revive(shared: Server) -> None:
    """The life of a kill over one kept connection, and the chain that tells of it."""
    connection = shared.connect()
    body = {"target": "run:r-42", "reason": "why", "flip_id": "f-1"}
    first = shared.call("POST", "/v1/kills", body, over=connection)
    again = shared.call("POST", "/v1/kills", body, over=connection)
    assert (first.status, again.status) == (201, 200)
    flag = shared.call("GET", "/v1/flags/run/r-42", over=connection)
    assert flag.members["killed"]
    revived = shared.call(
        "POST",
        "/v1/revives",
        {"target": "run:r-42", "holds": [first.members["seq"]], "reason": "ok"},
        over=connection,
        headers={"If-Match": flag.headers["ETag"]},
    )
    assert revived.status == 201
    connection.close()
    kills, _ = exported(shared)
    assert [kill.flip_id for kill in kills].count("f-1") == 1


def test_a_frame_after_a_kill_holds_it(shared: Server) -> None:
    """Over the network too: the kill is in the frame asked for next."""
    body = {"stream": False, "nonce": "n" * 16, "worker": "w", "instance": "i", "epoch": None, "seq": 0, "hash": None}
    frame = shared.call("POST", "/v1/lease", body).members
    for number in range(10):
        killed = shared.kill(f"run:r-{number}").members
        reply = shared.call("POST", "/v1/lease", {**body, **{name: frame[name] for name in ("epoch", "seq", "hash")}})
        frame = reply.members
        assert reply.headers["Content-Type"] == "application/json"
        assert [entry["seq"] for entry in frame["entries"]] == [killed["seq"]]
        assert frame["read_at"] > frame["received_at"]


def test_sigterm_ends_it_cleanly_and_soon(server: Server) -> None:
    """SIGTERM ends the server within seconds with status 0, though a client keeps an idle connection open."""
    connection = server.connect()
    assert server.call("GET", "/livez", over=connection).status == 200
    worker = server.worker
    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(10) == 0
    assert time.monotonic() - began < 4
    assert not worker.is_running()
    connection.close()
    assert "Traceback" not in server.err


def test_sigterm_while_everybody_asks(server: Server) -> None:
    """SIGTERM amid requests on kept connections: replies are whole or absent, and the journal has no failure."""
    body = {"stream": False, "nonce": "n" * 16, "worker": "w", "instance": "i", "epoch": None, "seq": 0, "hash": None}
    answered: list[int] = []
    busy = threading.Barrier(25)

    def ask(lane: int) -> None:
        connection = server.connect()
        try:
            for number in range(1_000_000):
                path, sent = ("/v1/lease", body) if lane % 4 else ("/v1/kills", {"target": "run:r-1", "reason": "why"})
                answered.append(server.call("POST", path, sent, over=connection).status)
                if number == 5:
                    busy.wait(20)
        except (OSError, http.client.BadStatusLine, http.client.CannotSendRequest):
            return  # between two replies; a broken one would be IncompleteRead
        finally:
            connection.close()

    with ThreadPoolExecutor(24) as lanes:
        asking = [lanes.submit(ask, lane) for lane in range(24)]
        busy.wait(20)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0
        for each in asking:
            each.result(20)
    assert set(answered) <= {200, 201, 503}  # 503: on a busy machine the log may not be read in time
    levels = [json.loads(line).get("level") for line in server.err.splitlines()]
    assert not {"error", "critical"} & set(levels), server.err
    assert "Traceback" not in server.err


def test_sigterm_with_connections_in_every_state(server: Server) -> None:
    """Idle, amid a head, amid a body, amid a reply that nobody takes: no connection makes a stop fail or last."""
    for number in range(20):
        server.kill(f"run:r-{number}", reason="x" * 500)
    asked = b"GET /v1/log?limit=1000 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n" % server.token.encode()
    with ExitStack() as opened:
        for sent in (
            b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
            b"POST /v1/kills HTTP/1.1\r\nHost:",
            b"POST /v1/kills HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{",
            asked * 2_000,
        ):
            connection = opened.enter_context(socket.create_connection((LOOPBACK, server.port), timeout=10))
            connection.settimeout(0.5)
            with suppress(TimeoutError):
                connection.sendall(sent)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0
        assert time.monotonic() - began < 6
    levels = [json.loads(line).get("level") for line in server.err.splitlines()]
    assert not {"error", "critical"} & set(levels), server.err
    assert "Traceback" not in server.err


def test_a_worker_that_cannot_load_the_service_ends_the_server(server: Server) -> None:
    """If the database cannot be used when a worker starts, the server says so and ends with 2: it does not spin."""
    worker = server.worker
    server.process.send_signal(signal.SIGSTOP)
    worker.kill()
    while worker.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    (server.folder / "haltline.db").write_bytes(b"this is not a database" * 1_000)
    server.process.send_signal(signal.SIGCONT)
    assert server.process.wait(20) == 2
    assert server.err.count("haltline-server: ended, because the service could not be loaded") == 1
    assert "not a database" in server.err


def test_a_service_that_cannot_be_imported(tmp_path: Path) -> None:
    """A missing dependency ends the server at once with status 2, and it is named."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "flask.py").write_text("raise ImportError('flask is broken')\n", "utf-8")
    done = command(tmp_path, "serve", port=free_port(), PYTHONPATH=str(tmp_path / "broken"))
    assert done.returncode == 2
    assert "flask is broken" in done.stderr
    assert not (tmp_path / "haltline.db").exists()


def test_ctrl_c_ends_it(server: Server) -> None:
    """SIGINT ends the server within seconds with status 0."""
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(10) == 0


def test_a_port_in_use(shared: Server, tmp_path: Path) -> None:
    """A second server on the same port says so, ends at once with status 2, and makes no database."""
    other = tmp_path / "other"
    other.mkdir()
    done = command(other, "serve", port=shared.port)
    assert done.returncode == 2
    assert f"cannot listen on {LOOPBACK}:{shared.port}" in done.stderr
    assert "HALTLINE_BIND" in done.stderr
    assert list(other.iterdir()) == []


def test_a_database_in_use(shared: Server) -> None:
    """A second server on the same SQLite file says that it is in use and ends with status 2."""
    done = command(shared.folder, "serve", port=shared.port + 1)
    assert done.returncode == 2
    assert "haltline.db" in done.stderr
    assert "Traceback" not in done.stderr
    assert shared.call("GET", "/readyz").status == 200


@pytest.mark.parametrize("victim", ["worker", "all"])
def test_kill_9_loses_no_acknowledged_flip(tmp_path: Path, victim: str) -> None:
    """Killed without warning while flips rain in, the server comes back with every acknowledged one, in one chain."""
    acknowledged: list[str] = []
    enough, stop = threading.Event(), threading.Event()
    with Server(tmp_path) as server:

        def rain(lane: int) -> None:
            number = 0
            while not stop.is_set():
                flip_id = f"f-{lane}-{number}"
                try:
                    if server.kill(f"run:r-{lane}-{number % 7}", flip_id=flip_id).status == 201:
                        acknowledged.append(flip_id)
                        number += 1
                except (OSError, http.client.HTTPException):
                    time.sleep(0.02)
                if len(acknowledged) % 50 == 25:
                    enough.set()

        lanes = [threading.Thread(target=rain, args=(lane,)) for lane in range(3)]
        for lane in lanes:
            lane.start()
        for _ in range(2 if victim == "worker" else 1):
            assert enough.wait(20)
            if victim == "worker":
                server.worker.kill()
            else:
                children = [server.worker]
                server.process.kill()
                server.process.wait(5)
                for child in children:
                    child.wait(5)
                server.start()
            server.wait_ready()
            enough.clear()
        assert enough.wait(20)
        stop.set()
        for lane in lanes:
            lane.join(20)
        kills, _ = exported(server)
    seen = [kill.flip_id for kill in kills]
    assert len(seen) == len(set(seen))
    assert set(acknowledged) <= set(seen)
    assert len(acknowledged) > 25


def ended(connection: socket.socket, by: float) -> bytes:
    """Return what is still to be read of a connection; it must end by then."""
    got = b""
    with suppress(ConnectionError):
        while True:
            connection.settimeout(max(by - time.monotonic(), 0.01))
            data = connection.recv(65536)
            if not data:
                break
            got += data
    return got


def test_callers_without_a_token_keep_no_kill_out(shared: Server) -> None:
    """Six hundred of them hold heads and bodies back: a kill is answered at once, and all of theirs end by itself."""
    start = b"POST /v1/kills HTTP/1.1\r\nHost: x\r\n"
    half_body = start + b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    foreign = half_body.replace(b"Host", b"Authorization: Bearer hlt_x\r\nHost")
    with ExitStack() as opened:
        connections = []
        for number in range(600):
            connection = opened.enter_context(socket.create_connection((LOOPBACK, shared.port), timeout=10))
            connections.append(connection)
            with suppress(ConnectionError):
                connection.sendall(start if number % 2 else (half_body, foreign)[number % 4 // 2])
        began = time.monotonic()
        assert shared.kill("run:r-1").status in (200, 201)
        assert time.monotonic() - began < 2
        told = [ended(connection, began + 8) for connection in connections]
    answered = [got for got in told if got]
    assert len(answered) > 200
    for got in answered:
        assert got.startswith(b"HTTP/1.1 401")
        assert b"\r\nConnection: close\r\n" in got
    assert shared.call("GET", "/readyz").status == 200


def test_a_thousand_idle_callers_keep_no_kill_out(shared: Server) -> None:
    """As many as the worker serves at once, none of them saying anything."""
    with ExitStack() as opened:
        for _ in range(1_000):
            opened.enter_context(socket.create_connection((LOOPBACK, shared.port), timeout=10))
        began = time.monotonic()
        assert shared.kill("run:r-1").status in (200, 201)
        assert time.monotonic() - began < 2


def test_a_caller_with_a_token_may_take_its_time(shared: Server) -> None:
    """With a valid token a body may come seconds after the head, and the next request seconds after the reply."""
    body = json.dumps({"target": "run:r-slow", "reason": "why"}).encode()
    head = (
        f"POST /v1/kills HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {shared.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    with socket.create_connection((LOOPBACK, shared.port), timeout=10) as slow:
        for _ in range(2):
            slow.sendall(head)
            time.sleep(0.5)
            slow.sendall(body)
            assert slow.recv(65536).startswith(b"HTTP/1.1 201")
            time.sleep(2.5)


@pytest.mark.nightly
def test_slow_bodies_do_not_hold_it(shared: Server) -> None:
    """A body that drips is cut off with 408 after ten seconds, and the kill call does not wait meanwhile."""
    with socket.create_connection((LOOPBACK, shared.port), timeout=15) as slow:
        slow.sendall(
            b"POST /v1/kills HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n" % shared.token.encode()
            + b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
        )
        began = time.monotonic()
        assert shared.kill("run:r-1").status == 201
        assert time.monotonic() - began < 5
        answered = slow.recv(65536)
        assert 9 < time.monotonic() - began < 14
    assert answered.startswith(b"HTTP/1.1 408")
    assert b"urn:haltline:problem:body_timeout" in answered or b"application/problem+json" in answered


def test_large_and_chunked_bodies(shared: Server) -> None:
    """A chunked body works; one beyond 16 KiB is 413, announced or not; the server goes on."""
    body = json.dumps({"target": "run:r-1", "reason": "why"}).encode()
    for data, expected in ((body, 201), (body + b" " * 20_000, 413)):
        connection = shared.connect()
        connection.putrequest("POST", "/v1/kills")
        connection.putheader("Authorization", f"Bearer {shared.token}")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        connection.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))
        assert connection.getresponse().status == expected
        connection.close()
    reply = shared.call("POST", "/v1/kills", {"target": "run:r-1", "reason": "x" * 20_000})
    assert reply.status == 413
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert shared.kill("run:r-1").status == 201


def test_the_journal_is_json_without_secrets(server: Server) -> None:
    """Every line of the journal is a JSON object; flips and tokens are told there, secrets are not."""
    server.kill("run:r-1")
    server.call("GET", f"/v1/flags?token={server.token}")
    made = server.call("POST", "/v1/tokens", {"subject": "mailer", "role": "worker"}).members
    server.end()
    lines = [json.loads(line) for line in server.err.splitlines()]
    events = [line["event"] for line in lines]
    assert events[0] == "serving"
    assert "killed" in events
    assert "token_created" in events
    for secret in (server.token, made["token"]):
        assert secret[-49:-6] not in server.err
    assert made["token_id"] in server.err
