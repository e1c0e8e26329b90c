"""The machine's clocks: the one place of the client that reads them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from haltline.lease import Readings

if sys.platform == "darwin":
    LEASE_CLOCK: Final = time.CLOCK_MONOTONIC
    """The clock that leases are dated on: it counts time spent asleep. On macOS that is CLOCK_MONOTONIC."""
else:
    LEASE_CLOCK: Final = time.CLOCK_BOOTTIME
    """The clock that leases are dated on: it counts time spent asleep. On Linux that is CLOCK_BOOTTIME."""

_READ_TRIES: Final = 4
_READ_MAX_NS: Final = 500_000
"""How long reading all clocks may take before they are read anew: half of what counts as a slew."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """The clocks that a switch uses, injectable for tests.

    Attributes:
        gettime: returns a clock's reading in seconds, as ``time.clock_gettime`` does.
        gettime_ns: the same in nanoseconds, as ``time.clock_gettime_ns`` does.
    """

    gettime: Callable[[int], float] = time.clock_gettime
    gettime_ns: Callable[[int], int] = time.clock_gettime_ns

    def read(self) -> Readings:
        """Return all clocks as of one moment, the lease clock first: as ``t0`` it may only be too early."""
        for _ in range(_READ_TRIES - 1):
            readings = self._read_once()
            # A thread that was put aside between two of the four would see clocks that disagree, and drop its lease.
            if self.gettime_ns(LEASE_CLOCK) - readings.boot < _READ_MAX_NS:
                return readings
        return self._read_once()

    def _read_once(self) -> Readings:
        read = self.gettime_ns
        return Readings(
            read(LEASE_CLOCK),
            read(time.CLOCK_REALTIME),
            read(time.CLOCK_MONOTONIC),
            read(time.CLOCK_MONOTONIC_RAW),
        )
