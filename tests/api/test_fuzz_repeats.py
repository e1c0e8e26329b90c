"""Repeated and redirected kills: one flip however often it is sent, and no success for one that never arrived."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest
from werkzeug.test import Client

from haltline.flips import Kill
from tests.e2e.server import Server
from tests.support.fuzz_service import Fuzzed, fuzzed
from tests.support.ports import LOOPBACK, free_port

THREADS: Final = 16
BODY: Final = {"target": "run:r-42", "reason": "why", "flip_id": "f-1"}
CURL: Final = shutil.which("curl")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Fuzzed]:
    """Yield a service with an empty log."""
    with fuzzed(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield a running server."""
    with Server(tmp_path_factory.mktemp("repeats")) as running:
        yield running


def kills(service: Fuzzed) -> list[Kill]:
    """Return the kills of the log."""
    return [entry for entry in service.exported() if isinstance(entry, Kill)]


def test_a_repeated_kill_is_one(service: Fuzzed) -> None:
    """The same kill again is answered 200 with the same seq, however often, and writes nothing."""
    first = service.call("POST", "/v1/kills", BODY)
    assert first.status == 201
    for _ in range(20):
        again = service.call("POST", "/v1/kills", BODY)
        assert again.status == 200
        for name in ("seq", "flip_id", "target", "hash", "etag", "epoch", "holds"):
            assert again.members[name] == first.members[name]
        assert again.headers["Location"] == first.headers["Location"] == f"/v1/log/{first.members['seq']}"
    assert len(kills(service)) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"target": "run:R-42"},
        {"target": "global"},
        {"target": "tenant:r-42"},
        {"reason": "Why"},
        {"reason": "why "},
        {"reason": "wh\u0443"},
    ],
    ids=str,
)
def test_another_kill_under_the_same_flip_id(service: Fuzzed, change: dict[str, str]) -> None:
    """A flip_id belongs to one flip: any other content under it is 409, and kills nothing."""
    assert service.call("POST", "/v1/kills", BODY).status == 201
    refused = service.call("POST", "/v1/kills", {**BODY, **change})
    assert (refused.status, refused.members["code"]) == (409, "flip_id_taken")
    assert len(kills(service)) == 1


def test_kills_without_a_flip_id_are_different(service: Fuzzed) -> None:
    """Who names no flip_id kills anew each time, under a flip_id that nobody else has."""
    body = {"target": "run:r-42", "reason": "why"}
    replies = [service.call("POST", "/v1/kills", body) for _ in range(10)]
    assert {reply.status for reply in replies} == {201}
    assert len({reply.members["flip_id"] for reply in replies}) == len(kills(service)) == 10


@pytest.mark.parametrize("_round", range(3))
def test_a_kill_repeated_at_once(service: Fuzzed, _round: int) -> None:
    """Sixteen threads send the same kill in the same moment: one writes it, all are told of the same one."""
    together = threading.Barrier(THREADS)
    headers = {"Authorization": f"Bearer {service.tokens['admin']}", "Content-Type": "application/json"}

    def send(_: int) -> tuple[int, dict[str, Any]]:
        client = Client(service.app)
        together.wait(20)
        with client.post("/v1/kills", data=json.dumps(BODY), headers=headers) as response:
            return response.status_code, json.loads(response.get_data())

    with ThreadPoolExecutor(THREADS) as pool:
        replies = list(pool.map(send, range(THREADS)))
    assert sorted(status for status, _ in replies) == [200] * (THREADS - 1) + [201]
    assert len({members["seq"] for _, members in replies}) == 1
    assert len({members["hash"] for _, members in replies}) == 1
    assert len(kills(service)) == 1


def test_a_kill_repeated_at_once_over_the_network(server: Server) -> None:
    """The same sixteen at a real server: one entry."""
    together = threading.Barrier(THREADS)

    def send(_: int) -> tuple[int, int]:
        together.wait(20)
        reply = server.kill("run:network", flip_id="f-network")
        return reply.status, reply.members["seq"]

    with ThreadPoolExecutor(THREADS) as pool:
        replies = list(pool.map(send, range(THREADS)))
    assert sorted(status for status, _ in replies) == [200] * (THREADS - 1) + [201]
    assert len({seq for _, seq in replies}) == 1
    entries = server.call("GET", "/v1/log?target=run:network").members["entries"]
    assert [entry["flip_id"] for entry in entries] == ["f-network"]


