"""Every exchange ends by its deadline, and in any fault a run stops within ttl and goes on soon after."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import pytest

from haltline import ConfigurationError, KillSwitch, Reason, ServiceError, Unverified
from haltline.address import Address, parse_address
from haltline.clocks import Clocks
from haltline.renewal import Reply
from haltline.testing import FakeService
from haltline.transport import Transport
from tests.support.fault_server import FaultServer, Mode

TTL_S: Final = 0.4
LEASE: Final = (
    b'{"epoch":null,"hash":null,"instance":"i","nonce":"0123456789abcdef","seq":0,"stream":false,"worker":"w"}'
)
SILENT: Final = {Mode.DRIP_HEAD, Mode.DRIP_BODY, Mode.BLACK_HOLE, Mode.HOLD}
BROKEN: Final = SILENT | {Mode.RESET, Mode.HUGE_HEAD, Mode.HUGE_BODY, Mode.CUT, Mode.GARBAGE}
HARMFUL: Final = [mode for mode in Mode if mode not in (Mode.NORMAL, Mode.CLOSING)]


@pytest.fixture
def server() -> Iterator[FaultServer]:
    """Return a server that works, until its mode is changed."""
    with FaultServer(FakeService(ttl_ms=int(TTL_S * 1000))) as running:
        yield running


@pytest.fixture
def transport(server: FaultServer) -> Iterator[Transport]:
    """Return a connection to it."""
    made = Transport([parse_address(server.url)], token=server.service.token, clocks=Clocks())
    yield made
    made.close()


def post(transport: Transport, deadline_s: float) -> tuple[Reply | ServiceError, float]:
    """Return what an exchange came to, and how long it took, seconds."""
    begun = time.monotonic()
    try:
        came: Reply | ServiceError = transport.post("/v1/lease", LEASE, deadline_s=deadline_s, limit=1_000_000)
    except ServiceError as error:
        came = error
    return came, time.monotonic() - begun


@pytest.mark.parametrize("mode", Mode)
def test_every_exchange_ends_by_its_deadline(server: FaultServer, transport: Transport, mode: Mode) -> None:
    """With a whole reply or an error, on a fresh connection and on a kept one; and the next one works."""
    for kept in (False, True):
        if kept:
            server.mode = Mode.NORMAL
            post(transport, 5)
        server.mode = mode
        came, took = post(transport, 0.3)
        assert took < 1
        assert isinstance(came, ServiceError) is (mode in BROKEN)
        if mode in SILENT:
            assert took > 0.25
        server.release.set()
        server.mode = Mode.NORMAL
        came, _ = post(transport, 5)
        assert isinstance(came, Reply)
        assert came.status == 200
        server.release.clear()


@pytest.mark.parametrize(("mode", "told"), [(Mode.HUGE_BODY, "larger than"), (Mode.HUGE_HEAD, "not an HTTP reply")])
def test_a_reply_without_end_is_cut_at_its_limit(
    server: FaultServer, transport: Transport, mode: Mode, told: str
) -> None:
    """Long before the deadline: memory is bounded by size, not by time."""
    server.mode = mode
    came, took = post(transport, 20)
    assert isinstance(came, ServiceError)
    assert told in str(came)
    assert took < 5


def test_a_kept_connection_is_used_again(server: FaultServer, transport: Transport) -> None:
    """A renewal costs no new connection."""
    for _ in range(5):
        post(transport, 5)
    assert server.connections == 1


def test_a_kept_connection_that_was_closed_costs_no_error(server: FaultServer, transport: Transport) -> None:
    """Servers close idle connections; the request goes out once more on a fresh one."""
    server.mode = Mode.CLOSING
    for _ in range(3):
        came, _ = post(transport, 5)
        assert isinstance(came, Reply)
        time.sleep(0.05)
    assert server.connections == 3


def test_nothing_is_followed_decoded_or_proxied(
    server: FaultServer, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A redirect is the reply, a compressed body stays as it came, and no proxy of the environment is asked."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    server.mode = Mode.REDIRECT
    came, _ = post(transport, 1)
    assert isinstance(came, Reply)
    assert came.status == 301
    server.mode = Mode.GZIP
    came, _ = post(transport, 1)
    assert isinstance(came, Reply)
    assert came.encoded
    assert came.body.startswith(b"{")


def test_a_name_is_tried_address_by_address(server: FaultServer) -> None:
    """Localhost may stand for ::1 first, where nobody listens."""
    port = parse_address(server.url).port
    transport = Transport([parse_address(f"http://localhost:{port}")], token=server.service.token, clocks=Clocks())
    came, _ = post(transport, 5)
    transport.close()
    assert isinstance(came, Reply)


@pytest.mark.parametrize("host", ["a..b", "x" * 70, "x" * 70 + ".example", ".b"])
def test_a_name_that_no_host_can_have(host: str) -> None:
    """Is refused in the address, and an exchange with it fails as any other: no thread dies of it."""
    with pytest.raises(ConfigurationError, match="host"):
        parse_address(f"http://{host}:8787")
    transport = Transport([Address(host, 8787)], token="t", clocks=Clocks())
    came, _ = post(transport, 1)
    assert isinstance(came, ServiceError)
    assert not came.sent


def test_unreachable_says_that_nothing_was_sent(server: FaultServer) -> None:
    """And a broken reply says that something may have been."""
    transport = Transport([parse_address(server.url)], token=server.service.token, clocks=Clocks())
    server.mode = Mode.RESET
    came, _ = post(transport, 1)
    assert isinstance(came, ServiceError)
    assert came.sent
    server.__exit__(None, None, None)
    came, _ = post(transport, 1)
    assert isinstance(came, ServiceError)
    assert not came.sent


@pytest.mark.parametrize("mode", HARMFUL)
def test_a_run_stops_within_ttl_and_goes_on_within_two_seconds(server: FaultServer, mode: Mode) -> None:
    """Meanwhile check() never waits, and says why it stops."""
    with KillSwitch(server.url, token=server.service.token) as switch, switch.run("r-1") as run:
        run.check("send_email")
        server.mode = mode
        broke = time.monotonic()  # a request begun later is not answered any more
        longest, last_pass = 0.0, broke
        reasons: set[Reason] = set()
        while (begun := time.monotonic()) < broke + 1.7 * TTL_S:
            try:
                run.check("send_email")
            except Unverified as stopped:
                reasons.add(stopped.verdict.reason)
            else:
                last_pass = begun
            longest = max(longest, time.monotonic() - begun)
            time.sleep(0.001)
        assert last_pass - broke < TTL_S
        assert longest < TTL_S * 0.75, "check() waited, or the machine stood still"
        assert reasons <= {Reason.STALE, Reason.UNREACHABLE, Reason.MALFORMED}
        assert reasons & {Reason.UNREACHABLE, Reason.MALFORMED}
        server.mode = Mode.NORMAL
        server.release.set()
        begun = time.monotonic()
        run.wait("send_email", timeout=5)
        assert time.monotonic() - begun < 2


def test_connections_that_are_closed_each_time_cost_no_lease(server: FaultServer) -> None:
    """A service that keeps no connection open is a service."""
    server.mode = Mode.CLOSING
    with KillSwitch(server.url, token=server.service.token) as switch, switch.run("r-1") as run:
        end = time.monotonic() + 2 * TTL_S
        while time.monotonic() < end:
            run.check("send_email")
            time.sleep(0.005)
        assert server.connections > 2


def test_a_switch_that_is_told_of_another_service_stops_at_once(server: FaultServer) -> None:
    """A revoked token ends the lease by the next renewal, long before its time."""
    with KillSwitch(server.url, token=server.service.token) as switch, switch.run("r-1") as run:
        server.service.refuse(401)

        def work() -> None:
            end = time.monotonic() + 5
            while time.monotonic() < end:
                run.check()
                time.sleep(0.001)

        with pytest.raises(Unverified) as stopped:
            work()
        assert stopped.value.verdict.reason is Reason.REFUSED
