"""A fleet that loses its only node comes back when the node does: hundreds of lease streams, or a thousand at night.

What the clients do is the product's own (tests/support/herd.py), and a few of them are real switches. The node is
killed and started anew, or stopped and resumed. How long a return may take counts in what this machine needs for a
fixed piece of work meanwhile: others use it, too.
"""

from __future__ import annotations

import http.client
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.e2e.server import Server
from tests.e2e.test_tls import Secure
from tests.support.certificates import Authority
from tests.support.counts import HERD, HERD_OUTAGE_S, HERD_SWITCHES, HERD_TLS, NIGHTLY
from tests.support.fleet import processes, send, url
from tests.support.herding import TICK_S, Herding, Tick
from tests.support.probes import now
from tests.support.slowness import Slowness

TTL_S: Final = 1.0
BACK_S: Final = 5.0
"""Within so many seconds of the first /livez 99 % have a lease again, on a machine that is not busy."""
STAYS_S: Final = 2.0
"""For so many seconds after that they have to keep it."""
SETTLED_S: Final = 2.0
"""After so many seconds of an outage nobody asks as after a first failure any more."""

ASKED_A_SECOND: Final = 1.7
"""How often a client asks a second in a long outage: pauses by decorrelated jitter, from 50 ms to 1 s (renewal.py)."""

pytestmark = pytest.mark.timeout(300 if NIGHTLY else 120)


def awake(server: Server) -> int:
    """Return when a node answers /livez, and wait for it."""
    while True:
        connection = server.connect()
        try:
            connection.request("GET", "/livez")
            if connection.getresponse().status == 200:
                return now()
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.02)


@contextmanager
def killed(server: Server) -> Iterator[None]:
    """Have a node killed for as long as the block lasts, and start it anew."""
    for process in reversed(processes(server)):
        process.kill()
    server.process.wait(10)
    yield
    starting = threading.Thread(target=server.start)
    starting.start()
    try:
        awake(server)
    finally:
        starting.join()


@contextmanager
def frozen(server: Server) -> Iterator[None]:
    """Have a node stopped for as long as the block lasts."""
    send(server, signal.SIGSTOP)
    while any(process.status() != psutil.STATUS_STOPPED for process in processes(server)):
        time.sleep(0.001)
    yield
    send(server, signal.SIGCONT)


class Fleet:
    """The herd and the switches beside it."""

    def __init__(self, herd: Herding, switches: Sequence[Herding]) -> None:
        self.herd = herd
        self.all = (herd, *switches)
        self.size = sum(each.size for each in self.all)

    def live(self, since: int, until: int) -> list[tuple[int, int]]:
        """Return how many were live in a span of time, and when that was so: at each tick of anybody."""
        latest = dict.fromkeys(self.all, 0)
        ticks = sorted(
            ((tick.at, number) for number, each in enumerate(self.all) for tick in each.between(since, until)),
        )
        told = {(tick.at, number): tick.live for number, each in enumerate(self.all) for tick in each.ticks}
        found = []
        for at, number in ticks:
            latest[self.all[number]] = told[at, number]
            found.append((at, sum(latest.values())))
        return found

    def back(self, since: int, until: int) -> float | None:
        """Return how many seconds after a moment 99 % were live and remained so; None if they did not."""
        enough = self.size * 99 // 100
        low = [at for at, live in self.live(since, until) if live < enough]
        last = max(low, default=since)
        return (last - since) / 1e9 + TICK_S if until - last >= STAYS_S * 1e9 else None


def rates(ticks: Sequence[Tick]) -> list[float]:
    """Return how many requests were begun a second, between each two ticks that are half a second apart."""
    apart = ticks[:: round(0.5 / TICK_S)]
    return [(after.asked - before.asked) / ((after.at - before.at) / 1e9) for before, after in pairwise(apart)]


@contextmanager
def fleet(server: Server, where: str, size: int, **trust: str) -> Iterator[Fleet]:
    """Have a fleet with leases from a node."""
    processes_of = max(HERD_SWITCHES // 10, 1)
    with ExitStack() as stack:
        herd = stack.enter_context(Herding("herd", size=size, port=server.port, token=server.token, **trust))
        switches = [
            stack.enter_context(
                Herding("herd_switches", size=HERD_SWITCHES // processes_of, url=where, token=server.token, **trust)
            )
            for _ in range(processes_of)
        ]
        for each in (herd, *switches):
            assert each.wait(each.size, seconds=90) is not None, f"not all had a lease at first: {each.ticks[-1:]}"
        yield Fleet(herd, switches)


def assert_comes_back(server: Server, running: Fleet, how: str) -> None:
    """Take the node away for a while; assert that nobody acts meanwhile, nobody storms, and all come back."""
    with Slowness() as slowness:
        with killed(server) if how == "killed" else frozen(server):
            down = now()
            time.sleep(HERD_OUTAGE_S)
            over = now()
        back = awake(server)
        while now() - back < (BACK_S * slowness.factor + STAYS_S) * 1e9:
            time.sleep(0.1)
            if now() - back > STAYS_S * 1e9 and running.back(back, now()) is not None:
                break
    end = now()
    # Nobody acts on a lease from before for longer than the ttl.
    lapsed = down + int(TTL_S * 1e9)
    assert max(tick.until for tick in running.herd.between(down, over)) * 1e9 <= lapsed
    # From one tick after the lapse on: what the others were a moment before it is carried along.
    assert all(tick.live == 0 for each in running.all for tick in each.between(lapsed, over))
    # Nobody asks more often than the rules say, and they do not ask in step.
    settled = running.herd.between(down + int(SETTLED_S * 1e9), over)
    expected = running.herd.size * ASKED_A_SECOND
    assert settled[-1].asked - settled[0].asked <= 1.3 * expected * (settled[-1].at - settled[0].at) / 1e9
    assert max(rates(settled)) <= (1.5 if how == "killed" else 2.5) * expected
    assert settled[-1].asked > settled[0].asked, "a herd that does not try shows nothing"
    # And all of them are back soon, for good.
    took = running.back(back, end)
    told = f"{took} s, slowness {slowness.factor:.2f}, live {running.live(back, end)[::20]}"
    assert took is not None, told
    assert took <= BACK_S * slowness.factor, told


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Fleet]]:
    """Return a node and its fleet."""
    with Server(tmp_path_factory.mktemp("node")) as server, fleet(server, url(server), HERD) as running:
        yield server, running


@pytest.mark.parametrize("how", ["frozen", "killed"])
def test_a_herd_comes_back(lost: tuple[Server, Fleet], how: str) -> None:
    """Whether the node stood still and was resumed with all that had queued up, or was killed and started anew."""
    assert_comes_back(*lost, how)


@pytest.mark.nightly
def test_a_herd_comes_back_by_tls(tmp_path: Path) -> None:
    """Each has a handshake to do first, and the node a greenlet for each stream: a smaller herd."""
    authority = Authority(tmp_path)
    chain, key = authority.files(authority.issue())
    server = Secure(tmp_path, options=("--tls-cert", str(chain), "--tls-key", str(key)))
    server.trusted = authority.file
    with server, fleet(server, server.url, HERD_TLS, ca=str(authority.file)) as running:
        assert_comes_back(server, running, "killed")
