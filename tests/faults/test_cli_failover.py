"""A kill by two addresses, the first of them broken in each way: written once, by one flip_id, inside the deadline."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from tests.support.cli import Ran, Service, haltline, serving
from tests.support.ports import LOOPBACK, free_port
from tests.support.scripted import Script, Scripted, request, whole

TIMEOUT_S: Final = 4.0
START_S: Final = 3.0
"""How long starting ``haltline`` may take on a loaded machine, seconds."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Return a service, shared by this module."""
    with serving(tmp_path_factory.mktemp("service")) as running:
        yield running


def kill(service: Service, first: str, target: str) -> tuple[Ran, float]:
    """Kill by two addresses; return how that ended, and how long it took, seconds."""
    begun = time.monotonic()
    ran = haltline(
        *("kill", "run", target, "--reason", "why", "--json", "--timeout", str(TIMEOUT_S)),
        settings={"HALTLINE_URL": f"{first},{service.url}", "HALTLINE_TOKEN": service.token},
    )
    return ran, time.monotonic() - begun


def entries(service: Service, target: str) -> list[str]:
    """Return the flip_id of each kill of a target that the log has."""
    ran = haltline(
        *("log", "--target", f"run:{target}", "--kind", "kill", "--json"),
        settings={"HALTLINE_URL": service.url, "HALTLINE_TOKEN": service.token},
    )
    assert ran.code == 0, ran.err
    return [json.loads(line)["flip_id"] for line in ran.out.splitlines()]


def relayed(service: Service, asked: bytes) -> bytes:
    """Send a request on to the service, and return its whole reply."""
    with socket.create_connection((LOOPBACK, service.port), timeout=10) as behind:
        behind.sendall(asked.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        reply = b""
        while data := behind.recv(65_536):
            reply += data
    return reply


def reset(connection: socket.socket) -> None:
    """End a connection by a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def broken(service: Service) -> dict[str, Script]:
    """Return each way in which the first address is broken."""

    def hang(connection: socket.socket) -> None:
        while connection.recv(65_536):
            pass

    def busy(connection: socket.socket) -> None:
        request(connection)
        body = json.dumps({"code": "store_unavailable", "title": "x", "detail": "y", "outcome": "not_committed"})
        connection.sendall(whole(body.encode(), status=503, kind=b"application/problem+json"))

    def reset_before(connection: socket.socket) -> None:
        request(connection)
        reset(connection)

    def reset_mid_reply(connection: socket.socket) -> None:
        connection.sendall(relayed(service, request(connection))[:150])
        time.sleep(0.05)
        reset(connection)

    def reply_lost(connection: socket.socket) -> None:
        relayed(service, request(connection))
        hang(connection)

    def portal(connection: socket.socket) -> None:
        request(connection)
        connection.sendall(whole(b"<html>log in</html>", kind=b"text/html"))

    return {each.__name__: each for each in (hang, busy, reset_before, reset_mid_reply, reply_lost, portal)}


def proven(service: Service, ran: Ran, took: float, target: str) -> None:
    """Check that a kill is one entry of the log, and that it took no longer than it may."""
    assert ran.code == 0, ran.err
    assert entries(service, target) == [ran.json["flip_id"]]
    assert took < TIMEOUT_S + START_S


@pytest.mark.parametrize("how", ["hang", "busy", "reset_before", "reset_mid_reply", "reply_lost", "portal"])
def test_killed_once_by_the_second_address(service: Service, how: str) -> None:
    """Whether the first one took the kill, lost the reply, or never was a service."""
    target = how.replace("_", "-")
    with Scripted(broken(service)[how]) as first:
        ran, took = kill(service, first.url, target)
        proven(service, ran, took, target)
        assert first.connections == 1
    assert ran.json["new"] is (how not in ("reset_mid_reply", "reply_lost"))


def test_killed_once_beside_a_dead_address(service: Service) -> None:
    """At once."""
    ran, took = kill(service, f"http://{LOOPBACK}:{free_port()}", "dead")
    proven(service, ran, took, "dead")


def test_killed_once_beside_a_black_hole(service: Service) -> None:
    """An address that swallows packets costs its share of the time, and no more."""
    with socket.create_server((LOOPBACK, free_port()), backlog=0) as full, contextlib.ExitStack() as stack:
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0)
            waiting.connect_ex(full.getsockname())
        time.sleep(0.05)
        ran, took = kill(service, f"http://{LOOPBACK}:{full.getsockname()[1]}", "hole")
    proven(service, ran, took, "hole")
    assert took > TIMEOUT_S / 3 * 0.9


def test_no_address_left() -> None:
    """NOT KILLED comes by the deadline, with the line that kills straight on the database."""
    urls = ",".join(f"http://{LOOPBACK}:{free_port()}" for _ in range(2))
    token = f"hlt_default_abcdefghijkl_{'S3cr3t' * 8}x"
    ran = haltline("kill", "run", "r-42", "--reason", "why", settings={"HALTLINE_URL": urls, "HALTLINE_TOKEN": token})
    assert ran.code == 4
    assert ran.err.startswith("NOT KILLED: run:r-42: ")
    assert "  haltline-server kill run r-42 --reason why" in ran.err.splitlines()


def test_every_command_that_reads_goes_on_to_the_next(service: Service) -> None:
    """Status, flags, log and export; the export is whole and proves itself."""
    settings = {"HALTLINE_URL": f"http://{LOOPBACK}:{free_port()},{service.url}", "HALTLINE_TOKEN": service.token}
    reading: list[Callable[[], Ran]] = [
        lambda: haltline("status", settings=settings),
        lambda: haltline("flags", settings=settings),
        lambda: haltline("log", settings=settings),
        lambda: haltline("export", "-o", "-", settings=settings),
    ]
    for command in reading:
        ran = command()
        assert ran.code == 0, ran.err
