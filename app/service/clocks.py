"""The clocks that the service reads, as a port, so that tests need not wait."""

from __future__ import annotations

import time
from typing import Protocol


class Clocks(Protocol):
    """What time it is. The raw clock dates leases: no time service slews or steps it."""

    def wall(self) -> float:
        """Return the time of day, seconds since the Unix epoch."""

    def monotonic(self) -> float:
        """Return seconds of a clock that never goes back, for time-outs and caches."""

    def raw_us_floor(self) -> int:
        """Return microseconds of CLOCK_MONOTONIC_RAW, rounded down: when a read of the truth began."""

    def raw_us_ceil(self) -> int:
        """Return microseconds of CLOCK_MONOTONIC_RAW, rounded up: when a request was received."""


class SystemClocks:
    """The clocks of this machine."""

    __slots__ = ()

    def wall(self) -> float:
        """Return the time of day."""
        return time.time()

    def monotonic(self) -> float:
        """Return the monotonic clock."""
        return time.monotonic()

    def raw_us_floor(self) -> int:
        """Return the raw clock, rounded down."""
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) // 1_000

    def raw_us_ceil(self) -> int:
        """Return the raw clock, rounded up."""
        return -(-time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) // 1_000)
