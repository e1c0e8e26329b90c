"""A service in memory."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from haltline.canonical import parse
from haltline.clocks import Clocks
from haltline.errors import ServiceError
from haltline.flips import InFlight, Position, Queued
from haltline.frames import Reply
from haltline.keys import StampKey
from haltline.native import Condition, make_condition
from haltline.testing.clock import ManualClock
from haltline.testing.frames import acked, answer, later, problem, refused
from haltline.testing.log import FakeLog
from haltline.testing.outcomes import keep
from haltline.testing.streams import FakeStream
from haltline.testing.switch import FakeSwitch
from haltline.verdict import Hold

_KEY_LIFE_S: Final = 32 * 86_400


class FakeService:
    """A service that lives in the test: a flip log on the pure core that answers lease requests.

    Args:
        clock: the clock that its entries are dated on, and that its switches use; a new one by default.
        namespace: the namespace of its log.
        ttl_ms: for how long it grants a lease, milliseconds, 200 to 5000.

    Attributes:
        clock: the clock.
        token: a worker token that it accepts.
        requests: how many lease requests have reached it.
        acks: per worker and instance, the position that it has told of in an ack.
        stamp_keys: what planned work is sealed with, the newest first; every first frame brings them.
        outcomes: how runs ended that a kill stopped, as workers told it.

    Example:
        >>> service = FakeService()
        >>> switch = service.switch()
        >>> with switch.run("r-42", tenant="acme") as run:
        ...     hold = service.kill("tenant:acme", reason="wrong recipients")
        ...     print(run.verdict().detail)
        tenant:acme killed by operator at 2026-11-18T11:06:40.000000Z, log position 2: wrong recipients

        A revive starts nothing: the run stays halted, a new one may be entered.

        >>> released = service.revive("tenant:acme")
        >>> run.verdict().reason.value
        'killed'
        >>> with switch.run("r-42", tenant="acme") as run:
        ...     run.check("send_email")

        An outage stops every run as soon as its lease has ended.

        >>> service.down()
        >>> service.clock.advance(0.9)
        >>> switch.renew()
        True
        >>> service.clock.advance(0.1)
        >>> run.verdict().reason.value
        'unreachable'
    """

    def __init__(self, *, clock: ManualClock | None = None, namespace: str = "default", ttl_ms: int = 1000) -> None:
        self.clock = clock if clock is not None else ManualClock()
        self.token = f"hlt_{namespace}_fakefakefake_{'0' * 49}"
        self.requests = 0
        self.acks: dict[tuple[str, str], int] = {}
        self.stamp_keys: tuple[StampKey, ...] = ()
        self.rotate_stamp_key()
        self.outcomes: list[dict[str, Any]] = []
        self._ttl_ms = ttl_ms
        self._changed: Condition = make_condition()
        self._streams: weakref.WeakSet[FakeStream] = weakref.WeakSet()
        self._down = False
        self._refusal: Reply | None = None
        self._log = FakeLog(namespace=namespace, ttl_ms=ttl_ms, moment=self._moment)
        self._followers: weakref.WeakSet[FakeSwitch] = weakref.WeakSet()
        _living.add(self)

    @property
    def position(self) -> Position:
        """The head of the log."""
        return self._log.replica.position

    @property
    def epoch(self) -> str:
        """The random name of the log."""
        return self._log.epoch

    @property
    def entries(self) -> tuple[Mapping[str, Any], ...]:
        """Every entry of the log, the oldest first."""
        return tuple(MappingProxyType(entry) for entry in self._log.entries)

    def holds(self, target: str) -> tuple[Hold, ...]:
        """Return the active holds on a target; none means that it is not killed."""
        return self._log.replica.holds.get(target, ())

    def switch(self, *, background: bool = False, follow: bool = True, worker: str = "worker-1") -> FakeSwitch:
        """Return a switch that is connected to this service.

        Args:
            background: False renews only when told to, on this service's clock; True as in production, by a thread and
                on the machine's own clocks.
            follow: whether the switch renews at once after each flip, so that the next check sees it; with False a
                flip reaches it at its next renewal, as ``switch.renew()`` makes one.
            worker: the worker's name.
        """
        made = FakeSwitch(self, background=background, worker=worker)
        if follow:
            self._followers.add(made)
        return made

    def kill(
        self,
        target: str,
        *,
        reason: str = "a test kills it",
        actor: str = "operator",
        flip_id: str | None = None,
        in_flight: InFlight = "abort",
        queued: Queued = "discard",
    ) -> Hold:
        """Kill a target, and return the hold.

        Args:
            target: as an operator writes it: ``run:r-42``, ``capability:send_email``, ``global``.
            reason: why.
            actor: who.
            flip_id: the flip's idempotency key; a random one by default.
            in_flight: ``"abort"`` ends calls that are running, ``"finish"`` lets them end.
            queued: ``"discard"`` has planned work never run, ``"drain"`` lets it run.

        Raises:
            InvalidTarget: ``target`` is outside the grammar.
        """
        with self._changed:
            hold = self._log.kill(
                target, reason=reason, actor=actor, flip_id=flip_id, in_flight=in_flight, queued=queued
            )
        self._tell()
        return hold

    def revive(
        self,
        target: str,
        *,
        holds: Iterable[int] | None = None,
        reason: str = "a test revives it",
        actor: str = "releaser",
    ) -> tuple[int, ...]:
        """Release holds on a target, and return which.

        Args:
            target: as in :meth:`kill`.
            holds: the holds to release, by their ``seq``; by default every active one.
            reason: why.
            actor: who.

        Raises:
            LookupError: the target has no such hold.
            InvalidTarget: ``target`` is outside the grammar.
        """
        with self._changed:
            released = self._log.revive(target, holds=holds, reason=reason, actor=actor)
        self._tell()
        return released

    def note(self, topic: str, *, actor: str = "service") -> None:
        """Append a note, which changes no verdict."""
        with self._changed:
            self._log.append({"kind": "note", "topic": topic}, actor=actor)
        self._tell()

    def rotate_stamp_key(self, *, keep: bool = True) -> StampKey:
        """Make a new stamp key, which every first frame brings from now on, and return it.

        Args:
            keep: whether those of before are still given out; False takes them away, as when they are too old.
        """
        # A switch in the background goes by the machine's clocks, which are ahead of this one.
        now = max(self.clock.read().real, Clocks().read().real)
        until = now // 1_000_000_000 + _KEY_LIFE_S
        key = StampKey(os.urandom(6).hex(), os.urandom(32), float(until))
        self.stamp_keys = (key, *self.stamp_keys) if keep else (key,)
        return key

    def down(self) -> None:
        """Be unreachable from now on, and break open streams off. Running leases go on until they end."""
        with self._changed:
            self._down = True
            for stream in list(self._streams):
                stream.snap("the fake service went down")

    def up(self) -> None:
        """Answer again, after :meth:`down` or :meth:`refuse`.

        Who has met a failure asks again after a pause of a second at most: advance the clock by that, or renew.
        """
        self._down, self._refusal = False, None

    def refuse(self, status: int = 401) -> None:
        """End open streams, and answer every request with a problem from now on; 401 and 403 end a lease at once.

        Args:
            status: the HTTP status.
        """
        with self._changed:
            self._refusal = problem(status, "refused", "This fake service was told to refuse.")
            self.end_streams()

    def end_streams(self) -> None:
        """End every open stream in order, as a node does every few seconds: who reads one asks for the next."""
        with self._changed:
            for stream in list(self._streams):
                stream.end()

    def answer(self, body: bytes, *, token: str, clocks: Clocks | None = None) -> Reply:
        """Answer a lease request by one frame; one for a stream by its first frame.

        Args:
            body: the request's body.
            token: the token it came with.
            clocks: the clocks that the frame is dated on; by default this service's.

        Raises:
            ServiceError: the service is down.
        """
        if self._down:
            raise ServiceError("the fake service is down", sent=False)
        self.requests += 1
        denied = self._denied(token)
        if denied is not None:
            return denied
        with self._changed:
            received_at = self._raw_us(clocks) + 1
            read_at = max(self._raw_us(clocks), received_at + 1)
            return answer(
                self._log,
                body,
                received_at=received_at,
                read_at=read_at,
                ttl_ms=self._ttl_ms,
                keys=self.stamp_keys,
            )

    def stream(self, body: bytes, *, token: str, clocks: Clocks | None = None) -> FakeStream:
        """Answer a request for a lease stream.

        Args:
            body: the request's body.
            token: the token it came with.
            clocks: the clocks that the frames are dated on; by default this service's.

        Raises:
            ServiceError: the service is down.
        """
        with self._changed:
            first = self.answer(body, token=token, clocks=clocks)
            cursor = read_at = 0
            if first.status == 200:
                told = parse(first.body)
                cursor, read_at = told["seq"], told["read_at"]

            def frame() -> bytes:
                nonlocal cursor, read_at
                read_at = max(self._raw_us(clocks), read_at)
                line = later(self._log, cursor, read_at=read_at, ttl_ms=self._ttl_ms)
                cursor = self.position.seq
                return line

            made = FakeStream(
                first,
                frame=frame,
                news=lambda: self.position.seq > cursor,
                changed=self._changed,
                ttl_ms=self._ttl_ms,
            )
            self._streams.add(made)
            return made

    def ack(self, body: bytes, *, token: str) -> Reply:
        """Take an ack, and return the reply: 204, or a problem.

        Args:
            body: the ack's body.
            token: the token it came with.

        Raises:
            ServiceError: the service is down.
        """
        if self._down:
            raise ServiceError("the fake service is down", sent=False)
        denied = self._denied(token)
        if denied is not None:
            return denied
        with self._changed:
            told = acked(self._log, body)
        if isinstance(told, Reply):
            return told
        worker, instance, seq = told
        self.acks[worker, instance] = max(seq, self.acks.get((worker, instance), 0))
        return Reply(204, "", encoded=False, body=b"")

    def note_outcomes(self, body: bytes, *, token: str) -> Reply:
        """Take outcomes, of each run and flip the first one, and return the reply: 200, or a problem.

        Args:
            body: the request's body.
            token: the token it came with.

        Raises:
            ServiceError: the service is down.
        """
        if self._down:
            raise ServiceError("the fake service is down", sent=False)
        denied = self._denied(token)
        if denied is not None:
            return denied
        with self._changed:
            return keep(self.outcomes, body, head=self.position.seq)

    def begin_anew(self) -> None:
        """Take a lock of its own, in a forked child: the old one may be held by a thread that is not there."""
        self._changed = make_condition()
        self._streams = weakref.WeakSet()

    def _denied(self, token: str) -> Reply | None:
        if self._refusal is not None:
            return self._refusal
        return refused(token, ours=self.token, namespace=self._log.namespace)

    def _raw_us(self, clocks: Clocks | None) -> int:
        return (self.clock.clocks if clocks is None else clocks).read().raw // 1_000

    def _moment(self) -> str:
        seconds, rest = divmod(self.clock.read().real, 1_000_000_000)
        return datetime.fromtimestamp(seconds, UTC).strftime(f"%Y-%m-%dT%H:%M:%S.{rest // 1000:06d}Z")

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()
        for switch in list(self._followers):
            switch.renew()


_living: weakref.WeakSet[FakeService] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for service in list(_living):
        service.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
