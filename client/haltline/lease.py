"""Lease arithmetic: for how long a client may act on the fold as it stood when the truth was read.

A lease is dated from when the truth was read, on the client's own clock, never from when news of it arrived: a reply
that was buffered, or read late by a process that was stopped, has already expired. In integers of nanoseconds, so that
a client in another language can be held to the same figures (tests/contract/vectors/lease.json).

The client stamps ``t0`` before the first byte is sent; the node stamps ``received_at`` after it has read bytes of the
request and ``read_at`` before it begins the transaction that reads the truth, both on one clock of its own. So the
truth was read no earlier than ``t0 + (read_at - received_at)`` on the client's clock, drift aside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Final

from haltline.replica import Replica
from haltline.verdict import Reason, Stop

TTL_MAX_MS: Final = 5000
"""No lease lasts longer than this, whatever the service says, milliseconds."""

SPAN_MAX_US: Final = 15_000_000
"""The longest time between ``received_at`` and ``read_at`` that a client accepts, microseconds."""

REALTIME_TOLERANCE_NS: Final = 100_000_000
"""How far the wall clock may run ahead of, or behind, the lease clock within one exchange: 100 ms."""

_SLEW_FLOOR_NS: Final = 1_000_000

WATCH_NS: Final = 4_000_000_000
"""How far back clocks are compared for a slew: 4 to 8 s, as long as a stream of frames lasts."""


class Drift(Enum):
    """How much of a lease is given up because two clocks never run at quite the same rate.

    The value is the part that is kept, of 500. Quartz and a disciplined clock stay within 1/500 by far; while the
    machine's own two monotonic clocks disagree (a hard slew), nine tenths are kept.
    """

    NORMAL = 499
    SLEWING = 450


class ClockState(Enum):
    """What the machine's clocks say about one exchange."""

    STEADY = "steady"
    AHEAD = "ahead"
    """The wall clock moved on by more than the lease clock: the lease clock may have stood still."""
    BEHIND = "behind"
    """The wall clock was set back, which harms no lease; worth a fresh exchange."""
    SLEWED = "slewed"
    """The clock that is steered and the clock that is not ran at different rates."""


@dataclass(frozen=True, slots=True)
class Readings:
    """The machine's clocks, read together, nanoseconds.

    Attributes:
        boot: the lease clock: CLOCK_BOOTTIME, or CLOCK_MONOTONIC on macOS; both count time spent asleep.
        real: CLOCK_REALTIME, the wall clock.
        mono: CLOCK_MONOTONIC, steered by time synchronisation.
        raw: CLOCK_MONOTONIC_RAW, not steered.
    """

    boot: int
    real: int
    mono: int
    raw: int


def clock_state(then: Readings, now: Readings) -> ClockState:
    """Return what the clocks say about the time between two readings.

    Args:
        then: the readings at ``t0``.
        now: the readings when the frame is judged.
    """
    passed = now.boot - then.boot
    if now.real - then.real - passed > REALTIME_TOLERANCE_NS or passed < 0:
        return ClockState.AHEAD
    if slewed(then, now):
        return ClockState.SLEWED
    if passed - (now.real - then.real) > REALTIME_TOLERANCE_NS:
        return ClockState.BEHIND
    return ClockState.STEADY


def slewed(then: Readings, now: Readings) -> bool:
    """Return whether the steered clock ran apart from the unsteered one by more than 1/1000 and 1 ms."""
    raw = now.raw - then.raw
    return abs((now.mono - then.mono) - raw) > raw // 1000 + _SLEW_FLOOR_NS


@dataclass(frozen=True, slots=True)
class Watch:
    """Two earlier readings of the clocks, to find a slew that one exchange is too short to show.

    In an exchange of 5 ms the millisecond of tolerance hides a slew of a fifth; over :data:`WATCH_NS` it hides 1/4000.
    """

    older: Readings
    newer: Readings


def watch_from(watch: Watch | None, t0: Readings) -> Watch:
    """Return the watch to compare with at an exchange begun at ``t0``: it reaches back one to two :data:`WATCH_NS`.

    Args:
        watch: the watch so far; it begins anew after a longer pause.
        t0: the readings at the start of the exchange.
    """
    if watch is None or not 0 <= t0.boot - watch.newer.boot < 2 * WATCH_NS:
        return Watch(t0, t0)
    return watch if t0.boot - watch.newer.boot < WATCH_NS else Watch(watch.newer, t0)


def lease_until(t0_ns: int, *, span_us: int, ttl_ms: int, drift: Drift = Drift.NORMAL) -> int:
    """Return when a lease ends on the client's lease clock, nanoseconds.

    ``t0 + (1 - 1/500) * ((read_at - received_at) + min(ttl, 5 s))``; exact, since both terms are whole microseconds.

    Args:
        t0_ns: the lease clock before the first byte of the request was sent, nanoseconds.
        span_us: ``read_at - received_at`` on the node's clock, microseconds, above 0.
        ttl_ms: the ttl that the frame states, milliseconds, at least 1.
        drift: how far the clocks are trusted.

    Raises:
        ValueError: ``span_us`` is not above 0 and at most :data:`SPAN_MAX_US`, or ``ttl_ms`` is below 1.
    """
    if not 0 < span_us <= SPAN_MAX_US or ttl_ms < 1:
        raise ValueError(f"no lease for a span of {span_us} us and a ttl of {ttl_ms} ms")
    whole = span_us * 1_000 + min(ttl_ms, TTL_MAX_MS) * 1_000_000
    return t0_ns + whole * drift.value // 500


@dataclass(frozen=True, slots=True, eq=False)
class Lease:
    """Permission to act on one replica until one moment: a single immutable object, so that it is read whole.

    Attributes:
        replica: the fold that may be acted on.
        until: when it ends on the lease clock, in seconds and never rounded up.
        stop: the verdict of a check that comes later than that.
    """

    replica: Replica
    until: float
    stop: Stop


def seconds(nanoseconds: int) -> float:
    """Return a moment in seconds, rounded down to the next value that a float can hold."""
    # By an integer: the quotient is then rounded once. By 1e9 it is rounded twice, and upwards by more than one step.
    return math.nextafter(nanoseconds / 1_000_000_000, -math.inf)


NEVER: Final = Lease(
    Replica(), -math.inf, Stop(Reason.NOT_READY, detail="this process has not been granted a lease yet")
)
"""The lease that every process starts with: already expired, on nothing."""
