"""Whatever a network does to a lease, no check passes later than ttl after it, none waits, and runs go on soon after.

Each fault has a proxy and a probe of its own before one real node, and all happen side by side. Bounds are exact and no
matter of load: client, node and test read the same CLOCK_BOOTTIME, and what is asserted of a lease is its arithmetic.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import pytest

from tests.e2e.server import Server
from tests.support.fault_modes import Fault, Mode
from tests.support.fault_proxy import FaultProxy
from tests.support.fleet import kill, url
from tests.support.probes import Probe, Told, now, on_lease_clock

TTL_MS: Final = 1_000
TTL_NS: Final = TTL_MS * 1_000_000
TTL_S: Final = TTL_MS / 1000
SOON_NS: Final = 2_000_000_000
BUSY_NS: Final = 1_000_000_000
"""How much later than soon, on a machine on which twenty processes go on at once, and others beside them."""
GIVEN_UP: Final = 0.05
"""The share of checks in which the interpreter may hand over to the refresher's thread. One that waits always does."""


@dataclass(frozen=True)
class Case:
    """A fault, and what it does to a lease.

    Attributes:
        begin: puts it in force, and returns when it was, nanoseconds.
        stops: whether no proof of the truth can come through while it lasts, so that checks must stop.
    """

    begin: Callable[[FaultProxy], int]
    stops: bool = True


def _late_then_lost(proxy: FaultProxy) -> int:
    """Delay replies by 0.6 ttl for a while, then lose what follows: the last news comes 0.6 ttl late."""
    proxy.set(Fault(Mode.LATENCY, seconds=0.6 * TTL_S), up=False)
    time.sleep(1.5 * TTL_S)
    return proxy.set(Mode.LOSE)


CASES: Final = {
    "latency and jitter": Case(lambda proxy: proxy.set(Fault(Mode.LATENCY, seconds=0.03, jitter=0.02)), stops=False),
    "latency beyond ttl": Case(lambda proxy: proxy.set(Fault(Mode.LATENCY, seconds=TTL_S))),
    "late and then lost": Case(_late_then_lost),
    "replies drip": Case(lambda proxy: proxy.set(Fault(Mode.DRIP, seconds=0.02), up=False)),
    # What the client sends does not matter while a stream is open; the next one is asked for 6 s later at the earliest.
    "requests drip": Case(lambda proxy: proxy.set(Fault(Mode.DRIP, seconds=0.02), down=False), stops=False),
    "requests are lost": Case(lambda proxy: proxy.set(Mode.LOSE, down=False), stops=False),
    "black hole": Case(lambda proxy: proxy.set(Mode.LOSE)),
    "half-open": Case(lambda proxy: proxy.set(Mode.LOSE, up=False)),
    "partition that heals": Case(lambda proxy: proxy.set(Mode.STALL)),
    "reset": Case(lambda proxy: proxy.set(Mode.RESET)),
    "reset in mid-frame": Case(lambda proxy: proxy.set(Fault(Mode.RESET_AFTER, after=150))),
    "refused": Case(lambda proxy: proxy.set(Mode.REFUSE)),
    "half-close": Case(lambda proxy: proxy.set(Mode.HALF_CLOSE)),
    "cut frame": Case(lambda proxy: proxy.set(Mode.CUT)),
    "replayed first reply": Case(lambda proxy: proxy.set(Mode.REPLAY)),
    "stale proxy": Case(lambda proxy: proxy.set(Mode.STALE)),
    "spliced replies": Case(lambda proxy: proxy.set(Mode.SPLICE), stops=False),
    "redirect": Case(lambda proxy: proxy.set(Mode.REDIRECT)),
    "page": Case(lambda proxy: proxy.set(Mode.HTML)),
}


@dataclass
class Outcome:
    """What came of one case: the run's story, and the moments that count, nanoseconds of the lease clock.

    ``unserved`` is for how long, from the end of the fault until the run went on, the node did not keep the lease of
    a client on a clean path either: a machine too busy for the node is none of the client's doing.
    """

    told: Told
    began: int
    ended: int
    went_on: int
    killed_under: Told
    effective_at: int
    healed: int
    cost: tuple[int, int]
    unserved: int = 0


