"""``haltline`` against what is not, or not quite, the service: redirects, lies, lost replies, silence."""

from __future__ import annotations

import json
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.cli import Ran, Service, haltline, serving
from tests.support.ports import LOOPBACK, free_port

TOKEN = f"hlt_default_abcdefghijkl_{'S3cr3t' * 8}x"
KILL = ("kill", "run", "r-42", "--reason", "mails the wrong customers")

Talk = Callable[[socket.socket], None]


@contextmanager
def listening(talk: Talk) -> Iterator[str]:
    """Serve each connection by ``talk``, one after the other, and yield the address."""
    port = free_port()
    ended = threading.Event()
    with socket.create_server((LOOPBACK, port)) as server:
        server.settimeout(0.1)

        def serve() -> None:
            while not ended.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.settimeout(10)
                    talk(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://{LOOPBACK}:{port}"
        finally:
            ended.set()
            thread.join()


def request_of(connection: socket.socket) -> bytes:
    """Return one whole request."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    while len(body) < length:
        body += _some(connection)
    return head + b"\r\n\r\n" + body


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(65_536)
    assert data, "the client closed the connection inside its request"
    return data


def answering(status: str, body: bytes, *headers: str) -> Talk:
    """Return what gives every request the same answer."""

    def talk(connection: socket.socket) -> None:
        request_of(connection)
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
        connection.sendall("\r\n".join(lines).encode() + body)

    return talk


def relay(service: Service, connection: socket.socket) -> bytes:
    """Send one request on to the service, and return its whole reply."""
    request = request_of(connection).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    with socket.create_connection((LOOPBACK, service.port), timeout=10) as behind:
        behind.sendall(request)
        reply = b""
        while data := behind.recv(65_536):
            reply += data
    return reply


def run(url: str, *words: str, token: str = TOKEN) -> Ran:
    """Run ``haltline words...`` against an address."""
    return haltline(*words, settings={"HALTLINE_URL": url, "HALTLINE_TOKEN": token})


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service, shared by this module."""
    with serving(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "307 Temporary Redirect"])
def test_redirects_are_not_followed(service: Service, status: str) -> None:
    """A kill behind a redirect is no kill: it is not followed, and never a success."""
    target = f"redirected-{status[:3]}"
    with listening(answering(status, b"", f"Location: {service.url}/v1/kills")) as url:
        ran = run(url, "kill", "run", target, "--reason", "why", token=service.token)
    assert ran.code == 5
    assert f"redirect ({status[:3]})" in ran.err
    assert run(service.url, "flags", "run", target, "--json", token=service.token).json["killed"] is False


def test_html_is_no_success() -> None:
    """A captive portal that answers 200 with a page has killed nothing."""
    with listening(answering("200 OK", b"<html>Welcome</html>", "Content-Type: text/html")) as url:
        ran = run(url, *KILL)
    assert ran.code == 5
    assert "not JSON" in ran.err
    assert ran.out == ""


def test_other_flip_id_is_no_success(service: Service) -> None:
    """A reply about another flip, replayed by something in between, proves nothing."""
    kept: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        if kept:
            request_of(connection)
        else:
            kept.append(relay(service, connection))
        connection.sendall(kept[0])

    with listening(talk) as url:
        assert run(url, *KILL, token=service.token).code == 0
        ran = run(url, *KILL, token=service.token)
    assert ran.code == 5
    assert "another flip_id" in ran.err


def test_lost_reply_is_found_again(service: Service) -> None:
    """A connection that dies after the request was sent is asked again: one kill, its seq, exit 0."""
    seqs: list[int] = []

    def talk(connection: socket.socket) -> None:
        reply = relay(service, connection)
        seqs.append(json.loads(reply.partition(b"\r\n\r\n")[2])["seq"])
        if len(seqs) > 2:
            connection.sendall(reply)

    with listening(talk) as url:
        ran = run(url, "kill", "run", "lost", "--reason", "why", "--json", token=service.token)
    assert ran.code == 0, ran.err
    assert len(seqs) == 3
    assert {*seqs} == {ran.json["seq"]}
    assert ran.json["new"] is False
    assert len(run(service.url, "flags", "run", "lost", "--json", token=service.token).json["holds"]) == 1


def test_unknown_then_retried(service: Service) -> None:
    """When every reply is lost: exit 5 and a line to type; typed at a service that answers, it finds the same seq."""
    seqs: list[int] = []

    def talk(connection: socket.socket) -> None:
        seqs.append(json.loads(relay(service, connection).partition(b"\r\n\r\n")[2])["seq"])

    with listening(talk) as url:
        ran = run(url, "kill", "run", "un-known", "--reason", "it's $bad", "--timeout", "1.5", token=service.token)
    assert ran.code == 5
    assert ran.err.startswith("UNKNOWN: whether run:un-known is killed")
    again = shlex.split(ran.err.splitlines()[-1])
    assert again[0] == "haltline"
    ran = run(service.url, *again[1:], "--json", token=service.token)
    assert ran.code == 0, ran.err
    assert {*seqs} == {ran.json["seq"]}


