"""A clock that stands still until a test moves it."""

from __future__ import annotations

import time
from typing import Final

from haltline.clocks import LEASE_CLOCK, Clocks
from haltline.lease import Readings

_START_S: Final = 1_000
_REAL_S: Final = 1_795_000_000


class ManualClock:
    """The four clocks of a machine, moved by hand.

    Attributes:
        clocks: give this to whatever takes :class:`haltline.clocks.Clocks`.

    Example:
        >>> clock = ManualClock()
        >>> before = clock.read()
        >>> clock.advance(1.5)
        >>> (clock.read().boot - before.boot) / 1e9
        1.5
    """

    def __init__(self) -> None:
        start = _START_S * 1_000_000_000
        self._boot = self._mono = self._raw = start
        self._real = _REAL_S * 1_000_000_000
        self.clocks: Final = Clocks(gettime=self._gettime, gettime_ns=self._gettime_ns)

    def __repr__(self) -> str:
        """Return how long the lease clock has run."""
        return f"<ManualClock {self._boot / 1e9:g} s>"

    def advance(self, seconds: float) -> None:
        """Let time pass: every clock moves on.

        Args:
            seconds: 0 or more.

        Raises:
            ValueError: ``seconds`` is negative.
        """
        if seconds < 0:
            raise ValueError("time does not go back; to set a clock back, use shift()")
        self.shift(boot=seconds, real=seconds, mono=seconds, raw=seconds)

    def shift(self, *, boot: float = 0, real: float = 0, mono: float = 0, raw: float = 0) -> None:
        """Move single clocks, forward or back, each by so many seconds.

        ``shift(real=0.2)`` is a wall clock that was set; ``shift(boot=9, real=9)`` a machine that slept;
        ``shift(real=9)`` a virtual machine whose other clocks stood still; ``shift(boot=9, real=9, mono=9, raw=8)`` a
        hard slew.

        Args:
            boot: the clock that leases are dated on (on macOS it is also the steered one).
            real: the wall clock.
            mono: the clock that time synchronisation steers.
            raw: the clock that nothing steers.
        """
        self._boot += round(boot * 1e9)
        self._real += round(real * 1e9)
        self._mono += round(mono * 1e9)
        self._raw += round(raw * 1e9)

    def read(self) -> Readings:
        """Return what all clocks show, nanoseconds."""
        return self.clocks.read()

    def _gettime_ns(self, clock: int) -> int:
        if clock == LEASE_CLOCK:
            return self._boot
        return {
            time.CLOCK_REALTIME: self._real,
            time.CLOCK_MONOTONIC: self._mono,
            time.CLOCK_MONOTONIC_RAW: self._raw,
        }[clock]

    def _gettime(self, clock: int) -> float:
        return self._gettime_ns(clock) / 1e9