def _through(case: Case, run: str, server: Server, proxy: FaultProxy, probe: Probe) -> Outcome:
    """Break one path twice: once to see the run stop and go on, once with a kill of it meanwhile."""
    probe.told_until(run, now() + 300_000_000)
    began = case.begin(proxy)
    time.sleep(2 * TTL_S)
    ended = proxy.heal()
    went_on = probe.went_on(run, ended) if case.stops else ended
    told = probe.told_until(run, went_on + TTL_NS)
    case.begin(proxy)
    killed = kill(server, f"run:{run}").members
    effective_at = on_lease_clock(killed["effective_at"])
    probe.told_until(run, effective_at + TTL_NS)
    healed = proxy.heal()
    killed_under = probe.killed(run)
    probe.end()
    return Outcome(told, began, ended, went_on, killed_under, effective_at, healed, probe.cost)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Outcome]]:
    """Return what came of every case; they all happen at once."""
    folder = tmp_path_factory.mktemp("node")
    with ExitStack() as stack:
        server = stack.enter_context(Server(folder, more={"HALTLINE_TTL_MS": str(TTL_MS)}))
        proxies = [stack.enter_context(FaultProxy(server.port)) for _ in CASES]
        # Twenty processes that check without pause would keep the node from its work.
        probes = [stack.enter_context(Probe(proxy.url, server.token, PROBER_PAUSE_S="0.003")) for proxy in proxies]
        clean = stack.enter_context(Probe(url(server), server.token, PROBER_PAUSE_S="0.003"))
        clean.arm("r-clean")
        runs = [f"r-{number}" for number in range(len(CASES))]
        for probe, run in zip(probes, runs, strict=True):
            probe.arm(run)
        assert f"haltline_streams {len(CASES) + 1}.0" in server.call("GET", "/metrics").body.decode(), "not streams"
        with ThreadPoolExecutor(len(CASES)) as pool:
            each = [
                pool.submit(_through, case, run, server, proxy, probe)
                for case, run, proxy, probe in zip(CASES.values(), runs, proxies, probes, strict=True)
            ]
            came = {name: future.result(50) for name, future in zip(CASES, each, strict=True)}
        story = clean.told_until("r-clean", now())
        for outcome in came.values():
            outcome.unserved = story.stopped_between(outcome.ended, outcome.went_on)
        yield came


STOPPING: Final = [name for name, case in CASES.items() if case.stops]


@pytest.mark.parametrize("name", STOPPING)
def test_no_check_passes_later_than_ttl_after_a_fault_began(outcomes: dict[str, Outcome], name: str) -> None:
    """The last frame that came through was read before the fault began: what it grants ends ttl after that."""
    came = outcomes[name]
    assert came.told.passes_after(came.began + TTL_NS, until=came.ended) == []
    assert came.told.stops(since=came.began, until=came.ended)


@pytest.mark.parametrize("name", STOPPING)
def test_a_run_goes_on_soon_after_a_fault_ended(outcomes: dict[str, Outcome], name: str) -> None:
    """By itself, the same run: an unverified stop is not latched."""
    came = outcomes[name]
    assert came.went_on - came.ended - came.unserved < SOON_NS + BUSY_NS


@pytest.mark.parametrize("name", CASES)
def test_no_check_passes_after_effective_at_of_a_kill_made_meanwhile(outcomes: dict[str, Outcome], name: str) -> None:
    """The kill reaches the node by another path, while this one is broken; the run stays halted once it is heard."""
    came = outcomes[name]
    assert came.killed_under.passes_after(came.effective_at) == []
    assert came.killed_under.stretches[-1].reason == "killed"


@pytest.mark.parametrize("name", CASES)
def test_no_check_waits(outcomes: dict[str, Outcome], name: str) -> None:
    """Whatever the network does, a check is a look at memory: its thread does not give up the processor in it."""
    count, waited = outcomes[name].cost
    assert count > 100
    assert waited < GIVEN_UP * count


def test_a_slow_path_stops_nobody(outcomes: dict[str, Outcome]) -> None:
    """Latency far below ttl costs no lease; only a busy machine may, and not for the rest of it."""
    told = outcomes["latency and jitter"].told
    assert sum(each.count for each in told.stops()) < 0.1 * sum(each.count for each in told.stretches)
