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


# -- those that do not want to be asked yet --------------------------------------------------------------------------


class Ahead:
    """The machine's clocks, whose lease clock a test moves on.

    Attributes:
        by: how far it was moved on so far, seconds.
        clocks: the clocks.
    """

    def __init__(self) -> None:
        self.by = 0
        self.clocks = Clocks(gettime=self._gettime, gettime_ns=self._gettime_ns)

    def _gettime(self, clock: int) -> float:
        return time.clock_gettime(clock) + self.by

    def _gettime_ns(self, clock: int) -> int:
        return time.clock_gettime_ns(clock) + self.by * 1_000_000_000


@pytest.mark.parametrize("resolved", [True, False])
def test_one_that_is_spared_is_not_asked_though_the_next_is_dead(*, resolved: bool) -> None:
    """The exchange fails without a request, and the wait for the first one is told; then it is asked again."""
    ahead = Ahead()
    with Scripted(answers) as server:
        alive, refusing = parse_address(server.url), dead() if resolved else Address("no-such-host.invalid", 1)
        made = Transport([alive, refusing], token="t", clocks=ahead.clocks)
        post(made)
        assert made.rotate(90.0) == 0, "of the other one nothing is known yet"
        ahead.by = 30
        with pytest.raises(ServiceError) as caught:
            post(made)
        assert not caught.value.sent
        refused, _, spared = str(caught.value).partition("; ")
        assert refused.startswith(f"{refusing}: ")
        assert spared.startswith(f"{alive}: asked to be spared, for another ")
        assert 30 < made.rotate() <= 60
        assert server.connections == 1
        ahead.by = 90
        assert post(made) == alive
        made.close()


def test_one_that_is_spared_is_passed_over() -> None:
    """Wherever it stands in the order, while another one takes the request."""
    with Scripted(answers) as first, Scripted(answers) as second, Scripted(answers) as third:
        one, two, three = (parse_address(each.url) for each in (first, second, third))
        made = transport(one, two, three)
        post(made)
        made.rotate(60.0)
        assert post(made) == two
        assert made.rotate() == 0
        assert post(made) == three
        assert made.rotate() == 0, "the second one has not asked for it"
        assert post(made) == two
        assert (first.connections, second.connections, third.connections) == (1, 2, 1)
        made.close()


@pytest.mark.parametrize("host", [LOOPBACK, "localhost"])
def test_one_alone_is_spared(host: str) -> None:
    """By whatever name: it is not asked before its time, and then it is."""
    ahead = Ahead()
    with Scripted(answers) as server:
        made = Transport([Address(host, server.port)], token="t", clocks=ahead.clocks)
        post(made)
        assert made.rotate(60.0) == pytest.approx(60)
        with pytest.raises(ServiceError):
            post(made)
        assert 30 < made.rotate() <= 60
        assert server.connections == 1
        ahead.by = 60
        post(made)
        made.close()


def named(*places: tuple[socket.AddressFamily, str], port: int, clocks: Clocks) -> Transport:
    """Return a transport to a name that leads to these places."""

    def look_up(host: str, to: int) -> list[tuple[socket.AddressFamily, tuple[object, ...]]]:
        assert (host, to) == ("node.example", port)
        return [(family, (place, port)) for family, place in places]

    return Transport([Address("node.example", port)], token="t", clocks=clocks, look_up=look_up)


def test_each_machine_of_a_name_is_spared_by_itself() -> None:
    """While one has not asked for it there is no wait; once both have, it is honoured every time."""
    ahead, two = Ahead(), ((socket.AF_INET, LOOPBACK), (socket.AF_INET, "127.0.0.2"))
    with Scripted(answers) as server, Scripted(answers, host="127.0.0.2", port=server.port) as other:
        made = named(*two, port=server.port, clocks=ahead.clocks)
        post(made)
        assert made.rotate(90.0) == 0
        for moment, least_s in ((30, 60), (90, 30), (120, 60), (180, 30)):
            ahead.by = moment
            post(made)
            assert least_s - 20 < made.rotate(90.0) <= least_s
        assert (server.connections, other.connections) == (3, 2)


def test_a_machine_is_not_asked_by_its_address_of_another_family() -> None:
    """Where ::1 and 127.0.0.1 are one: whichever has answered, both are spared."""
    ahead = Ahead()
    for order in (1, -1):
        both = ((socket.AF_INET6, "::1"), (socket.AF_INET, LOOPBACK))[::order]
        with Scripted(answers) as server:
            made = named(*both, port=server.port, clocks=ahead.clocks)
            post(made)
            assert made.rotate(60.0) == pytest.approx(60)
            with pytest.raises(ServiceError, match="asked to be spared"):
                post(made)
            assert server.connections == 1
            ahead.by += 60
            post(made)
            made.close()


def test_the_next_one_has_not_asked_for_it() -> None:
    """It is asked without that pause; the first one again only when its own is over."""
    with Scripted(answers) as first, Scripted(answers) as second:
        one, two = parse_address(first.url), parse_address(second.url)
        made = transport(one, two)
        post(made)
        assert made.rotate(60.0) == 0
        assert post(made) == two
        assert 30 < made.rotate() <= 60
        assert made.address == one


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
