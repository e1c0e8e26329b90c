"""Acks: how far each worker says that it has applied the log. A measurement, never a proof.

What proves that a worker has stopped is its lease, which ends by itself. Acks say how fast the news travelled, and name
a worker that has seen another history than this log has.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cachetools import TTLCache

from app.service.clocks import Clocks
from app.service.published import Published
from app.service.refresher import Refresher

WORKERS: Final = 20_000
"""How many workers are remembered."""

SILENT_S: Final = 60.0
"""How long a worker that says nothing is remembered, seconds."""

DATED: Final = 1_024
"""For how many of the newest positions it is remembered when this node published them."""


@dataclass(frozen=True, slots=True)
class Ack:
    """What one process claims to have applied.

    Attributes:
        worker: its name.
        instance: the random id of this very process.
        seq: how far.
    """

    worker: str
    instance: str
    seq: int


class Acks:
    """The acks that one node has heard."""

    def __init__(self, refresher: Refresher, clocks: Clocks) -> None:
        """Follow what ``refresher`` publishes, to know how old the news in an ack is."""
        self._clocks = clocks
        self._lock = threading.Lock()
        self._heard: TTLCache[tuple[str, str], Ack] = TTLCache(WORKERS, SILENT_S, timer=clocks.monotonic)
        self._dated: OrderedDict[int, float] = OrderedDict()
        self._seq = 0
        self._observe: tuple[Callable[[float], None], ...] = ()
        self.count = 0
        refresher.subscribe(self._published)

    def observe(self, observer: Callable[[float], None]) -> None:
        """Have ``observer`` called with each ack's lag: seconds since this node published that position."""
        self._observe = (*self._observe, observer)

    def heard(self, ack: Ack) -> None:
        """Note what a worker says."""
        now = self._clocks.monotonic()
        with self._lock:
            key = (ack.worker, ack.instance)
            known = self._heard.get(key)
            # A request that was under way may arrive after a newer one.
            newer = known is None or ack.seq > known.seq
            self._heard[key] = ack if newer or known is None else known
            self.count += 1
            dated = self._dated.get(ack.seq) if newer and known is not None else None
        if dated is not None:
            for observer in self._observe:
                observer(now - dated)

    def of(self, worker: str, instance: str) -> Ack | None:
        """Return the newest ack of one process; None if it has said nothing for long."""
        with self._lock:
            return self._heard.get((worker, instance))

    def lowest(self) -> int | None:
        """Return the lowest position among the workers heard of lately; None if there are none."""
        with self._lock:
            return min((each.seq for each in self._heard.values()), default=None)

    @property
    def workers(self) -> int:
        """How many workers have been heard of lately."""
        with self._lock:
            self._heard.expire()
            return len(self._heard)

    def _published(self, published: Published) -> None:
        seq = published.replica.position.seq
        if seq == self._seq:
            return
        with self._lock:
            self._seq = seq
            self._dated[seq] = self._clocks.monotonic()
            while len(self._dated) > DATED:
                self._dated.popitem(last=False)
