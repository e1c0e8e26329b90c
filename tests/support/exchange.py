"""One client's renewal and one fake service, an exchange at a time, every reply open to tampering."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from haltline.canonical import canonical, parse
from haltline.clocks import LEASE_CLOCK
from haltline.lease import Lease
from haltline.renewal import Ask, Identity, Renewal, Reply
from haltline.testing import FakeService, ManualClock

Tamper = Callable[[dict[str, Any]], None]


class Exchange:
    """A renewal that is asked and answered by hand, on a manual clock.

    Args:
        ttl_ms: the ttl that the service states, milliseconds.
        random: what spreads the client's retries.
    """

    def __init__(self, *, ttl_ms: int = 1000, random: float = 0.5) -> None:
        self.clock = ManualClock()
        self.service = FakeService(clock=self.clock, ttl_ms=ttl_ms)
        self.renewal = Renewal(Identity("worker-1", "instance-1", "default"), random=lambda: random)
        self._nonces = 0

    @property
    def lease(self) -> Lease:
        """The client's lease."""
        return self.renewal.lease

    @property
    def seq(self) -> int:
        """How far the client has applied the log."""
        return self.lease.replica.position.seq

    @property
    def live(self) -> bool:
        """Whether a check would pass the lease now."""
        return self.clock.clocks.gettime(LEASE_CLOCK) < self.lease.until

    def ask(self) -> Ask:
        """Begin an exchange."""
        self._nonces += 1
        return self.renewal.begin(self.clock.read(), nonce=f"nonce-{self._nonces:012d}")

    def reply(self, ask: Ask, *, change: Tamper | None = None) -> Reply:
        """Return the service's reply, its frame changed by ``change``."""
        reply = self.service.answer(ask.body, token=self.service.token)
        if change is None:
            return reply
        frame = parse(reply.body)
        change(frame)
        return replace(reply, body=canonical(frame))

    def renew(self, *, took: float = 0.0, change: Tamper | None = None) -> Lease:
        """Do one exchange that takes so many seconds, its frame changed by ``change``."""
        ask = self.ask()
        reply = self.reply(ask, change=change)
        self.clock.advance(took)
        return self.renewal.answered(ask, reply, self.clock.read())

    def hear(self, reply: Reply) -> Lease:
        """Do one exchange that is answered by this very reply."""
        return self.renewal.answered(self.ask(), reply, self.clock.read())
