"""HTTPS from end to end: ``serve --tls-cert``, agents that stop by it, and an operator who kills through it."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from haltline import Killed, KillSwitch, ServiceError
from haltline.address import parse_address
from haltline.clocks import Clocks
from haltline.tls import Trust
from haltline.transport import Transport
from tests.e2e.server import Server, command
from tests.support.certificates import Authority
from tests.support.cli import Ran, haltline
from tests.support.ports import LOOPBACK


class Secure(Server):
    """A server that is asked by HTTPS."""

    trusted: Path

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"https://{LOOPBACK}:{self.port}"

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection."""
        context = ssl.create_default_context(cafile=self.trusted)
        return http.client.HTTPSConnection(LOOPBACK, self.port, timeout=15, context=context)

    def issue(self, **members: str) -> str:
        """Return a new token."""
        token = self.call("POST", "/v1/tokens", members).members["token"]
        assert isinstance(token, str)
        return token


class Untrusted(Secure):
    """A server that nobody who verifies would call ready."""

    def wait_ready(self, _timeout: float = 0.0) -> None:
        """Wait for nothing."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return the CA of this module."""
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def server(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    """Return a running server, shared by this module."""
    chain, key = authority.files(authority.issue())
    made = Secure(tmp_path_factory.mktemp("server"), options=("--tls-cert", str(chain), "--tls-key", str(key)))
    made.trusted = authority.file
    with made as running:
        yield running


def kill(server: Secure, authority: Authority, *words: str) -> Ran:
    """Run ``haltline --ca ... kill run r-42``."""
    return haltline(
        *("--ca", str(authority.file), "kill", "run", "r-42", "--reason", "why", "--json", *words),
        settings={"HALTLINE_URL": server.url, "HALTLINE_TOKEN": server.token},
    )


def test_the_first_start_names_the_address_to_use(server: Secure) -> None:
    """With https in it."""
    assert f"export HALTLINE_URL={server.url}" in server.out


def test_an_agent_is_stopped_through_tls(server: Secure, authority: Authority) -> None:
    """By a stream of its own, killed by the command line: well before the ttl."""
    token = server.issue(subject="agent", role="worker")
    with KillSwitch(server.url, token=token, ca=authority.file) as switch, switch.run("r-42", timeout=10) as run:
        run.check("send_email")
        ran = kill(server, authority)
        assert ran.code == 0, ran.err

        def work() -> None:
            until = time.monotonic() + 5
            while time.monotonic() < until:
                run.check("send_email")
                time.sleep(0.001)

        with pytest.raises(Killed):
            work()
        assert switch.live


def test_whoever_does_not_trust_the_ca_kills_nothing(server: Secure) -> None:
    """And is told which certificate it is about, and what to name."""
    settings = {"HALTLINE_URL": server.url, "HALTLINE_TOKEN": server.token}
    ran = haltline("kill", "run", "r-43", "--reason", "why", settings=settings)
    assert ran.code == 4
    assert "not from a CA that is trusted here" in ran.err
    assert "--ca" in ran.err


def test_slow_handshakes_cost_nobody_else(server: Secure, authority: Authority) -> None:
    """A hundred callers that say nothing, or half a greeting: others are answered, and they are let go by."""
    waiting = [socket.create_connection((LOOPBACK, server.port)) for _ in range(100)]
    try:
        for each in waiting[::2]:
            each.sendall(b"\x16\x03\x01\x02\x00\x01")
        begun = time.monotonic()
        assert server.call("GET", "/livez").status == 200
        assert kill(server, authority).code == 0
        assert time.monotonic() - begun < 8  # starting the command is most of it
        for each in waiting:
            each.settimeout(10)
            assert each.recv(100) == b""
    finally:
        for each in waiting:
            each.close()


def test_plain_http_is_not_answered(server: Secure) -> None:
    """No request is served that came without TLS."""
    transport = Transport([parse_address(server.url.replace("https", "http"))], token="t", clocks=Clocks())
    with pytest.raises(ServiceError):
        transport.post("/v1/lease", b"{}", deadline_s=5, limit=100)
    transport.close()


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions(server: Secure, authority: Authority, newest: ssl.TLSVersion) -> None:
    """TLS 1.2 and 1.3 are spoken."""
    context = ssl.create_default_context(cafile=authority.file)
    context.maximum_version = newest
    with (
        socket.create_connection((LOOPBACK, server.port)) as plain,
        context.wrap_socket(plain, server_hostname=LOOPBACK) as secured,
    ):
        assert secured.version() == newest.name.replace("_", ".")


def test_a_renewed_certificate_is_taken_up_without_a_restart(authority: Authority, tmp_path: Path) -> None:
    """From one connection to the next; a pair that does not fit leaves the former one in force."""
    chain, key = authority.files(authority.expired(), "renewed")
    made = Untrusted(tmp_path, options=("--tls-cert", str(chain), "--tls-key", str(key)))
    made.trusted = authority.file
    transport = Transport([parse_address(made.url)], token="t", clocks=Clocks(), trust=Trust(str(authority.file)))

    def status() -> int:
        transport.close()
        return transport.request("GET", "/livez", deadline_s=5).status

    with made:
        until = time.monotonic() + 20
        told = ""
        while "has expired" not in told:
            assert time.monotonic() < until, told
            with pytest.raises(ServiceError) as caught:
                status()
            told = str(caught.value)
            time.sleep(0.05)
        renewed = authority.issue()
        chain.write_bytes(b"".join(each.bytes() for each in renewed.cert_chain_pems))
        with pytest.raises(ServiceError, match="has expired"):
            status()  # the key is still the old one
        renewed.private_key_pem.write_to_path(str(key))
        assert status() == 200
        transport.close()


def test_check_shows_the_certificate(authority: Authority, tmp_path: Path) -> None:
    """For whom it is and until when; one that is about to end, or has ended, is warned of."""
    soon = datetime.now(UTC) + timedelta(days=9, hours=1)
    for leaf, days, warned in (
        (authority.issue("haltline.example", "10.0.0.1", ends=datetime(2038, 1, 1, tzinfo=UTC)), "2038-01-01", ""),
        (authority.issue("haltline.example", ends=soon), "9 days", "expires within 14 days"),
        (authority.expired(), "ended on", "has expired"),
    ):
        chain, key = authority.files(leaf, "shown")
        ran = command(tmp_path, "serve", "--check", "--tls-cert", str(chain), "--tls-key", str(key))
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert days in ran.stdout
        assert (warned in ran.stdout) if warned else ("warning" not in ran.stdout)
        if not warned:
            assert "tls        haltline.example, 10.0.0.1, until" in ran.stdout


def test_pairs_that_cannot_work_are_refused(authority: Authority, tmp_path: Path) -> None:
    """With status 2 and what to do, before anything listens; the check says the same."""
    chain, key = authority.files(authority.issue(), "one")
    other_chain, other_key = authority.files(authority.issue(), "two")
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text(json.dumps({"not": "PEM"}))
    for cert, private, told in (
        (chain, other_key, "is not the key of the first certificate"),
        (other_chain, tmp_path / "none.key", "none.key cannot be read: No such file"),
        (nonsense, key, "must be PEM"),
        (key, key, "must be PEM"),
    ):
        for words in (("serve",), ("serve", "--check")):
            ran = command(tmp_path, *words, "--tls-cert", str(cert), "--tls-key", str(private))
            assert ran.returncode == 2, ran.stdout
            assert told in ran.stdout + ran.stderr
            assert "Traceback" not in ran.stderr
