"""A store in a process that gevent patched: a database that makes one flip wait stops nobody else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.support.places import Place

ROOT: Final = Path(__file__).parents[2]

SCRIPT: Final = """
from gevent import monkey
monkey.patch_all()
import sys, time
import gevent
from app.service.store import StoreUnavailable
from tests.support.orders import committed, kill_order
from tests.support.places import Place

url, owner_url = sys.argv[1:]
store = Place(url, owner_url).opened()
gaps = []
def tick():
    last = time.monotonic()
    while True:
        gevent.sleep(0.005)
        now = time.monotonic()
        gaps.append(now - last)
        last = now
gevent.spawn(tick)
gevent.sleep(0.05)

# many greenlets flip and read at once
done = gevent.joinall(
    [gevent.spawn(lambda n=n: committed(store.kill(kill_order(f"run:r-{n}"))).row.position.seq) for n in range(30)]
    + [gevent.spawn(store.head) for _ in range(30)],
    raise_error=True,
)
assert sorted(greenlet.value for greenlet in done if isinstance(greenlet.value, int)) == list(range(2, 32))

# somebody holds the database's lock
if url.startswith("sqlite"):
    import sqlite3
    holder = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
else:
    import psycopg
    from app.storage.postgres import LOG_LOCK
    holder = psycopg.connect(owner_url)
    holder.execute("SELECT pg_advisory_xact_lock(%s)", [LOG_LOCK])
gaps.clear()
began = time.monotonic()
try:
    store.kill(kill_order())
except StoreUnavailable:
    pass
else:
    raise AssertionError("the lock is held")
assert time.monotonic() - began > 0.5
assert max(gaps) < 0.25, max(gaps)
holder.close()
committed(store.kill(kill_order()))

# a greenlet that is killed in the middle of a call leaves a store that works
for delay in (0, 0.0005, 0.001, 0.002, 0.003):
    victim = gevent.spawn(store.kill, kill_order("run:victim"))
    gevent.sleep(delay)
    victim.kill()
committed(store.kill(kill_order()))
assert store.refresh(store.head().position, limit=1).last
store.close()
print("done")
"""


def test_a_waiting_flip_stops_no_greenlet(place: Place) -> None:
    """While a flip waits for the database, other greenlets go on; a greenlet that is killed leaves nothing broken."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, place.url, place.owner_url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr
