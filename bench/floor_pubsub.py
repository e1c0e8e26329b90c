"""Raw Redis Pub/Sub: from PUBLISH until the last of 1, 1,000 and 10,000 subscribers has read the message."""

from __future__ import annotations

import itertools
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from bench.children import child
from bench.command import alone
from bench.figure import Effort, Figure, noted
from bench.spread import Spread, lasts, repeated, spread, told
from sample.servers.valkey import Valkey
from sample.troubles import Trouble
from tests.support.ports import LOOPBACK

NAME: Final = "floor_pubsub"
SIZES: Final = (1, 1_000, 10_000)
CHANNEL: Final = "haltline:bench"
OPEN_S: Final = 60.0
HEAR_S: Final = 10.0


def measure(effort: Effort) -> Iterator[Figure]:
    """Measure the floor alone; bench.propagation and bench.fanout measure it again beside what they measure."""
    with valkey() as server:
        for size in SIZES:
            with publishing(server.port, size) as publish:
                spreads = repeated(publish, effort.of(rounds(size)))
            yield noted(
                NAME,
                f"raw Pub/Sub: from PUBLISH until the last of {size:,} subscribers has read it",
                measured=told(lasts(spreads)),
            )


def rounds(size: int) -> int:
    """Return how many messages are enough to so many readers, at full effort."""
    return 200 if size < 1_000 else 100 if size < 10_000 else 40


@contextmanager
def valkey() -> Iterator[Valkey]:
    """Start a Valkey that takes more than 10,000 clients, lend it, and stop it.

    Raises:
        RuntimeError: it cannot be had here.
    """
    try:
        server = Valkey()
        server.start()
    except Trouble as trouble:
        raise RuntimeError(str(trouble)) from trouble
    try:
        with socket.create_connection((LOOPBACK, server.port), timeout=HEAR_S) as connection:
            connection.sendall(f"CONFIG SET maxclients {max(SIZES) + 100}\r\n".encode("ascii"))
            if (answer := connection.recv(100)) != b"+OK\r\n":
                raise RuntimeError(f"Valkey takes no more than 10,000 clients here: {answer!r}")
        yield server
    finally:
        server.close()


def command(number: int) -> bytes:
    """Return the command that publishes a number."""
    payload = str(number)
    text = f"*3\r\n$7\r\nPUBLISH\r\n${len(CHANNEL)}\r\n{CHANNEL}\r\n${len(payload)}\r\n{payload}\r\n"
    return text.encode("ascii")


@contextmanager
def publishing(port: int, size: int) -> Iterator[Callable[[], Spread]]:
    """Subscribe so many times in one process, and lend what publishes one message and returns when it was read."""
    numbers = itertools.count(1)
    with (
        child("bench.subscribers", port=port, size=size, channel=CHANNEL) as readers,
        socket.create_connection((LOOPBACK, port), timeout=HEAR_S) as publisher,
    ):
        readers.hear_of("open", seconds=OPEN_S)
        publisher.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def publish() -> Spread:
            number = next(numbers)
            begun = time.monotonic_ns()
            publisher.sendall(command(number))
            heard = readers.hear_of("seq", seconds=HEAR_S)
            if heard["seq"] != number:
                raise RuntimeError(f"{number} was published, and {heard['seq']} heard")
            publisher.recv(100)
            return spread(heard, begun)

        yield publish


if __name__ == "__main__":
    sys.exit(alone(measure))
