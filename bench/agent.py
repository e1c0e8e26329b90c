"""An agent under a live lease, in this process: what carries its lease requests answers them at once, from memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Final

from haltline import KillSwitch
from haltline.canonical import canonical, parse
from haltline.flips import Position
from haltline.refresher import LeaseTransport
from haltline.renewal import Reply
from haltline.replica import Mark, Replica
from haltline.run import Run
from haltline.scopes import Scope, Target
from haltline.verdict import Hold

NAMESPACE: Final = "default"
EPOCH: Final = "0123456789abcdef"
TTL_MS: Final = 5_000
AT: Final = "2026-01-01T00:00:00.000000Z"
CAPABILITY: Final = "send_email"

# Only its form counts: nothing here asks a service.
_SHAPE: Final = f"hlt_{NAMESPACE}_{'b' * 12}_{'0' * 49}"
_SCOPES: Final = (Scope.RUN, Scope.TENANT, Scope.FEATURE, Scope.CAPABILITY)


def others(kills: int) -> Replica:
    """Return a replica with so many active kills, on targets that are not our agent's, in all four scopes."""
    holds: dict[str, tuple[Hold, ...]] = {}
    marks: dict[str, Mark] = {}
    for seq in range(1, kills + 1):
        target = Target(_SCOPES[seq % 4], f"other-{seq}")
        holds[str(target)] = (Hold(seq, target, "alice", AT, "bench", "finish", "discard", f"f-{seq}"),)
        marks[str(target)] = Mark(seq, seq)
    position = Position(kills + 1, "a" * 64)
    return Replica(NAMESPACE, EPOCH, position, MappingProxyType(holds), MappingProxyType(marks))


class Memory:
    """Answers lease requests with one replica: a snapshot to whoever knows nothing, else an empty frame."""

    def __init__(self, replica: Replica) -> None:
        self._common: dict[str, Any] = {
            "v": 1,
            "namespace": NAMESPACE,
            "epoch": EPOCH,
            "timebase": "bench",
            "from": replica.position.seq,
            "seq": replica.position.seq,
            "hash": replica.position.hash,
            "ttl_ms": TTL_MS,
            "tenants": None,
            "entries": [],
        }
        self._snapshot = replica.snapshot()

    def post(self, path: str, body: bytes, *, deadline_s: float, limit: int) -> Reply:  # noqa: ARG002 - a port's names
        """Return a frame that was read a microsecond after it was asked for."""
        asked = parse(body)
        received = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) // 1_000
        frame = {**self._common, "nonce": asked["nonce"], "received_at": received, "read_at": received + 1}
        if asked["epoch"] is None:
            frame["snapshot"] = self._snapshot
        return Reply(200, "application/json", encoded=False, body=canonical(frame))

    def close(self) -> None:
        """Do nothing: there is no connection."""


@contextmanager
def agent(kills: int) -> Iterator[Run]:
    """Enter a run with a path of four scopes (its capability included) under a lease that is renewed meanwhile.

    Args:
        kills: how many kills are active elsewhere.
    """
    memory = Memory(others(kills))

    def connect() -> LeaseTransport:
        return memory

    with (
        KillSwitch("http://127.0.0.1:9", token=_SHAPE, worker="bench", connect=connect) as switch,
        switch.run("r-42", tenant="acme", feature="outreach", timeout=30) as run,
    ):
        run.check(CAPABILITY)
        yield run