def test_revive_unknown_then_retried(service: Service) -> None:
    """The same for a revive: the line that is printed names the hold and the flip_id."""
    seq = run(service.url, "kill", "run", "re", "--reason", "why", "--json", token=service.token).json["seq"]

    def talk(connection: socket.socket) -> None:
        reply = relay(service, connection)
        if b'"released"' not in reply:
            connection.sendall(reply)

    with listening(talk) as url:
        ran = run(url, "revive", "run", "re", "--all", "--reason", "mended", "--timeout", "1.5", token=service.token)
    assert ran.code == 5
    again = shlex.split(ran.err.splitlines()[-1])
    assert again[:6] == ["haltline", "revive", "run", "re", "--hold", str(seq)]
    ran = run(service.url, *again[1:], "--json", token=service.token)
    assert ran.code == 0, ran.err
    assert ran.json["new"] is False


def test_flipped_between_look_and_revive(service: Service) -> None:
    """Somebody else's kill between the look and the revive: nothing is released, and the new hold is shown."""
    run(service.url, "kill", "run", "race", "--reason", "mine", token=service.token)
    raced: list[Ran] = []

    def talk(connection: socket.socket) -> None:
        reply = relay(service, connection)
        if not raced:
            raced.append(run(service.url, "kill", "run", "race", "--reason", "theirs", token=service.token))
        connection.sendall(reply)

    with listening(talk) as url:
        ran = run(url, "revive", "run", "race", "--all", "--reason", "mended", token=service.token)
    assert ran.code == 3
    assert ran.err.startswith("NOT REVIVED: run:race was flipped since you looked")
    assert "theirs" in ran.err
    assert len(run(service.url, "flags", "run", "race", "--json", token=service.token).json["holds"]) == 2


def test_no_service() -> None:
    """Nobody listens: nothing was done, exit 4, at once."""
    began = time.monotonic()
    ran = run(f"http://{LOOPBACK}:{free_port()}", *KILL)
    assert ran.code == 4
    assert ran.err.startswith("NOT KILLED: run:r-42: ")
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    "words", [("status",), ("flags",), ("log",), ("export", "-o", "-"), ("revive", "global", "--all", "--reason", "x")]
)
def test_no_service_for_the_others(words: tuple[str, ...]) -> None:
    """Every other command that needs a service ends with 4 as well."""
    assert run(f"http://{LOOPBACK}:{free_port()}", *words).code == 4


def test_silence_ends_in_time() -> None:
    """A service that takes the kill and then says nothing, or drips, is left when the time is up."""

    def drip(connection: socket.socket) -> None:
        request_of(connection)
        try:
            for byte in b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\n" * 9:
                connection.sendall(bytes([byte]))
                time.sleep(0.02)
        except OSError:
            pass  # the client has left, as it should

    with listening(drip) as url:
        began = time.monotonic()
        ran = run(url, *KILL, "--timeout", "1")
        took = time.monotonic() - began
    assert ran.code == 5
    assert 1 <= took < 6  # the reply would drip for nine


def test_hostile_answers_are_inert() -> None:
    """Reasons, ids and problems full of escapes, bidi controls and markup reach the terminal as harmless text."""
    evil = "\x1b]0;owned\x07\x1b[2J\u202egnp.exe\r\n\x9b31m[red]x[/red]"
    hold = {"seq": 3, "target": evil, "actor": evil, "at": evil, "reason": evil}
    flags = {"flags": [{"target": evil, "holds": [hold]}], "counts": {"run": 1}, "next_cursor": None, "seq": 9}
    entries = [{"kind": "kill", "seq": 3, "at": evil, "actor": evil, "target": evil, "reason": evil}]
    body = json.dumps({**flags, "entries": entries, "hash": evil, "epoch": evil, "status": "ready"}).encode()
    with listening(answering("200 OK", body, "Content-Type: application/json")) as url:
        shown = [run(url, command) for command in ("flags", "log", "status")]
    problem = json.dumps({"code": evil, "title": evil, "detail": evil, "errors": {evil: [evil]}}).encode()
    with listening(answering("422 No", problem, "Content-Type: application/problem+json")) as url:
        shown.append(run(url, *KILL))
    assert [ran.code for ran in shown] == [0, 0, 0, 3]
    for ran in shown:
        text = ran.out + ran.err
        assert "owned" in text
        assert "[red]x[/red]" in text
        assert not set("\x1b\x07\x9b\r\u202e") & set(text)


def test_export_broken_off(service: Service, tmp_path: Path) -> None:
    """An export that ends early, cleanly or not, is not given its name, and ends with 1."""
    run(service.url, *KILL, token=service.token)

    def cut(connection: socket.socket) -> None:
        connection.sendall(relay(service, connection)[:-200])

    path = tmp_path / "log.jsonl"
    with listening(cut) as url:
        ran = run(url, "export", "-o", str(path), token=service.token)
    assert ran.code == 1
    assert ran.err.startswith("BROKEN OFF")
    assert not path.exists()
    assert (tmp_path / "log.jsonl.part").exists()


def test_token_is_never_shown() -> None:
    """Whatever answers, the token is in no output."""
    talks = [
        answering("200 OK", b"<html>", "Content-Type: text/html"),
        answering("301 Moved", b"", "Location: http://elsewhere/"),
        answering("401 No", b'{"code":"unauthenticated"}', "Content-Type: application/problem+json"),
        answering("500 No", b""),
        lambda connection: connection.sendall(b"\x00garbage\r\n\r\n"),
        socket.socket.close,
    ]
    for talk in talks:
        with listening(talk) as url:
            ran = run(url, *KILL, "--timeout", "0.3")
        assert ran.code in (3, 5)
        assert "S3cr3t" not in ran.out + ran.err
