"""One flip applied to a replica that already holds 100,000 kills, and the snapshot that brings them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

from app.service.published import kept
from bench.agent import AT, EPOCH, NAMESPACE, Node, others
from bench.command import alone
from bench.figure import Bound, Effort, Figure, noted
from bench.measure import Compared, calls, compare, shown
from haltline.canonical import canonical
from haltline.clocks import Clocks
from haltline.flips import Entry, parse_entry, seal
from haltline.following import Following
from haltline.lease import NEVER, Lease
from haltline.renewal import FRAME_MAX_BYTES, Identity, Renewal, Then
from haltline.replica import Replica
from haltline.verdict import Reason, Stop

NAME: Final = "apply"
KILLS: Final = 100_000
NONCE: Final = "0" * 32

BOUND: Final = Bound(must=5, goal=5, unit=" ms")


def measure(effort: Effort) -> Iterator[Figure]:
    """Measure the fold of one kill alone, with the frame that brings it, and the snapshot that brings them all."""
    replica = others(KILLS)
    members = one_kill(replica)
    entries: tuple[Entry, ...] = (parse_entry(members),)
    rounds = effort.of(200)
    copy = calls(dict(replica.holds).copy)
    result = compare(copy, calls(lambda: replica.extend(entries)), rounds=rounds, loops=1)
    yield figure("one kill folded into a replica of 100,000", result)
    node = after(replica, members)
    known = Lease(replica, 0.0, Stop(Reason.STALE))
    result = compare(copy, calls(lambda: take(known, node.answer)), rounds=rounds, loops=1)
    yield figure("… with the frame that brings it: parsed, its hash verified, judged and published", result)
    yield from snapshot(replica, effort.of(10))


def snapshot(replica: Replica, rounds: int) -> Iterator[Figure]:
    """Return the rows of the first frame of a worker that knows nothing yet."""
    body = Renewal(Identity("bench", "bench", NAMESPACE), random=lambda: 0.5).begin(Clocks().read(), nonce=NONCE).body
    frame = Node(replica).answer(body)
    # The same frame answers every request with this nonce: it is dated against the request, not against the clock.
    result = compare(
        calls(lambda: json.loads(frame)), calls(lambda: take(NEVER, lambda _: frame)), rounds=rounds, loops=1
    )
    share = len(frame) / FRAME_MAX_BYTES
    yield noted(
        NAME,
        f"a worker's first frame of a log with {KILLS:,} kills: parsed, judged, folded and published",
        measured=f"{shown(result.taken_s)}, {result.ratio:.1f}x `json.loads`; {len(frame) / 2**20:.1f} MiB, "
        f"{share:.0%} of what a client takes",
        floor=f"`json.loads` of the same bytes {shown(result.base_s)}",
    )
    result = compare(
        calls(lambda: json.loads(frame)), calls(lambda: Node(replica).answer(body)), rounds=rounds, loops=1
    )
    yield noted(
        NAME,
        "… written by the node, once for all views and until a thousand more entries have come",
        measured=f"{shown(result.taken_s)}, {result.ratio:.1f}x `json.loads`",
        floor=f"`json.loads` of the same bytes {shown(result.base_s)}",
    )


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


def after(replica: Replica, members: dict[str, Any]) -> Node:
    """Return a node that has seen one more entry than ``replica``, and goes on from there."""
    entry = parse_entry(members)
    body = canonical(members).decode("utf-8")
    return Node(replica.extend((entry,)), base=replica.position, entries=[kept(entry, body)])


def take(known: Lease, frame: Callable[[bytes], bytes]) -> Lease:
    """Take the first frame of a stream, as the client's refresher does.

    Args:
        known: the lease before it.
        frame: answers the request.
    """
    renewal = Renewal(Identity("bench", "bench", NAMESPACE), random=lambda: 0.5)
    renewal.lease = known
    clocks = Clocks()
    ask = renewal.begin(clocks.read(), nonce=NONCE, stream=True)
    then = Following(renewal, ask).heard(frame(ask.body), clocks.read())
    if then is not Then.READ or renewal.lease.replica.position.seq <= known.replica.position.seq:
        raise RuntimeError(f"the frame was not taken: {renewal.lease.stop.detail}")
    return renewal.lease


if __name__ == "__main__":
    sys.exit(alone(measure))
