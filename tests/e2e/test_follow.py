"""``haltline log --follow`` and event streams as they are used: real processes, real restarts, readers that vanish."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Final

import psutil
import pytest

from app.service.places import AT_ONCE
from tests.e2e.server import Server
from tests.support.cli import BIN, environment
from tests.support.ports import LOOPBACK

PATIENCE_S: Final = 20.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Yield a fresh server."""
    with Server(tmp_path) as running:
        yield running


def settings(server: Server) -> dict[str, str]:
    """Return the environment of whoever asks it."""
    return environment(HALTLINE_URL=f"http://{LOOPBACK}:{server.port}", HALTLINE_TOKEN=server.token)


@contextmanager
def following(server: Server, *words: str, err: int | IO[bytes] = subprocess.PIPE) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``haltline log --follow words...``, and end it whatever happens."""
    process = subprocess.Popen(
        [BIN / "haltline", "log", "--follow", *words], env=settings(server), stdout=subprocess.PIPE, stderr=err
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10)


class Lines:
    """The lines that a process has printed so far, read beside the test."""

    def __init__(self, out: IO[bytes] | None) -> None:
        assert out is not None
        self._out = out
        self.seen: list[bytes] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for line in iter(self._out.readline, b""):
            self.seen.append(line)

    def wait(self, number: int) -> None:
        """Wait until there are so many."""
        until(lambda: len(self.seen) >= number)

    def end(self) -> list[bytes]:
        """Return them all when the process has ended."""
        self._thread.join(PATIENCE_S)
        return self.seen


def until(true: Callable[[], bool]) -> None:
    """Wait for something, but not for ever."""
    limit = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.02)


def kill(server: Server, number: int) -> int:
    """Kill a run and return the seq."""
    reply = server.kill(f"run:r-{number}")
    assert reply.status == 201
    return int(reply.members["seq"])


def crash(server: Server) -> None:
    """End the server without asking: every process of it, at once."""
    processes = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children(recursive=True)]
    for each in processes:
        each.kill()
    server.process.wait(10)


def test_following_through_restarts(server: Server) -> None:
    """A follower goes on through a stop, a crash and two restarts; what it printed is the log, each entry once."""
    with following(server, "--after", "0", "--json") as process:
        lines = Lines(process.stdout)
        lines.wait(2)
        lines.wait([kill(server, number) for number in range(5)][-1])
        began = time.monotonic()
        assert server.end() == 0
        assert time.monotonic() - began < 8.0  # not for as long as a stream lasts
        server.start()
        lines.wait(kill(server, 5))
        for number in range(6, 9):
            kill(server, number)
        crash(server)
        server.start()
        last = kill(server, 9)
        lines.wait(last)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        told = [json.loads(line) for line in lines.end()]
        assert process.stderr is not None
        said = process.stderr.read().decode()
    assert told == [json.loads(line) for line in server.call("GET", "/v1/log/export").body.splitlines()]
    assert said == f"ended; to go on: haltline log --follow --after {last} --json\n"


def test_an_outage_is_told_once_to_whoever_watches(server: Server) -> None:
    """On a terminal an outage is one note when it begins and one when it is over, however many attempts it takes."""
    watching, terminal = os.openpty()
    os.set_blocking(watching, False)
    shown = bytearray()

    def said(text: bytes) -> bool:
        with suppress(BlockingIOError):
            shown.extend(os.read(watching, 65_536))
        return text in shown

    with following(server, "--count", "1", "--json", err=terminal) as process:
        until(lambda: said(b"following the log behind entry 2"))
        server.end()
        until(lambda: said(b"trying again until it is back"))
        server.start()
        until(lambda: said(b"connected again"))
        kill(server, 1)
        assert process.wait(10) == 0
        assert not said(b"Traceback")
    os.close(watching)
    os.close(terminal)
    assert shown.count(b"connection lost") == shown.count(b"trying again") == shown.count(b"connected again") == 1


def opened(server: Server, path: str) -> socket.socket:
    """Return a connection on which a reply has begun that is not read any further."""
    connection, status = asked(server, path)
    assert status == b"HTTP/1.1 200"
    return connection


def begins(server: Server) -> bool:
    """Return whether an event stream is begun for whoever asks for one now."""
    connection, status = asked(server, "/v1/events")
    connection.close()
    return status == b"HTTP/1.1 200"


def asked(server: Server, path: str) -> tuple[socket.socket, bytes]:
    """Ask, and return the connection and the beginning of what came."""
    connection = socket.create_connection((LOOPBACK, server.port), timeout=10)
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.token}\r\n\r\n"
    connection.sendall(head.encode())
    return connection, connection.recv(64)[:12]


def test_readers_that_vanish_leave_their_places(server: Server) -> None:
    """64 streams that nobody reads hold 64 places and no export's; those who vanish make room within seconds."""
    with ExitStack() as stack:
        readers = [stack.enter_context(opened(server, "/v1/events")) for _ in range(AT_ONCE)]
        refused = server.call("GET", "/v1/events")
        assert (refused.status, refused.members["code"]) == (503, "too_many_exports")
        assert server.call("GET", "/v1/log/export").status == 200
        waits = []
        for number in range(50):
            began = time.monotonic()
            kill(server, number)
            assert server.call("GET", "/v1/flags").status == 200
            waits.append(time.monotonic() - began)
        assert sorted(waits)[len(waits) // 2] < 0.5
        for reader in readers[:32]:
            reader.close()
    until(lambda: begins(server))
