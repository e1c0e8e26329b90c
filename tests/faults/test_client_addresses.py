"""Several addresses of one service: one deadline for all of them, and staying with the one that works."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Final

import pytest

from haltline import KillSwitch, ServiceError
from haltline.address import Address, parse_address
from haltline.clocks import Clocks
from haltline.testing import FakeService
from haltline.transport import Transport
from tests.support.fault_server import FaultServer, Mode
from tests.support.ports import LOOPBACK, free_port
from tests.support.scripted import Scripted, request, whole

BODY: Final = b"{}"


def answers(connection: socket.socket) -> None:
    """Answer every request."""
    while request(connection):
        connection.sendall(whole(b"{}"))


def transport(*addresses: Address) -> Transport:
    """Return a transport to these addresses."""
    return Transport(addresses, token="t", clocks=Clocks())


def post(made: Transport, deadline_s: float = 5.0) -> Address:
    """Do one exchange, and return the address that it ended with."""
    assert made.post("/v1/lease", BODY, deadline_s=deadline_s, limit=10).status == 200
    return made.address


@contextlib.contextmanager
def hole() -> Iterator[Address]:
    """Yield an address that swallows packets: a listener that accepts nobody, and whose queue is full."""
    with socket.create_server((LOOPBACK, free_port()), backlog=0) as full, contextlib.ExitStack() as stack:
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0)
            waiting.connect_ex(full.getsockname())
        time.sleep(0.05)
        yield Address(*full.getsockname())


def dead() -> Address:
    """Return an address where nobody listens."""
    return Address(LOOPBACK, free_port())


def test_a_dead_address_costs_nothing() -> None:
    """The next one answers the same request, and is asked first from then on."""
    with Scripted(answers) as server:
        alive = parse_address(server.url)
        made = transport(dead(), Address("no-such-host.invalid", 1), alive)
        for _ in range(3):
            assert post(made) == alive
        assert server.connections == 1
        made.close()


def test_an_address_that_swallows_packets_costs_its_share() -> None:
    """Half of the deadline where there are two; and once, because the other one is asked first from then on."""
    with hole() as swallowing, Scripted(answers) as server:
        made = transport(swallowing, parse_address(server.url))
        begun = time.monotonic()
        post(made, 1.0)
        assert 0.4 < time.monotonic() - begun < 1.0
        made.close()
        begun = time.monotonic()
        post(made, 1.0)
        assert time.monotonic() - begun < 0.4
        made.close()


def test_no_address_answers() -> None:
    """The error names each of them and what it failed by, comes by the deadline, and says that nothing was sent."""
    with hole() as swallowing:
        refusing = dead()
        made = transport(refusing, swallowing)
        begun = time.monotonic()
        with pytest.raises(ServiceError) as caught:
            post(made, 0.5)
        assert time.monotonic() - begun < 1.0
        assert str(caught.value) == f"{refusing}: connection refused; {swallowing}: no connection in time"
        assert not caught.value.sent


def test_the_one_that_works_is_kept_to_until_it_fails() -> None:
    """Then the next one takes over, and around again."""
    with Scripted(answers) as second:
        with Scripted(answers) as first:
            one, two = parse_address(first.url), parse_address(second.url)
            made = transport(one, two)
            assert post(made) == one
            assert post(made) == one
        assert post(made) == two
        assert post(made) == two
        made.close()


def test_rotating_goes_on_to_the_next_on_a_fresh_connection() -> None:
    """Round and round; with a single address it is a fresh connection to the same."""
    with Scripted(answers) as first, Scripted(answers) as second:
        one, two = parse_address(first.url), parse_address(second.url)
        made = transport(one, two)
        came = []
        for _ in range(4):
            came.append(post(made))
            made.rotate()
        assert came == [one, two, one, two]
        assert (first.connections, second.connections) == (2, 2)
        made.close()
        alone = transport(one)
        post(alone)
        alone.rotate()
        assert post(alone) == one
        assert first.connections == 4
        alone.close()


def test_each_address_of_a_name_is_tried() -> None:
    """A name that stands for several addresses is as good as a list of them: rotating goes through it first."""
    with Scripted(answers) as server, Scripted(answers) as other:
        name, next_one = Address("localhost", server.port), parse_address(other.url)
        made = transport(name, next_one)
        assert post(made) == name
        count = len(socket.getaddrinfo("localhost", server.port, type=socket.SOCK_STREAM))
        assert count >= 1
        made.rotate()
        assert post(made) == next_one  # 127.0.0.1 was the last address of the name, whether ::1 is one or not
        made.close()


def test_an_agent_lives_through_the_loss_of_a_node() -> None:
    """The lease is renewed at the other address before it ends: not one check is stopped."""
    service = FakeService(ttl_ms=1000)
    with FaultServer(service) as first, FaultServer(service) as second:
        with (
            KillSwitch([first.url, second.url], token=service.token) as switch,
            switch.run("r-1") as run,
        ):
            run.check("send_email")
            first.mode = Mode.RESET
            first.__exit__(None, None, None)
            end = time.monotonic() + 2.5
            while time.monotonic() < end:
                run.check("send_email")
                time.sleep(0.005)
        assert second.connections > 0
