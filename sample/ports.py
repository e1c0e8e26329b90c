"""Ports of the loopback address: a free one below the range the kernel hands out by itself, and what waits at one."""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path
from typing import Final

LOOPBACK: Final = "127.0.0.1"

# From 32768 up any outgoing connection of any process may take a port between our probe and the server's bind.
_FIRST: Final = 20_000
_LAST: Final = 32_000


def is_free(port: int) -> bool:
    """Return whether a server could listen on a port of the loopback address right now."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT counts as free
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Return a free port between 20,000 and 32,000.

    Raises:
        OSError: 200 ports drawn in a row were taken.
    """
    for _ in range(200):
        port = random.randint(_FIRST, _LAST)
        if is_free(port):
            return port
    raise OSError(f"no free port between {_FIRST} and {_LAST} on {LOOPBACK} in 200 draws")


_TABLE: Final = Path("/proc/net/tcp")  # proc(5)
_ESTABLISHED: Final = "01"


def unread_bytes(port: int) -> int:
    """Return how many bytes have arrived at a port of the loopback address and were not read by whoever listens there.

    Raises:
        OSError: this system does not say; Linux does.
    """
    address = f"{int.from_bytes(socket.inet_aton(LOOPBACK), 'little'):08X}:{port:04X}"
    waiting = 0
    for line in _TABLE.read_text(encoding="ascii").splitlines()[1:]:
        _, local, _, state, queues, *_ = line.split()
        if local == address and state == _ESTABLISHED:
            waiting += int(queues.partition(":")[2], 16)
    return waiting
