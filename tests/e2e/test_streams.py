"""Lease streams on a real server: told at once, handed over on the same connection, ended, and never in the way."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.serving import handovers
from tests.e2e.server import Server
from tests.support.ports import LOOPBACK

ASK: dict[str, Any] = {"stream": True, "worker": "w", "instance": "i", "epoch": None, "seq": 0, "hash": None}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a server that all tests share."""
    with Server(tmp_path_factory.mktemp("streams")) as started:
        yield started


class Reader:
    """One worker's connection: it asks for a stream, and again on the same connection when told to."""

    def __init__(self, server: Server, *, token: str | None = None) -> None:
        self._token = token if token is not None else server.token
        self.connection = server.connect()
        self.position: dict[str, Any] = {"epoch": None, "seq": 0, "hash": None}
        self.raw: list[bytes] = []
        self._asked = 0

    def ask(self) -> http.client.HTTPResponse:
        """Ask for a stream, going on from where this worker is."""
        self._asked += 1
        body = json.dumps({**ASK, **self.position, "nonce": f"{self._asked:032x}"})
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        self.connection.request("POST", "/v1/lease", body, headers)
        self.reply = self.connection.getresponse()
        return self.reply

    def frame(self) -> dict[str, Any] | None:
        """Return the next frame; None at the end of the stream."""
        line = self.reply.readline()
        if not line:
            return None
        assert line.endswith(b"}\n"), line
        self.raw.append(line)
        members = json.loads(line)
        assert isinstance(members, dict)
        if self.position["seq"] and "snapshot" not in members:
            # Contiguous: what this worker has, and each entry that it lacks.
            assert members["from"] <= self.position["seq"]
            missing = range(self.position["seq"] + 1, members["seq"] + 1)
            assert [each["seq"] for each in members["entries"] if each["seq"] in missing] == list(missing)
        self.position = {name: members[name] for name in ("epoch", "seq", "hash")}
        return members

    def until(self, seq: int) -> dict[str, Any]:
        """Return the first frame that reaches a position."""
        while True:
            frame = self.frame()
            if frame is None:  # its time was over
                assert self.ask().status == 200
            elif frame["seq"] >= seq:
                return frame

    def close(self) -> None:
        """Go away."""
        self.connection.close()


def opened(server: Server, stack: ExitStack) -> Reader:
    """Return a worker with an open stream."""
    reader = Reader(server)
    stack.callback(reader.close)
    assert reader.ask().status == 200
    assert reader.frame() is not None
    return reader


def metric(server: Server, name: str) -> float:
    """Return the value of a metric without labels."""
    found = re.search(rf"^{name} (\S+)$", server.call("GET", "/metrics").body.decode(), re.MULTILINE)
    assert found is not None
    return float(found[1])


def gone(server: Server) -> None:
    """Wait until the server counts no stream any more."""
    until = time.monotonic() + 12
    while metric(server, "haltline_streams") > 0:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_everybody_is_told_the_same(server: Server) -> None:
    """A kill reaches every stream in the frame after it, byte for byte the same."""
    with ExitStack() as stack:
        readers = [opened(server, stack) for _ in range(20)]
        seq = server.kill("run:r-1").members["seq"]
        for reader in readers:
            assert reader.until(seq)["entries"][-1]["target"] == "run:r-1"
        told = {line for reader in readers for line in reader.raw if b'"run:r-1"' in line and b"nonce" not in line}
        assert len(told) == 1


def test_a_stream_is_handed_over_without_a_gap(server: Server) -> None:
    """A stream ends after 6 to 9 s; the next one, on the same connection, goes on where it was while kills go on."""
    closing = threading.Event()

    def flip() -> None:
        number = 0
        while not closing.wait(0.05):
            number += 1
            assert server.kill(f"run:over-{number}").status == 201

    flipper = threading.Thread(target=flip)
    with ExitStack() as stack:
        readers = [opened(server, stack) for _ in range(5)]
        began = time.monotonic()
        flipper.start()
        try:
            for reader in readers:
                sock = reader.connection.sock
                while reader.frame() is not None:
                    pass
                assert 5.5 < time.monotonic() - began < 12
                assert reader.ask().status == 200
                assert reader.connection.sock is sock
                first = reader.frame()
                assert first is not None
                assert "snapshot" not in first
                assert first["nonce"] == f"{2:032x}"
        finally:
            closing.set()
            flipper.join(20)
    gone(server)


