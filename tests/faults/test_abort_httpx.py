"""HTTP calls through httpx and httpx2: what is stopped is not sent, and an abort ends what is in flight."""

# ruff: noqa: PT012, SIM117 - the kill comes inside the block, and what surfaces is what leaves it

from __future__ import annotations

import importlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trustme

from haltline import CapabilityFrozen, ConfigurationError, InvalidTarget, Killed, Unverified, carry
from haltline.carried import Carried
from haltline.propagation import extract
from haltline.testing import FakeSwitch, fake_switch
from tests.support.aborts import ABORTS, SOON_S, calls, descriptors, greeted, killed_after
from tests.support.upstream import PIECE, Upstream


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    """Return a server that runs for all tests here."""
    with Upstream() as server:
        yield server


@pytest.fixture
def switch() -> FakeSwitch:
    """Return a switch that is renewed by each flip."""
    return fake_switch()


@pytest.fixture(params=["httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> Any:
    """Return the library, one after the other."""
    return importlib.import_module(request.param)


@pytest.fixture
def halting(library: Any) -> Any:
    """Return our module for it."""
    return importlib.import_module(f"haltline.integrations.{library.__name__}")


@pytest.fixture
def client(library: Any, halting: Any, upstream: Upstream) -> Iterator[Any]:
    """Return a client for threads, whose connections are closed at the end, also at the server."""
    with library.Client(transport=halting.HaltingTransport(), timeout=20) as made:
        yield made
    upstream.closed_within(10)


def test_a_stopped_run_sends_nothing(switch: FakeSwitch, client: Any, upstream: Upstream) -> None:
    """Neither a killed run nor code without a run gets a request out."""
    before = upstream.requests("/good")
    with pytest.raises(Unverified, match="no run is current"):
        client.get(f"{upstream.url}/good")
    with switch.run("r-1"):
        assert client.get(f"{upstream.url}/good").text == "good"
        switch.service.kill("run:r-1")
        with pytest.raises(Killed, match="run r-1 is stopped"):
            client.get(f"{upstream.url}/good")
    assert upstream.requests("/good") == before + 1


def test_it_is_asked_last_thing_before_the_first_byte(
    switch: FakeSwitch, library: Any, halting: Any, upstream: Upstream
) -> None:
    """A kill while the connection is made stops the request, also one that lets calls in flight finish."""
    before = upstream.requests("/good")
    names: list[str] = []

    def traced(name: str, info: dict[str, Any]) -> None:
        names.append(name)
        if name == "connection.connect_tcp.complete":
            switch.service.kill("run:r-1", in_flight="finish")

    with library.Client(transport=halting.HaltingTransport()) as client, switch.run("r-1"):
        with pytest.raises(Killed):
            client.get(f"{upstream.url}/good", extensions={"trace": traced})
    assert "connection.connect_tcp.complete" in names
    assert upstream.requests("/good") == before


@pytest.mark.parametrize("path", ["/hang", "/drip", "/close"])
def test_a_call_in_a_thread_is_ended(switch: FakeSwitch, client: Any, upstream: Upstream, path: str) -> None:
    """What waits for headers or for more of a body ends within a second, as Killed; the server sees it go."""
    before = upstream.requests(path)
    with switch.run("r-1") as run:
        client.get(f"{upstream.url}/good")  # the connection is one that is reused
        ended = killed_after(switch, lambda: upstream.wait_for(path, before + 1))
        with pytest.raises(Killed):
            client.get(upstream.url + path)
        assert time.monotonic() - ended() < SOON_S
        assert calls(run) == 0
    assert upstream.closed_within(SOON_S) < SOON_S


def test_a_streaming_response_is_ended(switch: FakeSwitch, client: Any, upstream: Upstream) -> None:
    """Reading on after an abort raises Killed; the connection is closed at once, though nobody reads."""
    with switch.run("r-1") as run:
        with pytest.raises(Killed):
            with client.stream("GET", f"{upstream.url}/drip") as response:
                parts = response.iter_raw()
                assert next(parts) == PIECE
                assert calls(run) == 1
                switch.service.kill("run:r-1")
                upstream.closed_within(SOON_S)
                next(parts)
        assert calls(run) == 0


def test_what_may_finish_does(switch: FakeSwitch, client: Any, upstream: Upstream) -> None:
    """Under ``finish`` a call goes on, and the next one is not sent."""
    with switch.run("r-1"):
        with client.stream("GET", f"{upstream.url}/good") as response:
            switch.service.kill("run:r-1", in_flight="finish")
            assert response.read() == b"good"
        with pytest.raises(Killed):
            client.get(f"{upstream.url}/good")


def test_a_capability_by_request(switch: FakeSwitch, library: Any, halting: Any, upstream: Upstream) -> None:
    """A frozen capability refuses the requests that use it, and ends theirs alone."""

    def named(request: Any) -> str | None:
        return "call_api" if request.url.path == "/drip" else None

    with library.Client(transport=halting.HaltingTransport(capability=named)) as client, switch.run("r-1"):
        with client.stream("GET", f"{upstream.url}/drip") as response:
            parts = response.iter_raw()
            next(parts)
            switch.service.kill("capability:call_api")
            with pytest.raises(CapabilityFrozen):
                next(parts)
        with pytest.raises(CapabilityFrozen):
            client.get(f"{upstream.url}/drip")
        assert client.get(f"{upstream.url}/good").text == "good"


def test_the_run_is_carried_to_hosts_that_are_named(
    switch: FakeSwitch, library: Any, halting: Any, upstream: Upstream
) -> None:
    """Only they get it, also after a redirect, and other baggage stays."""
    elsewhere = upstream.url.replace("localhost", "127.0.0.1")
    with switch.run("r-1") as run:
        with library.Client(transport=halting.HaltingTransport(carry_to={"LOCALHOST"})) as client:
            got = client.get(f"{upstream.url}/echo", headers={"baggage": "a=b"})
            assert extract(got.json()) == run.carried
            assert "a=b" in got.json()["baggage"]
            assert extract(client.get(f"{elsewhere}/echo").json()) is None
            redirected = client.get(f"{upstream.url}/to/{quote(elsewhere + '/echo')}", follow_redirects=True)
            assert redirected.url.host == "127.0.0.1"
            assert extract(redirected.json()) is None
        with library.Client(transport=halting.HaltingTransport()) as client:
            assert extract(client.get(f"{upstream.url}/echo").json()) is None
    assert isinstance(run.carried, Carried)


def test_a_pool_serves_on_after_a_hundred_aborts(switch: FakeSwitch, client: Any, upstream: Upstream) -> None:
    """After aborts in mid-response a shared pool serves as many good calls, and no socket is left."""
    with switch.run("good"):
        client.get(f"{upstream.url}/good")
    before, requests = descriptors(), upstream.requests("/good")
    for number in range(ABORTS):
        with switch.run(f"r-{number}"), pytest.raises(Killed):
            with client.stream("GET", f"{upstream.url}/drip") as response:
                for _ in response.iter_raw():
                    switch.service.kill(f"run:r-{number}")
    assert descriptors() <= before
    with switch.run("good-2"):
        assert [client.get(f"{upstream.url}/good").text for _ in range(ABORTS)] == ["good"] * ABORTS
    assert upstream.requests("/good") == requests + ABORTS
    upstream.closed_within(10, left=1)
    assert descriptors() <= before + 1


def test_many_threads_are_ended_at_once(switch: FakeSwitch, client: Any, upstream: Upstream) -> None:
    """One kill ends what twenty threads wait for; another run's call goes on."""
    hangs, drips = upstream.requests("/hang"), upstream.requests("/drip")
    ended: list[float] = []

    def hang() -> None:
        with pytest.raises(Killed):
            client.get(f"{upstream.url}/hang")
        ended.append(time.monotonic())

    with switch.run("other"), client.stream("GET", f"{upstream.url}/drip") as response:
        parts = response.iter_raw()
        next(parts)
        with switch.run("r-1"):
            threads = [threading.Thread(target=carry(hang)) for _ in range(20)]
            for thread in threads:
                thread.start()
            upstream.wait_for("/hang", hangs + 20)
            began = time.monotonic()
            switch.service.kill("run:r-1")
            for thread in threads:
                thread.join()
        assert len(ended) == 20
        assert max(ended) - began < 2 * SOON_S
        upstream.closed_within(2 * SOON_S, left=1)
        assert upstream.requests("/drip") == drips + 1
        time.sleep(0.05)
        assert upstream.counts()["open"] == 1


def test_a_call_with_tls_is_ended(switch: FakeSwitch, library: Any, halting: Any, tmp_path: Path) -> None:
    """Also behind TLS, and while TLS is begun with a server that says nothing."""
    authority, certificate = trustme.CA(), tmp_path / "server.pem"
    issued = authority.issue_cert("localhost")
    certificate.write_bytes(issued.private_key_pem.bytes() + issued.cert_chain_pems[0].bytes())
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with Upstream(certificate) as upstream, socket.create_server(("localhost", 0)) as silent, switch.run("r-1"):
        transport = halting.HaltingTransport(library.HTTPTransport(verify=context))
        with library.Client(transport=transport, timeout=20) as client:
            with switch.run("r-2"):
                assert client.get(f"{upstream.url}/good").text == "good"
                ended = killed_after(switch, lambda: upstream.wait_for("/hang"), "run:r-2")
                with pytest.raises(Killed):
                    client.get(f"{upstream.url}/hang")
                assert time.monotonic() - ended() < SOON_S
            upstream.closed_within(SOON_S)
            taken: list[socket.socket] = []
            ended = killed_after(switch, lambda: taken.append(greeted(silent)))
            with pytest.raises(Killed):
                client.get(f"https://localhost:{silent.getsockname()[1]}/good")
            assert time.monotonic() - ended() < SOON_S
            taken[0].close()


def test_a_pause_before_another_try_to_connect_is_ended(switch: FakeSwitch, library: Any, halting: Any) -> None:
    """Retries of httpx, which would sleep for a minute by then, end as soon as anything else."""
    with socket.socket() as nobody, switch.run("r-1"):
        nobody.bind(("localhost", 0))  # and listens not
        transport = halting.HaltingTransport(library.HTTPTransport(retries=8))
        with library.Client(transport=transport, timeout=20) as client:
            ended = killed_after(switch, lambda: time.sleep(1.0))
            with pytest.raises(Killed):
                client.get(f"http://localhost:{nobody.getsockname()[1]}/good")
            assert time.monotonic() - ended() < SOON_S


def test_transports_that_need_no_network(switch: FakeSwitch, library: Any, halting: Any) -> None:
    """Any transport may be inside: its calls are asked for, and over when they have answered."""
    inner = library.MockTransport(lambda _: library.Response(200, text="mine"))
    with library.Client(transport=halting.HaltingTransport(inner)) as client, switch.run("r-1") as run:
        assert client.get("http://nowhere/").text == "mine"
        assert calls(run) == 0
        switch.service.kill("run:r-1")
        with pytest.raises(Killed):
            client.get("http://nowhere/")


def test_what_cannot_work_is_refused(library: Any, halting: Any) -> None:
    """HTTP/2, a capability that is none, and one text in place of hosts are refused at once."""
    inner = library.HTTPTransport()
    inner._pool._http2 = True  # noqa: SLF001 - without the package h2 nobody is let to say so
    with pytest.raises(ConfigurationError, match="http2=True"):
        halting.HaltingTransport(inner)
    with pytest.raises(InvalidTarget):
        halting.HaltingTransport(capability="Send Mail")
    with pytest.raises(TypeError):
        halting.HaltingTransport(carry_to="localhost")
