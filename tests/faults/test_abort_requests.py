"""HTTP calls through requests: what is stopped is not sent, and an abort ends what is in flight."""

# ruff: noqa: PT012, SIM117 - the kill comes inside the block, and what surfaces is what leaves it

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
import trustme
from urllib3.util.retry import Retry

from haltline import CapabilityFrozen, ConfigurationError, Killed, Unverified, carry
from haltline.integrations.requests import HaltingAdapter
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


@pytest.fixture
def session(upstream: Upstream) -> Iterator[requests.Session]:
    """Return a session whose connections are closed at the end, also at the server."""
    with made(HaltingAdapter(pool_maxsize=20)) as session:
        yield session
    upstream.closed_within(10)


def made(adapter: HaltingAdapter) -> requests.Session:
    """Return a session that sends everything through an adapter."""
    session = requests.Session()
    session.trust_env = False
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


def test_a_stopped_run_sends_nothing(switch: FakeSwitch, session: requests.Session, upstream: Upstream) -> None:
    """Neither a killed run nor code without a run gets a request out."""
    before = upstream.requests("/good")
    with pytest.raises(Unverified, match="no run is current"):
        session.get(f"{upstream.url}/good", timeout=20)
    with switch.run("r-1") as run:
        assert session.get(f"{upstream.url}/good", timeout=20).text == "good"
        assert session.head(f"{upstream.url}/good", timeout=20).status_code == 501
        assert calls(run) == 0
        switch.service.kill("run:r-1", in_flight="finish")
        with pytest.raises(Killed, match="run r-1 is stopped"):
            session.get(f"{upstream.url}/good", timeout=20)
    assert upstream.requests("/good") == before + 1


def test_it_is_asked_last_thing_before_the_first_byte(switch: FakeSwitch, upstream: Upstream) -> None:
    """A kill between the first check and the request stops it, also one that lets calls in flight finish."""
    before = upstream.requests("/good")

    class Late(HaltingAdapter):
        def add_headers(self, request: requests.PreparedRequest, **kwargs: Any) -> None:
            """Kill: requests calls this once everything is ready."""
            super().add_headers(request, **kwargs)
            switch.service.kill("run:r-1", in_flight="finish")

    with made(Late()) as session, switch.run("r-1"), pytest.raises(Killed):
        session.get(f"{upstream.url}/good", timeout=20)
    assert upstream.requests("/good") == before
    upstream.closed_within(10)


@pytest.mark.parametrize("path", ["/hang", "/drip", "/close"])
def test_a_call_is_ended(switch: FakeSwitch, session: requests.Session, upstream: Upstream, path: str) -> None:
    """What waits for headers or for more of a body ends within a second, as Killed; the server sees it go."""
    before = upstream.requests(path)
    with switch.run("r-1") as run:
        session.get(f"{upstream.url}/good", timeout=20)  # the connection is one that is reused
        ended = killed_after(switch, lambda: upstream.wait_for(path, before + 1))
        with pytest.raises(Killed):
            session.get(upstream.url + path, timeout=20)
        assert time.monotonic() - ended() < SOON_S
        assert calls(run) == 0
    assert upstream.closed_within(SOON_S) < SOON_S


def test_an_aborted_call_is_not_tried_again(switch: FakeSwitch, upstream: Upstream) -> None:
    """Retries of urllib3, and their pauses, do not take an abort for a failure."""
    before = upstream.requests("/hang")

    class Slow(Retry):
        def sleep(self, response: object = None) -> None:  # noqa: ARG002 - urllib3 calls it so
            """Pause, also before the first retry."""
            time.sleep(2 * SOON_S)

    with made(HaltingAdapter(max_retries=Slow(total=5, allowed_methods=None))) as session, switch.run("r-1"):
        ended = killed_after(switch, lambda: upstream.wait_for("/hang", before + 1))
        with pytest.raises(Killed):
            session.get(f"{upstream.url}/hang", timeout=20)
        assert time.monotonic() - ended() < SOON_S
    assert upstream.requests("/hang") == before + 1


@pytest.mark.parametrize("path", ["/drip", "/close"])
def test_a_streaming_response_is_ended(
    switch: FakeSwitch, session: requests.Session, upstream: Upstream, path: str
) -> None:
    """Reading on after an abort raises Killed; the connection is closed at once, though nobody reads."""
    with switch.run("r-1") as run:
        with session.get(upstream.url + path, stream=True, timeout=20) as response:
            assert response.raw.read(len(PIECE)) == PIECE
            assert calls(run) == 1
            switch.service.kill("run:r-1")
            upstream.closed_within(SOON_S)
            with pytest.raises(Killed):
                response.raw.read(1)
        assert calls(run) == 0


def test_a_body_that_was_cut_is_not_taken_for_a_whole_one(
    switch: FakeSwitch, session: requests.Session, upstream: Upstream
) -> None:
    """One read to the end of a body that ends with its connection."""
    with switch.run("r-1") as run:
        with session.get(f"{upstream.url}/close", stream=True, timeout=20) as response:
            ended = killed_after(switch, lambda: time.sleep(0.1))
            with pytest.raises(Killed):
                response.raw.read()
            assert time.monotonic() - ended() < SOON_S
        assert calls(run) == 0


