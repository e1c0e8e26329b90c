"""A process that kills run after run and says, for each, when it was acknowledged: something to be shot at.

    python -m tests.support.flipper <address> <how many> <prefix of flip_id>

Each acknowledgement is one write of one line, ``ACK <seq> <hash> <flip_id>``, straight to the descriptor.
"""

from __future__ import annotations

import os
import sys

from app.service.store import Committed
from app.storage import open_store
from tests.support.orders import kill_order


def main() -> None:
    """Open the log and flip."""
    address, count, prefix = sys.argv[1:]
    store = open_store(address)
    store.open_log(namespace="default", ttl_ms=1000, at="2026-11-20T20:25:11.000000Z", epoch="0123456789abcdef")
    os.write(1, b"OPEN\n")
    for number in range(int(count)):
        done = store.kill(kill_order(f"run:r-{number}", flip_id=f"{prefix}-{number}"))
        if not isinstance(done, Committed):
            raise SystemExit(f"not committed: {done}")
        os.write(1, f"ACK {done.row.position.seq} {done.row.position.hash} {prefix}-{number}\n".encode())
    store.close()


if __name__ == "__main__":
    main()
