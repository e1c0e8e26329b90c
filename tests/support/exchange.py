"""One client's renewal and one fake service, an exchange or a frame at a time, every reply open to tampering."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from haltline.canonical import canonical, parse
from haltline.clocks import LEASE_CLOCK
from haltline.following import Following
from haltline.lease import Lease
from haltline.renewal import Ask, Identity, Renewal, Reply, Then
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

    def ask(self, *, stream: bool = False) -> Ask:
        """Begin an exchange."""
        self._nonces += 1
        return self.renewal.begin(self.clock.read(), nonce=f"nonce-{self._nonces:012d}", stream=stream)

    def open(self, *, waited: float = 0.0, took: float = 0.0, change: Tamper | None = None) -> Stream:
        """Ask for a stream and hear its first frame, changed by ``change``.

        Args:
            waited: for how long the request lies in a queue of the node, seconds.
            took: how long the first frame is on its way, seconds.
            change: changes it.
        """
        stream = Stream(self, waited=waited)
        stream.hear(took=took, change=change)
        return stream

    def reply(self, ask: Ask, *, change: Tamper | None = None) -> Reply:
        """Return the service's reply, its frame changed by ``change``."""
        reply = self.service.answer(ask.body, token=self.service.token)
        return replace(reply, body=changed(reply.body, change))

    def renew(self, *, took: float = 0.0, change: Tamper | None = None) -> Lease:
        """Do one exchange that takes so many seconds, its frame changed by ``change``."""
        ask = self.ask()
        reply = self.reply(ask, change=change)
        self.clock.advance(took)
        return self.renewal.answered(ask, reply, self.clock.read())

    def hear(self, reply: Reply, *, stream: bool = False) -> Lease:
        """Do one exchange that is answered by this very reply, whole."""
        return self.renewal.answered(self.ask(stream=stream), reply, self.clock.read())


class Stream:
    """A stream that is read by hand; it was asked for, and no frame was read yet.

    Attributes:
        following: the client's side of it.
        ask: the request that opened it.
        then: what the client wants to do after the last step.
    """

    def __init__(self, exchange: Exchange, *, waited: float = 0.0) -> None:
        self._exchange = exchange
        self.ask = exchange.ask(stream=True)
        self.following = Following(exchange.renewal, self.ask)
        self.then = Then.READ
        exchange.clock.advance(waited)
        self._sent = exchange.service.stream(self.ask.body, token=exchange.service.token)

    def line(self, *, change: Tamper | None = None) -> bytes:
        """Return the service's next frame as of now, changed by ``change``."""
        return changed(self._sent.beat(), change)

    def hear(self, line: bytes | None = None, *, took: float = 0.0, change: Tamper | None = None) -> Lease:
        """Hear the next frame, or this very line, after so many seconds on its way; return the lease."""
        heard = self.line(change=change) if line is None else line
        self._exchange.clock.advance(took)
        self.then = self.following.heard(heard, self._exchange.clock.read())
        return self._exchange.lease


def changed(line: bytes, change: Tamper | None) -> bytes:
    """Return a frame's text with its members changed by ``change``."""
    if change is None:
        return line
    frame = parse(line)
    change(frame)
    return canonical(frame)
