"""As tests of httpx in threads, under asyncio: what is stopped is not sent, an abort ends what is in flight."""

# ruff: noqa: PT012, SIM117 - the kill comes inside the block, and what surfaces is what leaves it

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Iterator
from typing import Any

import pytest

from haltline import Killed, Unverified
from haltline.propagation import extract
from haltline.testing import FakeSwitch, fake_switch
from tests.support.aborts import ABORTS, SOON_S, calls, descriptors, killed_after
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


@pytest.mark.parametrize("path", ["/hang", "/drip", "/close"])
def test_a_call_in_a_task_is_ended(
    switch: FakeSwitch, library: Any, halting: Any, upstream: Upstream, path: str
) -> None:
    """As in a thread, with nothing left cancelled, and the client serves on."""
    before = upstream.requests(path)

    async def main() -> None:
        async with library.AsyncClient(transport=halting.AsyncHaltingTransport(), timeout=20) as client:
            async with switch.run("r-1") as run:
                await client.get(f"{upstream.url}/good")
                ended = killed_after(switch, lambda: upstream.wait_for(path, before + 1))
                with pytest.raises(Killed):
                    await client.get(upstream.url + path)
                assert time.monotonic() - await asyncio.to_thread(ended) < SOON_S
                assert calls(run) == 0
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            assert await asyncio.to_thread(upstream.closed_within, SOON_S) < SOON_S
            async with switch.run("r-2"):
                assert (await client.get(f"{upstream.url}/good")).text == "good"

    asyncio.run(main())
    upstream.closed_within(10)


def test_a_streaming_response_is_ended_in_asyncio(
    switch: FakeSwitch, library: Any, halting: Any, upstream: Upstream
) -> None:
    """The connection is closed though nobody reads, and reading on raises Killed."""

    async def main() -> None:
        async with library.AsyncClient(transport=halting.AsyncHaltingTransport()) as client:
            async with switch.run("r-1") as run:
                with pytest.raises(Killed):
                    async with client.stream("GET", f"{upstream.url}/drip") as response:
                        parts = response.aiter_raw()
                        assert await anext(parts) == PIECE
                        switch.service.kill("run:r-1")
                        await asyncio.to_thread(upstream.closed_within, SOON_S)
                        await anext(parts)
                assert calls(run) == 0

    asyncio.run(main())


def test_a_pool_serves_on_after_a_hundred_aborts_in_asyncio(
    switch: FakeSwitch, library: Any, halting: Any, upstream: Upstream
) -> None:
    """Ten at a time are ended in mid-response; a shared pool then serves a hundred, and no socket is left."""

    async def drip(client: Any, name: str) -> None:
        async with switch.run(name):
            with pytest.raises(Killed):
                async with client.stream("GET", f"{upstream.url}/drip") as response:
                    async for _ in response.aiter_raw():
                        asyncio.get_running_loop().call_later(0.01, switch.service.kill, f"run:{name}")

    async def good(client: Any) -> str:
        async with switch.run("good"):
            return str((await client.get(f"{upstream.url}/good")).text)

    async def main() -> None:
        limits = library.Limits(max_connections=10)
        transport = halting.AsyncHaltingTransport(library.AsyncHTTPTransport(limits=limits))
        async with library.AsyncClient(transport=transport, timeout=20) as client:
            await good(client)
            before, requests = descriptors(), upstream.requests("/good")
            for number in range(ABORTS // 10):
                await asyncio.gather(*(drip(client, f"r-{number}-{each}") for each in range(10)))
            assert descriptors() <= before
            assert await asyncio.gather(*(good(client) for _ in range(ABORTS))) == ["good"] * ABORTS
            assert upstream.requests("/good") == requests + ABORTS
            await asyncio.to_thread(upstream.closed_within, 10, left=10)
            assert descriptors() <= before + 10

    asyncio.run(main())
    upstream.closed_within(10)


def test_a_task_is_asked_last_thing_and_carries_its_run(
    switch: FakeSwitch, library: Any, halting: Any, upstream: Upstream
) -> None:
    """A kill while the connection is made stops the request; hosts that are named get the run."""
    before = upstream.requests("/good")

    async def traced(name: str, info: dict[str, Any]) -> None:
        if name == "connection.connect_tcp.complete":
            switch.service.kill("run:r-2", in_flight="finish")

    async def main() -> None:
        transport = halting.AsyncHaltingTransport(carry_to=["localhost"])
        async with library.AsyncClient(transport=transport) as client:
            async with switch.run("r-1") as run:
                got = await client.get(f"{upstream.url}/echo", headers={"connection": "close"})
                assert extract(got.json()) == run.carried
            async with switch.run("r-2"):
                with pytest.raises(Killed):
                    await client.get(f"{upstream.url}/good", extensions={"trace": traced})
            with pytest.raises(Unverified):
                await client.get(f"{upstream.url}/good")

    asyncio.run(main())
    assert upstream.requests("/good") == before
    upstream.closed_within(10)
