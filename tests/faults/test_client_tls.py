"""Whom the client believes, and that TLS waits no longer than anything else."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
import trustme

from haltline import ConfigurationError, KillSwitch, Reason, ServiceError, Unverified
from haltline.address import parse_address
from haltline.clocks import Clocks
from haltline.testing import FakeService
from haltline.tls import Trust
from haltline.transport import Transport
from tests.support.certificates import Authority, serving
from tests.support.fault_server import FaultServer
from tests.support.ports import LOOPBACK, free_port
from tests.support.scripted import END, STREAM, Script, Scripted, chunk, forwarding, request, whole

TTL_S: Final = 0.4


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return the CA that the clients of these tests trust."""
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def good(authority: Authority) -> trustme.LeafCert:
    """Return a certificate that proves what it should."""
    return authority.issue()


def client(server: Scripted, authority: Authority) -> Transport:
    """Return a transport that trusts this CA alone."""
    return Transport([parse_address(server.url)], token="t", clocks=Clocks(), trust=Trust(str(authority.file)))


def failed(work: Callable[[], object]) -> tuple[ServiceError, float]:
    """Return what ended a call, and how long it took, seconds."""
    begun = time.monotonic()
    with pytest.raises(ServiceError) as caught:
        work()
    return caught.value, time.monotonic() - begun


def answers(connection: socket.socket) -> None:
    """Answer every request with an empty object."""
    while request(connection):
        connection.sendall(whole(b"{}"))


def bad(authority: Authority, folder: Path) -> dict[str, tuple[trustme.LeafCert, str]]:
    """Return certificates that prove nothing, and what is said of each."""
    return {
        "expired": (authority.expired(), "has expired"),
        "wrong-host": (authority.issue("elsewhere.example"), f"is not for {LOOPBACK}"),
        "unknown-ca": (Authority(folder, "other").issue(), "not from a CA that is trusted here"),
    }


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_exchanges_and_streams_go_through_tls(
    authority: Authority, good: trustme.LeafCert, newest: ssl.TLSVersion
) -> None:
    """Over one connection: a small reply, a stream of lines, and a line of many records."""
    large = b"x" * 3_000_000

    def script(connection: socket.socket) -> None:
        while asked := request(connection):
            if asked.startswith(b"POST /v1/lease"):
                for part in (STREAM, chunk(b"one\n"), chunk(large + b"\n"), END):
                    connection.sendall(part)
            else:
                connection.sendall(whole(b"{}"))

    with Scripted(script, tls=serving(good, newest=newest)) as server:
        transport = client(server, authority)
        for _ in range(2):
            assert transport.post("/v1/acks", b"{}", deadline_s=5, limit=10).body == b"{}"
            stream = transport.stream("/v1/lease", b"{}", deadline_s=5)
            assert stream.line(deadline_s=5, limit=10) == b"one"
            assert stream.line(deadline_s=5, limit=4_000_000) == large
            assert stream.line(deadline_s=5, limit=10) is None
        assert server.connections == 1
        transport.close()


@pytest.mark.parametrize("wrong", ["expired", "wrong-host", "unknown-ca"])
def test_a_certificate_that_proves_nothing_is_refused(authority: Authority, tmp_path: Path, wrong: str) -> None:
    """Before a byte of the request, and with it the token, is sent; the error says which it is."""
    leaf, told = bad(authority, tmp_path)[wrong]
    came = threading.Event()

    def script(connection: socket.socket) -> None:
        if connection.recv(1):
            came.set()

    with Scripted(script, tls=serving(leaf)) as server:
        error, _ = failed(lambda: client(server, authority).post("/v1/lease", b"{}", deadline_s=5, limit=10))
    assert told in str(error)
    assert not error.sent
    assert not came.is_set()