IF_MATCHES: Final = {
    "missing": (None, 428),
    "any": ("*", 428),
    "any, spaces": (" * ", 428),
    "empty": ("", 400),
    "unquoted": ("{epoch}.{version}", 400),
    "unterminated": ('"{epoch}.{version}', 400),
    "single quotes": ("'{epoch}.{version}'", 400),
    "the version alone": ("{version}", 400),
    "a star in a list": ('*, "{epoch}.{version}"', 400),
    "a comma at the end": ('"{epoch}.{version}",', 400),
    "a space inside": ('"{epoch}. {version}"', 400),
    "lower case weak": ('w/"{epoch}.{version}"', 400),
    "not ASCII": ('"{epoch}.{version}\u00e9"', 400),
    "1001 characters": ('"' + "a" * 999 + '"', 400),
    "empty tag": ('""', 412),
    "weak": ('W/"{epoch}.{version}"', 412),
    "stale": ('"{epoch}.{before}"', 412),
    "to come": ('"{epoch}.{after}"', 412),
    "zero": ('"{epoch}.0"', 412),
    "negative": ('"{epoch}.-1"', 412),
    "leading zero": ('"{epoch}.0{version}"', 412),
    "a fraction": ('"{epoch}.{version}.0"', 412),
    "another epoch": ('"0000000000000000.{version}"', 412),
    "another case": ('"{EPOCH}.{version}"', 412),
    "without the epoch": ('"{version}"', 412),
    "a star in quotes": ('"*"', 412),
    "a list of stale ones": ('"{epoch}.{before}", "{epoch}.0", W/"{epoch}.{version}"', 412),
    "a huge version": ('"{epoch}.' + "9" * 400 + '"', 412),
}


@pytest.mark.parametrize("name", IF_MATCHES)
def test_if_match(service: Fuzzed, name: str) -> None:
    """A revive that does not name the view as it is now releases nothing, whatever it names instead."""
    shape, status = IF_MATCHES[name]
    service.kill("run:r-1")
    killed = service.kill("run:r-1").members
    seq, epoch = killed["seq"], killed["epoch"]
    named = "f" + epoch[1:] if epoch.isdigit() else epoch
    headers = {}
    if shape is not None:
        headers["If_Match"] = shape.format(epoch=epoch, EPOCH=named.upper(), version=seq, before=seq - 1, after=seq + 1)
    body = {"target": "run:r-1", "holds": [seq], "reason": "mended"}
    assert service.call("POST", "/v1/revives", body, **headers).status == status
    assert service.head == seq
    assert service.call("POST", "/v1/revives", body, If_Match=f'"{epoch}.1", "{epoch}.{seq}"').status == 201


class Redirector(BaseHTTPRequestHandler):
    """What stands in front of many services: it sends every request to the same path of another address."""

    status = 301
    to = ""

    def answer(self) -> None:
        """Redirect."""
        self.send_response(self.status)
        self.send_header("Location", self.to + self.path)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = answer  # noqa: N815 - the names that http.server looks for

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - http.server's
        """Say nothing."""


@pytest.fixture(params=[301, 302, 303])
def redirector(request: pytest.FixtureRequest, server: Server) -> Iterator[int]:
    """Yield the port of a proxy that redirects to the server, with each status that turns a POST into a GET."""
    handler = type("To", (Redirector,), {"status": request.param, "to": f"http://{LOOPBACK}:{server.port}"})
    proxy = ThreadingHTTPServer((LOOPBACK, free_port()), handler)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield proxy.server_port
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join(5)


def redirected(port: int, token: str) -> int:
    """Send a kill as a client that follows redirects does, a POST becoming a GET; return the status it ends with."""
    path = "/v1/kills"
    body = json.dumps({"target": "run:redirected", "reason": "why"})
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    if CURL is not None:
        options = [option for name, value in headers.items() for option in ("-H", f"{name}: {value}")]
        command = [CURL, "-q", "-sS", "--noproxy", "*", "--max-time", "15", "-L", "--location-trusted", *options]
        command += ["-o", "/dev/null", "-w", "%{http_code}", "-d", body, f"http://{LOOPBACK}:{port}{path}"]
        return int(subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout)
    method, sent = "POST", body.encode()
    while True:
        connection = HTTPConnection(LOOPBACK, port, timeout=15)
        connection.request(method, path, sent, headers)
        response = connection.getresponse()
        response.read()
        connection.close()
        if response.status not in {301, 302, 303}:
            return response.status
        port, method, sent = int(response.headers["Location"].split(":")[2].split("/")[0]), "GET", b""


def test_a_redirected_kill_never_looks_done(redirector: int, server: Server) -> None:
    """A kill that a proxy turned into a GET ends as 405 for whoever follows it, and nothing was killed."""
    assert redirected(redirector, server.token) == 405
    assert not server.call("GET", "/v1/flags/run/redirected").members["killed"]


def test_a_kill_that_is_not_redirected(server: Server) -> None:
    """The same client without the proxy kills: the test above fails for the right reason."""
    assert redirected(server.port, server.token) == 201
    flag = server.call("GET", "/v1/flags/run/redirected").members
    assert flag["killed"]
    revive = {"target": "run:redirected", "holds": [flag["last_kill"]], "reason": "it was a test"}
    assert server.call("POST", "/v1/revives", revive, headers={"If-Match": flag["etag"]}).status == 201