class Next:
    """A worker's connection, up to the end of its first stream; what it asks then is up to the test."""

    def __init__(self, server: Server, *, token: str | None = None) -> None:
        self.reader = Reader(server, token=token)
        assert self.reader.ask().status == 200
        self.first = self.reader.frame()
        assert self.first is not None
        while self.reader.frame() is not None:
            pass
        self.sock: socket.socket = self.reader.connection.sock

    def body(self, **members: Any) -> bytes:
        """Return the body of the next request."""
        return json.dumps({**ASK, **self.reader.position, "nonce": f"{2:032x}", **members}).encode()

    def answer(self) -> http.client.HTTPResponse:
        """Return the reply to what was sent on the connection itself."""
        reply = http.client.HTTPResponse(self.sock, method="POST")
        reply.begin()
        return reply


def asked_otherwise(end: Next, server: Server) -> None:
    """Another head: one more header, another token, one frame instead of a stream."""
    head = f"POST /v1/lease HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\n"
    body = end.body(stream=False)
    end.sock.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    reply = end.answer()
    assert (reply.status, json.loads(reply.read())["nonce"]) == (200, f"{2:032x}")
    assert end.reader.ask().status == 200
    assert end.reader.frame() is not None


def asked_for_the_last_time(server: Server) -> None:
    """A worker that says it will close has its connection closed when its stream ends."""
    body = json.dumps({**ASK, "nonce": f"{1:032x}"}).encode()
    head = f"POST /v1/lease HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\nConnection: close\r\n"
    with socket.create_connection((LOOPBACK, server.port), timeout=15) as sock:
        sock.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        data = b""
        began = time.monotonic()
        while piece := sock.recv(65_536):
            data += piece
            if data.endswith(b"\r\n0\r\n\r\n"):
                began = time.monotonic()
        assert data.endswith(b"\r\n0\r\n\r\n")
        assert time.monotonic() - began < handovers.PATIENCE_S / 2


def asked_badly(end: Next, _: Server) -> None:
    """The same head with a body that is none: told so, and the connection goes on."""
    seq, end.reader.position["seq"] = end.reader.position["seq"], -1
    refused = end.reader.ask()
    assert (refused.status, json.loads(refused.read())["code"]) == (422, "invalid_fields")
    end.reader.position["seq"] = seq
    assert end.reader.ask().status == 200


def asked_in_pieces(end: Next, server: Server) -> None:
    """A request that comes in two pieces is one."""
    body = end.body()
    head = f"POST /v1/lease HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\n"
    whole = f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    end.sock.sendall(whole[:50])
    time.sleep(0.1)
    end.sock.sendall(whole[50:])
    reply = end.answer()
    assert (reply.status, json.loads(reply.readline())["nonce"]) == (200, f"{2:032x}")


def asked_for_something_else(end: Next, _: Server) -> None:
    """Another request altogether is answered, and after it the stream that is asked for."""
    end.reader.connection.request("GET", "/livez")
    answer = end.reader.connection.getresponse()
    assert answer.status == 200
    answer.read()
    assert end.reader.ask().status == 200


