"""Random timelines of one client on lease streams: the real renewal and the real following, in a hostile world."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from haltline.following import Following
from haltline.lease import Readings
from haltline.renewal import Ask, Identity, Renewal, Then
from haltline.replica import Replica
from haltline.scopes import path
from haltline.verdict import Go
from tests.support.stream_parts import Wire
from tests.support.stream_world import S, StreamWorld

_PATH: Final = path("r-1", tenant="acme")

Follow = Callable[[Renewal, Ask], Following]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one timeline came to.

    Attributes:
        passed: how many checks passed.
        late: for each check that passed after ``effective_at``, by how much, nanoseconds.
        halted: whether the run is stopped for ever once everything has been healthy for a while.
    """

    passed: int
    late: tuple[int, ...]
    halted: bool


class StreamTimeline(StreamWorld):
    """One random timeline; the same seed makes the same one.

    Args:
        seed: the seed.
        follow: makes the client's side of a stream; a mutant in its place is to be caught.
        blip: whether the kill is revived 1 to 50 ms later.
    """

    def __init__(self, seed: int, follow: Follow = Following, *, blip: bool = False) -> None:
        super().__init__(seed, blip=blip)
        self._follow = follow
        self._renewal = Renewal(Identity("w", "i", "default"), random=self._draw.random)
        self._client_ppm = self._draw.randint(-900, 900)
        self._passed, self._late = 0, list[int]()
        self._judged = Replica(), False

    def play(self) -> Outcome:
        """Play it until well after the kill took effect."""
        for node in self._nodes:
            self._poll(node)
        self._ask()
        self._weather()
        while self._events and self._now < self._end:
            moment, _, happen = heapq.heappop(self._events)
            self._now = max(self._now, moment)
            # A lease only ends, and a replica only grows: before and after each change are the moments that count.
            self._check()
            happen()
            self._check()
            if self._healthy and not self._judged[1]:
                break
        lease = self._renewal.lease
        halted = not isinstance(lease.replica.judge(_PATH, 1), Go)
        return Outcome(self._passed, tuple(self._late), halted)

    def _clock(self) -> Readings:
        reading = self._now + self._now * self._client_ppm // 1_000_000
        return Readings(reading, reading, reading, reading)

    def _true(self, reading: int) -> int:
        """Return when the client's clock shows a reading."""
        return reading * 1_000_000 // (1_000_000 + self._client_ppm) + 1

    def _ask(self) -> None:
        ask = self._renewal.begin(self._clock(), nonce=f"{self._draw.getrandbits(64):016x}", stream=True)
        wire = Wire(
            ask,
            self._draw.choice(self._nodes),
            self._follow(self._renewal, ask),
            self._now + self._draw.randint(S // 2, 9 * S),
        )
        self._wires.append(wire)
        self._after(self._delay(), lambda: self._serve(wire))
        self._watch(wire)

    def _watch(self, wire: Wire) -> None:
        """Look at a stream again when its next frame is overdue."""
        left = int(wire.following.left_s(self._clock()) * 1e9) + 1_000
        self._after(left, lambda: self._client(wire))

    def _client(self, wire: Wire) -> None:
        if wire.over:
            return
        if self._now < self._paused_until:
            self._at(self._paused_until, lambda: self._client(wire))
            return
        following, then = wire.following, Then.READ
        while wire.inbox and then is Then.READ:
            line = wire.inbox.pop(0)
            self._check()
            then = following.ended(self._clock()) if line is None else following.heard(line, self._clock())
            self._check()
        if then is Then.READ and following.left_s(self._clock()) <= 0.001:
            then = following.failed("no frame in time", self._clock())
        if then is Then.READ:
            self._watch(wire)
            return
        wire.over = True
        self._wires.remove(wire)
        if not self._wires:
            self._at(max(self._true(self._renewal.due), self._now), self._again)

    def _again(self) -> None:
        if self._now < self._paused_until:
            self._at(self._paused_until, self._again)
        elif not self._wires:
            self._ask()

    def _check(self) -> None:
        """Check as a run does that was armed at position 1: the lease first, the clock last."""
        lease = self._renewal.lease
        if lease.replica is not self._judged[0]:
            self._judged = lease.replica, isinstance(lease.replica.judge(_PATH, 1), Go)
        if self._judged[1] and self._clock().boot / 1e9 < lease.until:
            self._passed += 1
            if self._effective_at is not None and self._now > self._effective_at:
                self._late.append(self._now - self._effective_at)
