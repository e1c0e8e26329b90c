"""Random timelines of one client, one network and one node: pauses, delays, losses and replays anywhere.

True time runs in a world whose clocks run at different rates, within the drift that the lease arithmetic allows for.
The client is the real renewal; the log and its frames are the fake service's.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from haltline.canonical import parse
from haltline.lease import Lease, Readings
from haltline.renewal import Ask, Identity, Renewal, Reply
from haltline.scopes import path
from haltline.testing import FakeService
from haltline.verdict import Go

MS: Final = 1_000_000
S: Final = 1_000 * MS
_STAMPS: Final = re.compile(rb'"read_at":\d+,"received_at":\d+')
_PATH: Final = path("r-1", tenant="acme")

Asked = Callable[[Identity, Callable[[], float]], Renewal]


def real_renewal(identity: Identity, draw: Callable[[], float]) -> Renewal:
    """Return the client's renewal as it is shipped."""
    return Renewal(identity, random=draw)


class ReceiptAnchored(Renewal):
    """The mistake that dates a lease from when its news arrived."""

    def answered(self, ask: Ask, reply: Reply, now: Readings) -> Lease:
        """Judge the reply as if the truth had been read just now."""
        frame = parse(reply.body)
        then = now.boot - max(frame["read_at"] - frame["received_at"], 0) * 1_000
        return super().answered(replace(ask, t0=Readings(then, then, then, then)), reply, now)


def receipt_anchored(identity: Identity, draw: Callable[[], float]) -> Renewal:
    """Return the mutant."""
    return ReceiptAnchored(identity, random=draw)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one timeline came to.

    Attributes:
        passed: how many checks passed.
        late: for each check that passed after ``effective_at``, by how much, nanoseconds.
        outlived: by how much the longest lease outlived the read it was granted on plus ttl, nanoseconds; 0 if none.
    """

    passed: int
    late: tuple[int, ...]
    outlived: int


class Timeline:
    """One random timeline; the same seed makes the same one."""

    def __init__(self, seed: int, make: Asked = real_renewal) -> None:
        self._draw = random.Random(seed)
        self._ttl_ms = self._draw.choice((200, 1000, 2000, 5000))
        self._service = FakeService(ttl_ms=self._ttl_ms)
        self._renewal = make(Identity("w", "i", "default"), self._draw.random)
        self._client_ppm = self._draw.randint(-900, 900)
        self._node_ppm = self._draw.randint(-900, 900)
        self._now = 0
        ttl = self._ttl_ms * MS
        self._commit_at: int | None = self._draw.randint(ttl // 2, 2 * ttl)
        self._acked_at = self._commit_at + self._draw.randint(0, 20 * MS)
        self._revive_at = self._commit_at + self._draw.randint(1, 2 * ttl) if self._draw.random() < 0.3 else None
        self._target = self._draw.choice(("run:r-1", "tenant:acme", "global"))
        self._effective_at = self._acked_at + ttl
        self._replies: list[Reply] = []
        self._best_until = 0
        self._outlived = 0
        self._passed = 0
        self._late: list[int] = []

    def play(self) -> Outcome:
        """Play it until well after the kill took effect."""
        end = self._effective_at + self._ttl_ms * MS
        while self._now < end:
            self._exchange()
            due = (self._renewal.due * 1_000_000) // (1_000_000 + self._client_ppm)
            self._let_pass(max(due - self._now, 0) + self._pause(0.05))
        return Outcome(self._passed, tuple(self._late), self._outlived)

    def _clock(self) -> Readings:
        reading = self._now + self._now * self._client_ppm // 1_000_000
        return Readings(reading, reading, reading, reading)

    def _pause(self, rare: float) -> int:
        """Return how long something takes: mostly milliseconds; rarely the process stands, or the network does."""
        draw = self._draw.random()
        if draw < rare:
            return self._draw.randint(0, 8 * S)
        if draw < 4 * rare:
            return self._draw.randint(0, self._ttl_ms * MS)
        return self._draw.randint(0, 20 * MS)

    def _let_pass(self, length: int) -> None:
        """Let time pass, with the flips that fall into it, a check somewhere in it and one at its end."""
        end = self._now + length
        for moment in (self._now + self._draw.randint(0, length), end):
            if self._commit_at is not None and moment >= self._commit_at:
                self._service.kill(self._target)
                self._commit_at = None
            if self._revive_at is not None and self._commit_at is None and moment >= self._revive_at:
                self._service.revive(self._target)
                self._revive_at = None
            self._now = moment
            self._check()

    def _check(self) -> None:
        """Check as a run does that was armed at position 1: the lease first, the clock last."""
        lease = self._renewal.lease
        if isinstance(lease.replica.judge(_PATH, 1), Go) and self._clock().boot / 1e9 < lease.until:
            self._passed += 1
            if self._now > self._effective_at:
                self._late.append(self._now - self._effective_at)

    def _exchange(self) -> None:
        ask = self._renewal.begin(self._clock(), nonce=f"{self._draw.getrandbits(64):016x}")
        fate = self._draw.random()
        early, early_at = self._answer(ask) if fate < 0.05 else None, self._now
        self._let_pass(self._pause(0.04))
        received_at = self._raw()
        self._let_pass(self._pause(0.01) + 2_000)
        # With `early`, a node that answers from what it read before it was asked.
        read_true, reply = (self._now, self._answer(ask)) if early is None else (early_at, early)
        stamped = _STAMPS.sub(
            b'"read_at":%d,"received_at":%d' % (self._raw(read_true), received_at + 1), reply.body, count=1
        )
        reply = replace(reply, body=stamped)
        self._replies.append(reply)
        if fate > 0.97 and len(self._replies) > 1:  # an older reply, played again
            reply, read_true = self._draw.choice(self._replies[:-1]), 0
        self._let_pass(self._pause(0.04))
        if 0.85 < fate < 0.97:
            self._renewal.unanswered("lost", self._clock())
            return
        granted = self._renewal.renewals
        self._renewal.answered(ask, reply, self._clock())
        if self._renewal.renewals > granted:
            self._best_until = max(self._best_until, read_true + self._ttl_ms * MS)
        until = self._renewal.lease.until
        if until > 0:
            until_true = int(until * 1e9) * 1_000_000 // (1_000_000 + self._client_ppm)
            self._outlived = max(self._outlived, until_true - self._best_until)

    def _answer(self, ask: Ask) -> Reply:
        return self._service.answer(ask.body, token=self._service.token)

    def _raw(self, moment: int | None = None) -> int:
        """Return the node's clock, microseconds, rounded down."""
        true = self._now if moment is None else moment
        return (true + true * self._node_ppm // 1_000_000) // 1_000
