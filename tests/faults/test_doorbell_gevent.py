"""A doorbell in a process that gevent patched: a Redis that is frozen or floods stops nobody else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.support.valkey import Valkey

ROOT: Final = Path(__file__).parents[2]

SCRIPT: Final = """
from gevent import monkey
monkey.patch_all()
import os, signal, subprocess, sys, time
import gevent
from app.bus import open_doorbell
from app.bus.redis import RedisDoorbell
from tests.support.ear import Ear

url, pid = sys.argv[1], int(sys.argv[2])
gaps = []
def tick():
    last = time.monotonic()
    while True:
        gevent.sleep(0.005)
        now = time.monotonic()
        gaps.append(now - last)
        last = now
ear = Ear()
bell = open_doorbell(url, "default")
bell.listen(ear)
bell.start()
assert ear.hears(0, within_s=10)
other = RedisDoorbell(url, "default")
other.ring(3)
assert ear.hears(3, within_s=10)
gevent.spawn(tick)

# frozen: whoever rings goes on at once, here it is heard all the same
os.kill(pid, signal.SIGSTOP)
for seq in range(10, 20):
    bell.ring(seq)
    gevent.sleep(0.05)
assert ear.hears(19, within_s=1)
gevent.sleep(2.5)  # the listener notices, and tries again
heard = len(ear.heard)
os.kill(pid, signal.SIGCONT)
assert ear.hears(0, within_s=2, after=heard)
assert max(gaps) < 0.25, max(gaps)

# a flood from another process
gaps.clear()
flood = "import sys; from redis import Redis; r = Redis.from_url(sys.argv[1]); " \\
    "p = r.pipeline(transaction=False); [p.publish('haltline:default:doorbell', n) for n in range(50_000)]; p.execute()"
assert subprocess.run([sys.executable, "-c", flood, url], timeout=30).returncode == 0
assert max(gaps) < 0.25, max(gaps)

began = time.monotonic()
bell.close()
other.close()
assert time.monotonic() - began < 1.5
print("done")
"""


def test_a_frozen_or_flooded_redis_stops_no_greenlet(valkey: Valkey) -> None:
    """While Redis hangs or floods, other greenlets go on; a flip here is heard here at once; closing is quick."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, valkey.url, str(valkey.pid)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.stdout.splitlines()[-1:], done.returncode) == (["done"], 0), done.stdout + done.stderr
