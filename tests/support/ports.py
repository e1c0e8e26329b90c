"""A free port on the loopback address, below the range the kernel hands out by itself."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from typing import Final

LOOPBACK: Final = "127.0.0.1"

# From 32768 up (ip_local_port_range) any outgoing connection of any process may take a port between
# our probe and the server's bind, or even connect to itself. Below it only those who ask by number do.
FIRST: Final = 20_000
LAST: Final = 32_000

# A draw of its own: tests that seed `random` (hypothesis does) must not all draw the same ports.
_draw = random.Random(os.urandom(16))


def free_port() -> int:
    """Return a TCP port on 127.0.0.1 that nobody listens on, from 20,000 to 32,000.

    The port is free when this returns and drawn at random, so two test runs at once rarely meet;
    a server that finds it taken after all should be started again on another.

    Raises:
        RuntimeError: 200 ports drawn in a row were taken.
    """
    for _ in range(200):
        port = _draw.randint(FIRST, LAST)
        with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
            # As servers do: a port in TIME_WAIT counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port between {FIRST} and {LAST} on {LOOPBACK} in 200 draws")