def asked_twice(end: Next, server: Server) -> None:
    """Two requests in one piece are two: the second is answered after the stream of the first has ended."""
    body = end.body()
    head = f"POST /v1/lease HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\n"
    whole = f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    end.sock.sendall(whole + b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    reply = end.answer()
    assert reply.status == 200
    assert json.loads(reply.readline())["nonce"] == f"{2:032x}"


def asked_after_a_while(end: Next, _: Server) -> None:
    """A worker that takes a second to ask is answered all the same."""
    time.sleep(1)
    assert end.reader.ask().status == 200
    assert end.reader.connection.sock is end.sock
    told = end.reader.frame()
    assert told is not None
    assert told["nonce"] == f"{2:032x}"


def asked_with_a_revoked_token(end: Next, server: Server) -> None:
    """A token that was revoked between two streams opens no other."""
    token = end.reader._token  # noqa: SLF001 - the one that this reader alone has
    assert server.call("DELETE", f"/v1/tokens/{token.split('_')[2]}").status == 204
    assert end.reader.ask().status == 401


def test_whatever_is_asked_after_a_stream_is_answered(server: Server) -> None:
    """Between two streams a connection takes any request, in any pieces; each gets what it gets elsewhere."""
    ways = (
        asked_otherwise,
        asked_badly,
        asked_in_pieces,
        asked_for_something_else,
        asked_twice,
        asked_after_a_while,
        asked_with_a_revoked_token,
    )
    made = server.call("POST", "/v1/tokens", {"subject": "mailer", "role": "worker"}).members["token"]
    failed: list[str] = []

    def ask(way: Callable[[Next, Server], None]) -> None:
        end = Next(server, token=made if way is asked_with_a_revoked_token else None)
        try:
            way(end, server)
        except Exception as error:  # noqa: BLE001 - told by the test, which way it was, too
            failed.append(f"{way.__name__}: {error!r}")
        finally:
            end.reader.close()

    def ask_last() -> None:
        try:
            asked_for_the_last_time(server)
        except Exception as error:  # noqa: BLE001 - as above
            failed.append(f"asked_for_the_last_time: {error!r}")

    threads = [threading.Thread(target=ask, args=(way,)) for way in ways]
    threads.append(threading.Thread(target=ask_last))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert failed == []
    gone(server)


def test_a_stream_ends_with_its_token(server: Server) -> None:
    """A revoked token's stream ends at once; asking again on the same connection is answered 401."""
    made = server.call("POST", "/v1/tokens", {"subject": "mailer", "role": "worker"}).members
    reader = Reader(server, token=made["token"])
    assert reader.ask().status == 200
    assert reader.frame() is not None
    other = Reader(server)
    other.ask()
    assert server.call("DELETE", f"/v1/tokens/{made['token'].split('_')[2]}").status == 204
    began = time.monotonic()
    revoked = server.call("GET", "/v1/log?order=desc&limit=1").members["entries"][0]
    assert revoked["topic"] == "token_revoked"
    while (frame := reader.frame()) is not None:
        assert frame["seq"] < revoked["seq"]
        assert time.monotonic() - began < 5
    assert reader.ask().status == 401
    for _ in range(4):
        assert other.frame() is not None
    reader.close()
    other.close()


def test_one_that_does_not_read_costs_the_others_nothing(server: Server) -> None:
    """A client that takes nothing is closed in time, and the frames of others are not held up by it."""
    with ExitStack() as stack:
        lazy = socket.create_connection((LOOPBACK, server.port))
        stack.callback(lazy.close)
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        body = json.dumps({**ASK, "nonce": "f" * 32})
        head = f"POST /v1/lease HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\n"
        lazy.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        reader = opened(server, stack)
        for number in range(300):
            server.kill(f"run:lazy-{number}", reason="x" * 400)
        last = server.kill("run:lazy-last").members["seq"]
        reader.until(last)
    gone(server)


def test_those_that_go_away_leave_nothing(server: Server) -> None:
    """Streams whose clients vanish, in order or by a reset, are forgotten; nothing is left open."""
    before = server.worker.num_fds()
    for _ in range(3):
        with ExitStack() as stack:
            for number in range(20):
                reader = opened(server, stack)
                if number % 2:
                    linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
                    reader.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    gone(server)
    until = time.monotonic() + 10
    while server.worker.num_fds() > before + 3:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_stop_ends_streams_at_once(tmp_path: Path) -> None:
    """SIGTERM ends every stream in order, and the server with them, long before its grace is over."""
    with Server(tmp_path) as server, ExitStack() as stack:
        readers = [opened(server, stack) for _ in range(10)]
        began = time.monotonic()
        ended: list[float] = []

        def drain(reader: Reader) -> None:
            while reader.frame() is not None:
                pass
            ended.append(time.monotonic() - began)

        threads = [threading.Thread(target=drain, args=(reader,)) for reader in readers]
        for thread in threads:
            thread.start()
        assert server.end() == 0
        for thread in threads:
            thread.join(10)
        assert len(ended) == len(readers)
        assert max(ended) < 2.5


def test_the_cap_and_a_paused_node(tmp_path: Path) -> None:
    """Beyond the cap: 503, told to ask again. A node that was stopped for long goes on with frames of new reads."""
    with Server(tmp_path, more={"HALTLINE_STREAMS_MAX": "2"}) as server, ExitStack() as stack:
        readers = [opened(server, stack) for _ in range(2)]
        third = Reader(server)
        stack.callback(third.close)
        refused = third.ask()
        assert refused.status == 503
        assert refused.getheader("Retry-After") == "1"
        assert json.loads(refused.read())["code"] == "busy"
        worker: psutil.Process = server.worker
        worker.suspend()
        time.sleep(1.5)
        worker.resume()
        resumed_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) // 1_000
        for reader in readers:
            frame = reader.frame()
            while frame is not None and frame["read_at"] < resumed_us:
                frame = reader.frame()
            if frame is None:
                assert reader.ask().status == 200
                frame = reader.frame()
            assert frame is not None
            assert frame["read_at"] >= resumed_us
        assert server.kill("global").status == 201
