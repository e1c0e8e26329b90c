"""A Redis that is down, frozen, flooded or lying makes nodes slower by a part of a ttl, and nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

import psutil
import pytest
from redis import Redis

from app.bus.redis import TIMEOUT_S, RedisDoorbell
from app.bus.redis_listener import PAUSE_S
from app.config import Config
from app.domain.access import Principal, Role
from app.factory import create_node
from app.service.doorbell import MAYBE_MISSED, DoorbellUnavailable
from app.service.flips import Flipped
from app.service.node import Node
from haltline.scopes import parse_target
from tests.support.ear import Ear
from tests.support.places import NAMESPACE, Place
from tests.support.valkey import Valkey

CHANNEL: Final = f"haltline:{NAMESPACE}:doorbell"
BACK_S: Final = 2.0
"""How long after Redis is back the doorbell rings again at the latest."""

ADA: Final = Principal("aaaaaaaaaaaa", "ada", Role.OPERATOR, None, frozenset(), 9e9)
JUNK: Final = (b"revive", b'{"op":"revive","target":"global"}', b"\xff\x00\xff", b"-1", b"9" * 400, b"", b"0", b"1e9")


class Pair:
    """Two nodes of one log, joined by a Redis: one that flips and one that serves workers."""

    def __init__(self, place: Place, redis_url: str) -> None:
        config = Config(database_url=place.url, namespace=NAMESPACE, redis_url=redis_url, log_level="error")
        self.control: Node = create_node(config)
        self.worker: Node = create_node(config)
        self.ear = Ear()
        self.worker.bell.listen(self.ear)
        for node in (self.control, self.worker):
            node.start()
        self.reads_to(self.control.store.head().position.seq)

    def kill(self, target: str) -> int:
        """Kill at one node, and return the position of the flip."""
        outcome = self.control.flips.kill(ADA, parse_target(target), reason="why", flip_id=None)
        assert isinstance(outcome, Flipped)
        return outcome.committed.row.position.seq

    def seq(self) -> int:
        """Return how far the other node has read."""
        published = self.worker.refresher.published
        return published.replica.position.seq if published is not None else 0

    def reads_to(self, seq: int, *, within_s: float = 10.0) -> bool:
        """Wait until the other node has read so far; return whether it did in time."""
        return eventually(lambda: self.seq() >= seq, within_s)

    def close(self) -> None:
        """Close both."""
        self.control.close()
        self.worker.close()


def eventually(holds: Callable[[], bool], within_s: float) -> bool:
    """Wait until something holds; return whether it did in time."""
    until = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(0.002)
    return True


def connections(valkey: Valkey) -> int:
    """Return how many connections of this process to the server are open."""
    mine = psutil.Process().net_connections("tcp")
    return sum(each.raddr[1:] == (valkey.port,) and each.status == "ESTABLISHED" for each in mine)


@pytest.fixture
def pair(postgres_place: Place, valkey: Valkey) -> Iterator[Pair]:
    """Yield two nodes that hear each other."""
    made = Pair(postgres_place, valkey.url)
    assert made.ear.hears(MAYBE_MISSED, within_s=10)
    yield made
    made.close()


@pytest.fixture
def bells(valkey: Valkey) -> Iterator[tuple[RedisDoorbell, Ear]]:
    """Yield a doorbell and the ear of another one, both steady."""
    ringing, hearing = RedisDoorbell(valkey.url, NAMESPACE), RedisDoorbell(valkey.url, NAMESPACE)
    ear = Ear()
    hearing.listen(ear)
    hearing.start()
    assert ear.hears(MAYBE_MISSED, within_s=10)
    yield ringing, ear
    ringing.close()
    hearing.close()


def test_redis_down_at_the_start(postgres_place: Place, valkey: Valkey) -> None:
    """Nodes start without their Redis, flips commit and are read in time; once it is there, the doorbell rings."""
    valkey.kill()
    pair = Pair(postgres_place, valkey.url)
    try:
        for n in range(3):
            assert pair.reads_to(pair.kill(f"run:r-{n}"), within_s=1.0)
        assert pair.ear.heard == []
        valkey.start()
        assert pair.ear.hears(MAYBE_MISSED, within_s=BACK_S)
        assert pair.ear.hears(pair.kill("run:r-9"), within_s=BACK_S)
    finally:
        pair.close()


def test_redis_killed_and_restarted(pair: Pair, valkey: Valkey) -> None:
    """Redis dies and comes back three times: each flip is read in time, the doorbell is back within two seconds."""
    threads = threading.active_count()
    for n in range(3):
        valkey.kill()
        assert pair.reads_to(pair.kill(f"run:down-{n}"), within_s=1.0)
        heard = len(pair.ear.heard)
        valkey.start()
        assert pair.ear.hears(MAYBE_MISSED, within_s=BACK_S, after=heard)
        assert pair.ear.hears(pair.kill(f"run:up-{n}"), within_s=BACK_S)
    assert eventually(lambda: connections(valkey) <= 3, 5)  # two listeners, one who rang
    assert eventually(lambda: threading.active_count() <= threads + 2, 5)  # the threads that ring, started by need
    pair.close()
    assert eventually(lambda: connections(valkey) == 0, 5)


def test_redis_frozen(pair: Pair, valkey: Valkey) -> None:
    """While Redis is frozen, flips do not wait for it and are read in time; thawed, it rings again within two seconds.

    That a ring waits for it is measured beside: ten flips take less than ten rings would.
    """
    with valkey.frozen():
        began = time.monotonic()
        flips = [pair.kill(f"run:r-{n}") for n in range(10)]
        assert time.monotonic() - began < 10 * TIMEOUT_S
        assert pair.reads_to(flips[-1], within_s=1.0)
        began = time.monotonic()
        with pytest.raises(DoorbellUnavailable):
            RedisDoorbell(valkey.url, NAMESPACE).ring(1)
        assert TIMEOUT_S <= time.monotonic() - began < 2.0
        time.sleep(2.5)  # long enough for the listeners to notice: what is frozen for less keeps its connections
        heard = len(pair.ear.heard)
    assert pair.ear.hears(MAYBE_MISSED, within_s=BACK_S, after=heard)
    assert pair.ear.hears(pair.kill("run:r-10"), within_s=BACK_S)


def test_closing_does_not_wait_for_a_frozen_redis(valkey: Valkey, postgres_place: Place) -> None:
    """A node whose Redis is frozen, and which is just ringing, closes its doorbell at once."""
    pair = Pair(postgres_place, valkey.url)
    assert pair.ear.hears(MAYBE_MISSED, within_s=10)
    with valkey.frozen():
        pair.kill("run:r-1")
        began = time.monotonic()
        pair.control.bell.close()
        assert time.monotonic() - began < 1.5
        pair.close()
        assert eventually(lambda: connections(valkey) == 0, 5)
        names = {thread.name for thread in threading.enumerate()}
        assert not names & {"haltline-doorbell", "haltline-bell"}


def test_forged_messages_flip_nothing(pair: Pair, valkey: Valkey) -> None:
    """A forged revive, and a forged position beyond the log, leave the kill as it is on every node."""
    seq = pair.kill("global")
    assert pair.reads_to(seq)
    with Redis.from_url(valkey.url) as forger:
        for message in (*JUNK, str(2**63 - 1), seq + 1_000, 1):
            forger.publish(CHANNEL, message)
    assert eventually(lambda: max(pair.ear.heard) == 2**63 - 1, 5)
    for node in (pair.control, pair.worker):
        node.refresher.refresh()
        published = node.refresher.published
        assert published is not None
        assert published.replica.position.seq == seq
        assert sum(map(len, published.replica.holds.values())) == 1
    assert pair.ear.hears(pair.kill("run:r-1"), within_s=5)  # a forged large one hides no real one


def test_a_flood_keeps_no_node_busy(pair: Pair, valkey: Valkey) -> None:
    """Under 100,000 junk and forged messages flips are read in time; nobody reads more often than once in 2 ms.

    What is left of the flood when it ends is not heard through: the doorbell rings again within two seconds.
    """
    rings = len(pair.ear.heard)
    began = time.monotonic()
    with Redis.from_url(valkey.url) as forger:
        for batch in range(100):
            pipe = forger.pipeline(transaction=False)
            for n in range(1_000):
                pipe.publish(CHANNEL, JUNK[n % len(JUNK)] if n % 2 else str(1_000_000 + n))
            pipe.execute()
            if batch % 25 == 10:
                assert pair.reads_to(pair.kill(f"run:r-{batch}"), within_s=1.0)
    took_s = time.monotonic() - began
    assert len(pair.ear.heard) - rings <= took_s / PAUSE_S + 1
    # What is rung while the node is deaf is not heard: it is asked again until one is.
    until, after = time.monotonic() + BACK_S, 0
    while not pair.ear.hears(pair.kill(f"run:after-{after}"), within_s=0.2):
        after += 1
        assert time.monotonic() < until


def test_rings_that_come_fast_are_heard_as_fewer(bells: tuple[RedisDoorbell, Ear]) -> None:
    """More than a thousand rings a second, which is no flood yet, have nobody read more often than once in 2 ms."""
    bell, ear = bells
    heard = len(ear.heard)
    began = time.monotonic()
    for n in range(1_500):
        bell.ring(n + 1)
        time.sleep(max(0.0, began + n / 1_500 - time.monotonic()))
    assert ear.hears(1_500, within_s=BACK_S)
    took_s = time.monotonic() - began
    assert len(ear.heard) - heard <= took_s / PAUSE_S + 1
    assert MAYBE_MISSED not in ear.heard[heard:]


def test_a_subscription_that_redis_ends_is_taken_up_again(bells: tuple[RedisDoorbell, Ear], valkey: Valkey) -> None:
    """After CLIENT KILL, and after the output buffer overflowed, the doorbell is heard again within two seconds."""
    bell, ear = bells
    with Redis.from_url(valkey.url) as admin:
        heard = len(ear.heard)
        assert admin.execute_command("CLIENT", "KILL", "TYPE", "pubsub") >= 1
        assert ear.hears(MAYBE_MISSED, within_s=BACK_S, after=heard)
        bell.ring(5)
        assert ear.hears(5, within_s=BACK_S)
        heard = len(ear.heard)
        admin.config_set("client-output-buffer-limit", "pubsub 32kb 16kb 1")
        admin.publish(CHANNEL, b"9" * 10_000_000)
        assert ear.hears(MAYBE_MISSED, within_s=BACK_S, after=heard)
        bell.ring(6)
        assert ear.hears(6, within_s=BACK_S)


def test_a_large_message_costs_the_subscription_and_nothing_else(
    bells: tuple[RedisDoorbell, Ear], valkey: Valkey
) -> None:
    """Megabytes on the channel are not a position: the subscription is taken up anew, and rings are heard."""
    bell, ear = bells
    heard = len(ear.heard)
    with Redis.from_url(valkey.url) as forger:
        forger.publish(CHANNEL, b"9" * 5_000_000)
    assert ear.hears(MAYBE_MISSED, within_s=BACK_S, after=heard)
    bell.ring(7)
    assert ear.hears(7, within_s=BACK_S)
    assert {*ear.heard} == {MAYBE_MISSED, 7}
