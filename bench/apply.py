"""One flip applied to a replica that already holds 100,000 kills."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any, Final

from bench.agent import AT, EPOCH, NAMESPACE, TTL_MS, others
from bench.command import alone
from bench.figure import Bound, Effort, Figure
from bench.measure import Compared, calls, compare, shown
from haltline.canonical import canonical, parse
from haltline.clocks import Clocks
from haltline.flips import Entry, parse_entry, seal
from haltline.lease import Lease
from haltline.renewal import Identity, Renewal, Reply
from haltline.replica import Replica
from haltline.verdict import Reason, Stop

NAME: Final = "apply"
KILLS: Final = 100_000

BOUND: Final = Bound(must=5, goal=5, unit=" ms")


def measure(effort: Effort) -> Iterator[Figure]:
    """Measure the fold of one kill alone, and with the frame that brings it."""
    replica = others(KILLS)
    members = one_kill(replica)
    entries: tuple[Entry, ...] = (parse_entry(members),)
    rounds = effort.of(200)
    copy = calls(dict(replica.holds).copy)
    result = compare(copy, calls(lambda: replica.extend(entries)), rounds=rounds, loops=1)
    yield figure("one kill folded into a replica of 100,000", result)
    result = compare(copy, calls(lambda: answer(replica, members)), rounds=rounds, loops=1)
    yield figure("… with the frame that brings it: parsed, its hash verified, judged and published", result)


def figure(what: str, result: Compared) -> Figure:
    """Return a row; the one dict that any immutable replica has to copy stands beside it."""
    return BOUND.figure(
        NAME,
        what,
        value=result.taken_s * 1e3,
        measured=f"{shown(result.taken_s)}, {result.ratio:.1f}x a dict copy",
        floor=f"copy of a dict of {KILLS:,} {shown(result.base_s)}",
    )


def one_kill(replica: Replica) -> dict[str, Any]:
    """Return the kill that follows everything ``replica`` has seen."""
    return seal(
        {
            "v": 1,
            "namespace": NAMESPACE,
            "epoch": EPOCH,
            "kind": "kill",
            "at": AT,
            "actor": "alice",
            "flip_id": "f-bench",
            "target": "run:r-42",
            "reason": "bench",
            "in_flight": "finish",
            "queued": "discard",
        },
        after=replica.position,
    )


def answer(replica: Replica, members: dict[str, Any]) -> Lease:
    """Take one frame with one kill, as the client's refresher does."""
    renewal = Renewal(Identity("bench", "bench", NAMESPACE), random=lambda: 0.5)
    renewal.lease = Lease(replica, 0.0, Stop(Reason.STALE))
    clocks = Clocks()
    ask = renewal.begin(clocks.read(), nonce="0" * 32)
    received = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) // 1_000
    frame = {
        "v": 1,
        "namespace": NAMESPACE,
        "epoch": EPOCH,
        "timebase": "bench",
        "from": replica.position.seq,
        "seq": members["seq"],
        "hash": members["hash"],
        "read_at": received + 1,
        "received_at": received,
        "ttl_ms": TTL_MS,
        "tenants": None,
        "entries": [members],
        "nonce": parse(ask.body)["nonce"],
    }
    lease = renewal.answered(ask, Reply(200, "application/json", encoded=False, body=canonical(frame)), clocks.read())
    if lease.replica.position.seq != members["seq"]:
        raise RuntimeError(f"the frame was not taken: {lease.stop.detail}")
    return lease


if __name__ == "__main__":
    sys.exit(alone(measure))