def test_the_systems_cas_are_trusted_where_none_is_given(
    authority: Authority, good: trustme.LeafCert, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And they do not know this one, unless the system is told of it."""
    with Scripted(answers, tls=serving(good)) as server:
        for file, known in (("/dev/null", False), (str(authority.file), True)):
            monkeypatch.setenv("SSL_CERT_FILE", file)
            transport = Transport([parse_address(server.url)], token="t", clocks=Clocks())
            if known:
                assert transport.post("/v1/lease", b"{}", deadline_s=5, limit=10).status == 200
            else:
                error, _ = failed(lambda: transport.post("/v1/lease", b"{}", deadline_s=5, limit=10))  # noqa: B023
                assert "HALTLINE_CA" in str(error)
            transport.close()


def test_versions_before_1_2_are_refused(authority: Authority, good: trustme.LeafCert) -> None:
    """Whatever the other end would speak."""
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old = serving(good, newest=ssl.TLSVersion.TLSv1_1)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with Scripted(answers, tls=old) as server:
        error, _ = failed(lambda: client(server, authority).post("/v1/lease", b"{}", deadline_s=5, limit=10))
    assert "no TLS" in str(error)


def test_plain_http_behind_an_https_address_is_told(authority: Authority) -> None:
    """A mistake that is made often, and whose own error is a riddle."""
    with Scripted(lambda connection: connection.sendall(whole(b"{}"))) as server:
        url = server.url.replace("http:", "https:")
        transport = Transport([parse_address(url)], token="t", clocks=Clocks(), trust=Trust(str(authority.file)))
        error, _ = failed(lambda: transport.post("/v1/lease", b"{}", deadline_s=5, limit=10))
    assert "does not speak TLS" in str(error)
    assert not error.sent


def _stall(connection: socket.socket) -> None:
    connection.recv(1)
    time.sleep(0)
    while connection.recv(65_536):
        pass


def _drip(connection: socket.socket) -> None:
    connection.recv(1)
    # The head of a handshake record of 16 KiB, and its first bytes, one by one.
    connection.sendall(b"\x16\x03\x03\x40\x00")
    while True:
        connection.sendall(b"\x02")
        time.sleep(0.05)


@pytest.mark.parametrize("script", [_stall, _drip])
def test_a_handshake_ends_by_the_deadline(authority: Authority, script: Script) -> None:
    """Whether nothing comes or a byte now and then; a stalled address costs the next one no more than its share."""
    with Scripted(script) as slow, Scripted(answers, tls=serving(authority.issue())) as next_one:
        addresses = [parse_address(slow.url.replace("http:", "https:")), parse_address(next_one.url)]
        trust = Trust(str(authority.file))
        alone = Transport(addresses[:1], token="t", clocks=Clocks(), trust=trust)
        error, took = failed(lambda: alone.post("/v1/lease", b"{}", deadline_s=0.4, limit=10))
        assert 0.3 < took < 1.5
        assert not error.sent
        both = Transport(addresses, token="t", clocks=Clocks(), trust=trust)
        assert both.post("/v1/lease", b"{}", deadline_s=4, limit=10).status == 200
        assert both.address == addresses[1]
        both.close()


class Drip:
    """A relay that hands on what a TLS server sends byte by byte, once it is told to."""

    def __init__(self, port: int) -> None:
        self.slow = threading.Event()
        self._port = port

    def __call__(self, connection: socket.socket) -> None:
        """Serve one connection."""
        with socket.create_connection((LOOPBACK, self._port)) as behind:

            def there() -> None:
                try:
                    while data := connection.recv(65_536):
                        behind.sendall(data)
                except OSError:
                    pass

            threading.Thread(target=there, daemon=True).start()
            while data := behind.recv(65_536):
                if not self.slow.is_set():
                    connection.sendall(data)
                    continue
                for byte in data:
                    connection.sendall(bytes([byte]))
                    time.sleep(0.05)


def test_a_record_that_drips_ends_by_the_deadline(authority: Authority, good: trustme.LeafCert) -> None:
    """Half a TLS record is nothing to read: each byte of it is a wake-up, and none of them another deadline."""
    with Scripted(answers, tls=serving(good)) as server:
        drip = Drip(server.port)
        with Scripted(drip) as relay:
            url = relay.url.replace("http:", "https:")
            transport = Transport([parse_address(url)], token="t", clocks=Clocks(), trust=Trust(str(authority.file)))
            assert transport.post("/v1/lease", b"{}", deadline_s=5, limit=10).status == 200
            drip.slow.set()
            error, took = failed(lambda: transport.post("/v1/lease", b"{}", deadline_s=0.4, limit=10))
            assert 0.3 < took < 1.5
            assert error.sent
            transport.close()


def test_an_interrupt_wakes_whoever_waits_under_tls(authority: Authority, good: trustme.LeafCert) -> None:
    """At once; and the next exchange has a connection of its own."""

    def script(connection: socket.socket) -> None:
        while request(connection):
            connection.sendall(STREAM + chunk(b"one\n"))

    with Scripted(script, tls=serving(good)) as server:
        transport = client(server, authority)
        for connections in (1, 2):
            stream = transport.stream("/v1/lease", b"{}", deadline_s=5)
            assert stream.line(deadline_s=5, limit=10) == b"one"
            timer = threading.Timer(0.1, transport.interrupt)
            timer.start()
            error, took = failed(lambda: stream.line(deadline_s=20, limit=10))  # noqa: B023  # called at once
            assert "interrupted" in str(error)
            assert took < 5
            assert server.connections == connections
            timer.join()


def test_an_end_without_a_word_is_no_end(authority: Authority, good: trustme.LeafCert) -> None:
    """Anybody on the way can end a connection: only a TLS alert says that the other side did."""

    def script(connection: socket.socket) -> None:
        request(connection)
        connection.sendall(b"HTTP/1.1 200 X\r\nConnection: close\r\n\r\n{}")

    with Scripted(script, tls=serving(good)) as server:
        error, _ = failed(lambda: client(server, authority).post("/v1/lease", b"{}", deadline_s=5, limit=10))
    assert "broke off" in str(error)


@pytest.mark.parametrize("content", [None, b"", b"not a certificate"])
def test_a_file_of_cas_that_cannot_work_is_refused_at_once(tmp_path: Path, content: bytes | None) -> None:
    """By the switch itself, not by a thread later."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"ca\.pem"):
        KillSwitch("https://h", token=FakeService().token, ca=file)


@pytest.fixture
def service() -> Iterator[FaultServer]:
    """Return a service, which speaks plain http."""
    with FaultServer(FakeService(ttl_ms=int(TTL_S * 1000))) as running:
        yield running


@pytest.mark.parametrize("wrong", ["expired", "wrong-host", "unknown-ca"])
def test_a_run_stops_by_a_bad_certificate_and_goes_on_by_a_renewed_one(
    authority: Authority, good: trustme.LeafCert, service: FaultServer, tmp_path: Path, wrong: str
) -> None:
    """Within ttl, saying which it is; and within two seconds of the new certificate, without a word from anybody."""
    leaf, told = bad(authority, tmp_path)[wrong]
    port = int(service.url.rpartition(":")[2])
    with (
        Scripted(forwarding(port), tls=serving(good)) as front,
        KillSwitch(front.url, token=service.service.token, ca=authority.file) as switch,
        switch.run("r-1") as run,
    ):
        run.check("send_email")
        front.tls = serving(leaf)
        front.cut()  # a certificate is shown when a connection is made
        begun = time.monotonic()
        stopped: set[Reason] = set()
        trouble = ""
        while time.monotonic() < begun + 3 * TTL_S:
            try:
                run.check("send_email")
            except Unverified as halt:
                stopped.add(halt.verdict.reason)
                trouble = halt.verdict.detail
            else:
                assert time.monotonic() - begun < TTL_S + 0.2  # the clock was read after the check
            time.sleep(0.005)
        assert Reason.UNREACHABLE in stopped
        assert told in trouble
        assert switch.trouble is not None
        assert told in switch.trouble.detail
        front.tls = serving(good)
        begun = time.monotonic()
        run.wait("send_email", timeout=5)
        assert time.monotonic() - begun < 2


_PATCHED: Final = """
from gevent import monkey
monkey.patch_all()
import sys, time
from gevent.monkey import get_original
from haltline import KillSwitch
block = get_original("time", "sleep")
with KillSwitch(sys.argv[1], token=sys.argv[2], ca=sys.argv[3]) as switch, switch.run("r-1", timeout=10) as run:
    before = switch._refresher.renewals
    block(3)
    assert switch._refresher.renewals > before + 3
    run.wait("send_email", timeout=10)
"""


def test_a_patched_agent_renews_its_lease_through_tls(
    authority: Authority, good: trustme.LeafCert, service: FaultServer
) -> None:
    """While its event loop is blocked, in a process that gevent has patched, ssl and all."""
    port = int(service.url.rpartition(":")[2])
    with Scripted(forwarding(port), tls=serving(good)) as front:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", _PATCHED, front.url, service.service.token, authority.file],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
            timeout=40,
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_mended_file_of_cas_is_read_anew(authority: Authority, good: trustme.LeafCert, tmp_path: Path) -> None:
    """Whoever trusted the wrong CA corrects the file; no agent is started anew for it."""
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(Authority(tmp_path, "other").file.read_bytes())
    with Scripted(answers, tls=serving(good)) as server:
        transport = Transport([parse_address(server.url)], token="t", clocks=Clocks(), trust=Trust(str(trusted)))
        failed(lambda: transport.post("/v1/lease", b"{}", deadline_s=5, limit=10))
        trusted.write_bytes(authority.file.read_bytes())
        assert transport.post("/v1/lease", b"{}", deadline_s=5, limit=10).status == 200
        transport.close()


def test_nothing_listens_there(authority: Authority) -> None:
    """Refused is refused, with TLS or without."""
    transport = Transport([parse_address(f"https://{LOOPBACK}:{free_port()}")], token="t", clocks=Clocks())
    error, _ = failed(lambda: transport.post("/v1/lease", b"{}", deadline_s=5, limit=10))
    assert "refused" in str(error)
    assert not error.sent
