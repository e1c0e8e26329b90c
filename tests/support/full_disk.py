"""A process that kills until its disk is full, looks what can still be done, gets space again, and tells it all.

    python -m tests.support.full_disk <folder> limit | ballast | journal

``limit`` and ``journal`` have the kernel refuse writes beyond a file size (setrlimit(2)): that of the database, and so
small that not even the journal can be written. ``ballast`` fills the file system of the folder, which must be small.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from app.service.store import OutcomeUnknown, Store, StoreUnavailable
from app.storage import open_store
from haltline.flips import Position, follow
from tests.support.orders import committed, kill_order
from tests.support.places import EPOCH, NAMESPACE, OPENED_AT

MOST: Final = 5_000
LONG: Final = "x" * 500


def _limited(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def _fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def _full(folder: Path, how: str) -> Callable[[], None]:
    """Fill the disk; return what makes room again."""
    if how == "ballast":
        _fill(folder / "ballast")
        return (folder / "ballast").unlink
    _limited((folder / "haltline.db").stat().st_size if how == "limit" else 100)
    return lambda: _limited(resource.RLIM_INFINITY)


def _refused(store: Store) -> tuple[list[int], str, str, float]:
    """Kill until it is refused; return the positions acknowledged, the flip_id, how it was refused and in what time."""
    acked: list[int] = []
    for number in range(MOST):
        flip_id = f"f-full-{number}"
        began = time.monotonic()
        try:
            done = store.kill(kill_order(f"run:full-{number}", flip_id=flip_id, reason=LONG))
        except (StoreUnavailable, OutcomeUnknown) as error:
            return acked, flip_id, type(error).__name__, time.monotonic() - began
        acked.append(committed(done).row.position.seq)
    raise RuntimeError("the disk was never full")


def main() -> None:
    """Run, and print what happened as one JSON object."""
    folder, how = Path(sys.argv[1]), sys.argv[2]
    store = open_store(f"sqlite:///{folder / 'haltline.db'}")
    store.open_log(namespace=NAMESPACE, ttl_ms=1000, at=OPENED_AT, epoch=EPOCH)
    before = [committed(store.kill(kill_order(f"run:r-{number}"))).row.position.seq for number in range(5)]
    room = _full(folder, how)
    acked, flip_id, refused, took_s = _refused(store)
    _, _, again, _ = _refused(store) if how != "limit" else (0, 0, refused, 0)
    told: dict[str, Any] = {"acked": before + acked, "refused": refused, "again": again, "took_s": took_s}
    told["head_while_full"] = store.head().position.seq
    told["entries_while_full"] = len(store.refresh(Position(), limit=MOST).rows)
    room()
    later = committed(store.kill(kill_order(f"run:{flip_id.replace('f-', '')}", flip_id=flip_id, reason=LONG)))
    told["replayed"] = later.replayed
    rows = store.export(after=0, up_to=2**53, limit=2 * MOST)
    told["chain"] = [entry.position.seq for entry in follow((json.loads(row.body) for row in rows), after=Position())]
    told["head"] = store.load(remember_since=OPENED_AT).head.position.seq
    store.close()
    os.write(1, json.dumps(told).encode())


if __name__ == "__main__":
    main()
