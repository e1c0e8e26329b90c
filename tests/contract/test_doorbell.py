"""What every doorbell keeps: in one process, on a Redis, and both at once."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import psutil
import pytest

from app.bus import open_doorbell
from app.bus.in_process import InProcessDoorbell
from app.bus.redis import RedisDoorbell
from app.service.doorbell import MAYBE_MISSED, Doorbell, DoorbellUnavailable
from tests.support.ear import Ear
from tests.support.valkey import Valkey

ROOT: Final = Path(__file__).parents[2]
WITHIN_S: Final = 5.0
"""How long a ring is waited for: a bound for a busy machine, no promise."""

RING_ELSEWHERE: Final = """
import sys
from app.bus.redis import RedisDoorbell
bell = RedisDoorbell(sys.argv[1], "default")
bell.ring(int(sys.argv[2]))
bell.close()
"""


class Town:
    """Doorbells that hear each other, each with the ear of its node."""

    def __init__(self, make: Callable[[], Doorbell], *, far: bool) -> None:
        self.far = far
        self._make = make
        self._bells: list[Doorbell] = []

    def node(self, *ears: Ear) -> Doorbell:
        """Return the doorbell of a further node, heard by ``ears``; those of one process share theirs."""
        bell = self._make()
        for ear in ears:
            bell.listen(ear)
        bell.start()
        self._bells.append(bell)
        if self.far and ears:
            assert ears[0].hears(MAYBE_MISSED, within_s=WITHIN_S)
        return bell

    def close(self) -> None:
        """Close all of them."""
        for bell in self._bells:
            bell.close()


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    """Yield the address of a Redis that these tests share, as a user who may ring and nothing else."""
    with Valkey(user="haltline") as server:
        yield server.url


@pytest.fixture(params=["in process", "redis", "both"])
def town(request: pytest.FixtureRequest) -> Iterator[Town]:
    """Yield a place where doorbells ring, of each kind."""
    with ExitStack() as ending:
        if request.param == "in process":
            only = InProcessDoorbell()
            made = Town(lambda: only, far=False)
        else:
            url = str(request.getfixturevalue("redis_url"))
            if request.param == "redis":
                made = Town(lambda: RedisDoorbell(url, "default"), far=True)
            else:
                made = Town(lambda: open_doorbell(url, "default"), far=True)
        ending.callback(made.close)
        yield made


def test_everybody_hears_a_ring(town: Town) -> None:
    """A ring is heard by every listener of every node, that of the node that rang included."""
    ears = [Ear() for _ in range(4)]
    ringing = town.node(ears[0], ears[1])
    town.node(ears[2], ears[3])
    ringing.ring(7)
    assert all(ear.hears(7, within_s=WITHIN_S) for ear in ears)


def test_the_newest_position_is_heard(town: Town) -> None:
    """Rings that come together may be heard as one, which is the newest; a position that nobody rang is never heard."""
    here, there = Ear(), Ear()
    one, other = town.node(here), town.node(there)
    for seq in range(1, 200, 2):
        one.ring(seq)
        other.ring(seq + 1)
    assert here.hears(200, within_s=WITHIN_S)
    assert there.hears(200, within_s=WITHIN_S)
    assert {*here.heard, *there.heard} <= {MAYBE_MISSED, *range(1, 201)}


def test_positions_far_apart_are_heard(town: Town) -> None:
    """Any position of a log is heard as it is, and a small one after a large one, which may have been forged."""
    ear = Ear()
    bell = town.node(ear)
    for seq in (2**63 - 1, 1, 2**53 + 1):
        bell.ring(seq)
        assert ear.hears(seq, within_s=WITHIN_S)


def test_one_who_does_not_listen_may_ring(town: Town) -> None:
    """A doorbell without a listener, not even started, rings the others."""
    ear = Ear()
    town.node(ear)
    town.node().ring(3)
    assert ear.hears(3, within_s=WITHIN_S)


def test_a_closed_doorbell_refuses_to_ring(town: Town) -> None:
    """After close, ring raises what the port has for it, and nothing is heard; closing again does nothing."""
    ear = Ear()
    bell = town.node(ear)
    bell.close()
    with pytest.raises(DoorbellUnavailable):
        bell.ring(5)
    bell.close()
    assert 5 not in ear.heard


def test_starting_twice_hears_once(town: Town) -> None:
    """Starting again what runs changes nothing: each ring is heard as often as before."""
    ear = Ear()
    bell = town.node(ear)
    threads = threading.active_count()
    bell.start()
    assert threading.active_count() == threads


def test_closing_leaves_nothing(town: Town) -> None:
    """Once closed, a doorbell that heard and rang has no thread and no connection."""
    me = psutil.Process()
    before = threading.active_count(), len(me.net_connections("inet"))
    ear = Ear()
    bell = town.node(ear)
    bell.ring(1)
    assert ear.hears(1, within_s=WITHIN_S)
    bell.close()
    until = time.monotonic() + WITHIN_S
    while (threading.active_count(), len(me.net_connections("inet"))) > before and time.monotonic() < until:
        time.sleep(0.02)
    assert (threading.active_count(), len(me.net_connections("inet"))) <= before


def test_a_doorbell_that_only_rang_leaves_nothing(redis_url: str) -> None:
    """Ringing without ever listening leaves no connection after close."""
    me = psutil.Process()
    before = len(me.net_connections("inet"))
    bell = RedisDoorbell(redis_url, "default")
    bell.ring(1)
    assert len(me.net_connections("inet")) == before + 1
    bell.close()
    assert len(me.net_connections("inet")) == before


def test_another_process_is_heard(redis_url: str) -> None:
    """What another process rings on the same Redis is heard here."""
    ear = Ear()
    town = Town(lambda: open_doorbell(redis_url, "default"), far=True)
    town.node(ear)
    subprocess.run([sys.executable, "-c", RING_ELSEWHERE, redis_url, "11"], cwd=ROOT, check=True, timeout=30)
    assert ear.hears(11, within_s=WITHIN_S)
    town.close()


def test_another_namespace_is_not_heard(redis_url: str) -> None:
    """Logs of two namespaces on one Redis do not ring for each other."""
    mine, theirs = Ear(), Ear()
    town = Town(lambda: RedisDoorbell(redis_url, "default"), far=True)
    other = Town(lambda: RedisDoorbell(redis_url, "staging"), far=True)
    bell = town.node(mine)
    other.node(theirs).ring(8)
    assert theirs.hears(8, within_s=WITHIN_S)
    bell.ring(9)
    assert mine.hears(9, within_s=WITHIN_S)
    assert 8 not in mine.heard
    town.close()
    other.close()


def test_nothing_is_connected_before_the_start(redis_url: str) -> None:
    """Making a doorbell and listening to it starts no thread and no connection: a fork may come between."""
    me = psutil.Process()
    before = threading.active_count(), len(me.net_connections("inet"))
    bell = open_doorbell(redis_url, "default")
    bell.listen(Ear())
    assert (threading.active_count(), len(me.net_connections("inet"))) == before
    bell.close()


def test_without_a_redis_the_doorbell_is_of_this_process() -> None:
    """No address, no Redis: the default needs nothing beside the process."""
    assert isinstance(open_doorbell(None, "default"), InProcessDoorbell)
