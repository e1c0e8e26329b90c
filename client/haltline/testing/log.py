"""A flip log in memory, on the same pure core as the service's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from haltline.flips import InFlight, Queued, parse_entry, seal
from haltline.replica import Replica
from haltline.scopes import parse_target
from haltline.verdict import Hold


class FakeLog:
    """An append-only log and its fold.

    Args:
        namespace: the log's namespace.
        ttl_ms: the lease ttl that the first entry names, milliseconds.
        moment: returns the time stamp of an entry.

    Attributes:
        epoch: the log's random name.
        entries: the entries as JSON objects, the first being the note that the log was opened.
        replica: the fold of all of them.
    """

    def __init__(self, *, namespace: str, ttl_ms: int, moment: Callable[[], str]) -> None:
        self.namespace = namespace
        self.epoch = os.urandom(8).hex()
        self.entries: list[dict[str, Any]] = []
        self.replica = Replica(namespace, self.epoch)
        self._moment = moment
        self.append({"kind": "note", "topic": "log_opened", "ttl_ms": ttl_ms}, actor="service")

    def append(self, members: dict[str, Any], *, actor: str) -> None:
        """Append an entry of a kind of its own; its envelope is added here.

        Raises:
            InvalidEntry: the members do not make an entry.
        """
        whole = {
            "v": 1,
            "namespace": self.namespace,
            "epoch": self.epoch,
            "at": self._moment(),
            "actor": actor,
            **members,
        }
        entry = seal(whole, after=self.replica.position)
        folded = self.replica.extend([parse_entry(entry)])
        self.entries.append(entry)
        self.replica = folded

    def kill(
        self,
        target: str,
        *,
        reason: str,
        actor: str,
        flip_id: str | None = None,
        in_flight: InFlight = "abort",
        queued: Queued = "discard",
    ) -> Hold:
        """Append a kill, and return the hold that it makes.

        Raises:
            InvalidTarget: ``target`` is outside the grammar.
            InvalidEntry: ``reason``, ``actor`` or ``flip_id`` is.
        """
        key = str(parse_target(target))
        self.append(
            {
                "kind": "kill",
                "flip_id": flip_id or f"f-{os.urandom(8).hex()}",
                "target": key,
                "reason": reason,
                "in_flight": in_flight,
                "queued": queued,
            },
            actor=actor,
        )
        return self.replica.holds[key][-1]

    def revive(self, target: str, *, holds: Iterable[int] | None, reason: str, actor: str) -> tuple[int, ...]:
        """Append a revive, and return the holds that it released.

        Raises:
            InvalidTarget: ``target`` is outside the grammar.
            InvalidEntry: ``reason`` or ``actor`` is.
            LookupError: the target has no such hold.
        """
        key = str(parse_target(target))
        active = {hold.seq for hold in self.replica.holds.get(key, ())}
        named = sorted(active if holds is None else set(holds))
        if not named or not active.issuperset(named):
            raise LookupError(f"{key} has the holds {sorted(active)}, not {named}")
        self.append(
            {"kind": "revive", "flip_id": f"f-{os.urandom(8).hex()}", "target": key, "holds": named, "reason": reason},
            actor=actor,
        )
        return tuple(named)

    def shown(self, after: int) -> list[dict[str, Any]]:
        """Return the entries after a position as a worker gets them: notes travel as stubs."""
        return [
            {"seq": entry["seq"], "hash": entry["hash"]} if entry["kind"] == "note" else entry
            for entry in self.entries[after:]
        ]