def test_what_may_finish_does(switch: FakeSwitch, session: requests.Session, upstream: Upstream) -> None:
    """Under ``finish`` a call goes on, and it is over once it was read."""
    with switch.run("r-1") as run:
        response = session.get(f"{upstream.url}/good", stream=True, timeout=20)
        switch.service.kill("run:r-1", in_flight="finish")
        assert calls(run) == 1
        assert b"".join(response.iter_content(2)) == b"good"
        assert calls(run) == 0


def test_capabilities_and_carrying(switch: FakeSwitch, upstream: Upstream) -> None:
    """A capability may depend on the request; hosts that are named get the run, also none behind a redirect."""
    elsewhere = upstream.url.replace("localhost", "127.0.0.1")

    def named(request: requests.PreparedRequest) -> str | None:
        return "call_api" if request.method == "POST" else None

    with made(HaltingAdapter(capability=named, carry_to=["localhost"])) as session, switch.run("r-1") as run:
        switch.service.kill("capability:call_api")
        with pytest.raises(CapabilityFrozen):
            session.post(f"{upstream.url}/good", timeout=20)
        for given in ("a=b", b"a=b"):
            got = session.get(f"{upstream.url}/echo", headers={"Baggage": given}, timeout=20)
            assert extract(got.json()) == run.carried
            assert "a=b" in str(got.json())
        assert "baggage" not in session.get(f"{upstream.url}/echo", timeout=20).request.headers
        assert extract(session.get(f"{elsewhere}/echo", timeout=20).json()) is None
        redirected = session.get(f"{upstream.url}/to/{quote(elsewhere + '/echo')}", timeout=20)
        assert "127.0.0.1" in redirected.url
        assert extract(redirected.json()) is None


def test_a_pool_serves_on_after_a_hundred_aborts(
    switch: FakeSwitch, session: requests.Session, upstream: Upstream
) -> None:
    """After aborts in mid-response a shared pool serves as many good calls, and no socket is left."""
    with switch.run("good"):
        session.get(f"{upstream.url}/good", timeout=20)
    before, count = descriptors(), upstream.requests("/good")
    for number in range(ABORTS):
        with switch.run(f"r-{number}"), pytest.raises(Killed):
            with session.get(f"{upstream.url}/drip", stream=True, timeout=20) as response:
                for _ in response.iter_content(8):
                    switch.service.kill(f"run:r-{number}")
    assert descriptors() <= before
    with switch.run("good-2"):
        texts = [session.get(f"{upstream.url}/good", timeout=20).text for _ in range(ABORTS)]
    assert texts == ["good"] * ABORTS
    assert upstream.requests("/good") == count + ABORTS
    upstream.closed_within(10, left=1)
    assert descriptors() <= before + 1


def test_many_threads_are_ended_at_once(switch: FakeSwitch, session: requests.Session, upstream: Upstream) -> None:
    """One kill ends what twenty threads wait for."""
    hangs = upstream.requests("/hang")
    ended: list[float] = []

    def hang() -> None:
        with pytest.raises(Killed):
            session.get(f"{upstream.url}/hang", timeout=20)
        ended.append(time.monotonic())

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
    upstream.closed_within(2 * SOON_S)


def test_a_call_with_tls_is_ended(switch: FakeSwitch, tmp_path: Path) -> None:
    """Also behind TLS, and while TLS is begun with a server that says nothing."""
    authority, certificate, trusted = trustme.CA(), tmp_path / "server.pem", tmp_path / "ca.pem"
    issued = authority.issue_cert("localhost")
    certificate.write_bytes(issued.private_key_pem.bytes() + issued.cert_chain_pems[0].bytes())
    trusted.write_bytes(authority.cert_pem.bytes())
    with Upstream(certificate) as upstream, socket.create_server(("localhost", 0)) as silent, switch.run("r-1"):
        with made(HaltingAdapter()) as session:
            session.verify = str(trusted)
            with switch.run("r-2"):
                assert session.get(f"{upstream.url}/good", timeout=20).text == "good"
                ended = killed_after(switch, lambda: upstream.wait_for("/hang"), "run:r-2")
                with pytest.raises(Killed):
                    session.get(f"{upstream.url}/hang", timeout=20)
                assert time.monotonic() - ended() < SOON_S
            upstream.closed_within(SOON_S)
            taken: list[socket.socket] = []
            ended = killed_after(switch, lambda: taken.append(greeted(silent)))
            with pytest.raises(Killed):
                session.get(f"https://localhost:{silent.getsockname()[1]}/good", timeout=20)
            assert time.monotonic() - ended() < SOON_S
            taken[0].close()


def test_socks_is_refused(switch: FakeSwitch) -> None:
    """Its connections are of another kind, which an abort could not end."""
    with made(HaltingAdapter()) as session, switch.run("r-1"), pytest.raises(ConfigurationError, match="SOCKS"):
        session.get("http://localhost/", proxies={"http": "socks5://localhost:1"}, timeout=20)
