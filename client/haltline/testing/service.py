"""A service in memory, and the switches that are connected to it."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from haltline.errors import ServiceError
from haltline.flips import Position
from haltline.refresher import LEASE_PATH
from haltline.renewal import Reply
from haltline.switch import KillSwitch
from haltline.testing.clock import ManualClock
from haltline.testing.frames import answer, problem, refused
from haltline.testing.log import FakeLog
from haltline.verdict import Hold

_URL: Final = "http://fake.invalid"


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
        self._ttl_ms = ttl_ms
        self._ticks = 1
        self._down = False
        self._refusal: Reply | None = None
        self._log = FakeLog(namespace=namespace, ttl_ms=ttl_ms, moment=self._moment)
        self._followers: weakref.WeakSet[FakeSwitch] = weakref.WeakSet()

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
        self, target: str, *, reason: str = "a test kills it", actor: str = "operator", flip_id: str | None = None
    ) -> Hold:
        """Kill a target, and return the hold.

        Args:
            target: as an operator writes it: ``run:r-42``, ``capability:send_email``, ``global``.
            reason: why.
            actor: who.
            flip_id: the flip's idempotency key; a random one by default.

        Raises:
            InvalidTarget: ``target`` is outside the grammar.
        """
        hold = self._log.kill(target, reason=reason, actor=actor, flip_id=flip_id)
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
        released = self._log.revive(target, holds=holds, reason=reason, actor=actor)
        self._tell()
        return released

    def note(self, topic: str, *, actor: str = "service") -> None:
        """Append a note, which changes no verdict."""
        self._log.append({"kind": "note", "topic": topic}, actor=actor)
        self._tell()

    def down(self) -> None:
        """Be unreachable from now on. Running leases go on until they end."""
        self._down = True

    def up(self) -> None:
        """Answer again, after :meth:`down` or :meth:`refuse`."""
        self._down, self._refusal = False, None

    def refuse(self, status: int = 401) -> None:
        """Answer every request with a problem from now on; 401 and 403 end a running lease at once.

        Args:
            status: the HTTP status.
        """
        self._refusal = problem(status, "refused", "This fake service was told to refuse.")

    def answer(self, body: bytes, *, token: str) -> Reply:
        """Answer a lease request.

        Args:
            body: the request's body.
            token: the token it came with.

        Raises:
            ServiceError: the service is down.
        """
        if self._down:
            raise ServiceError("the fake service is down", sent=False)
        self.requests += 1
        if self._refusal is not None:
            return self._refusal
        denied = refused(token, ours=self.token, namespace=self._log.namespace)
        if denied is not None:
            return denied
        received_at = self._ticks
        self._ticks += 2
        return answer(self._log, body, received_at=received_at, ttl_ms=self._ttl_ms)

    def _moment(self) -> str:
        seconds, rest = divmod(self.clock.read().real, 1_000_000_000)
        return datetime.fromtimestamp(seconds, UTC).strftime(f"%Y-%m-%dT%H:%M:%S.{rest // 1000:06d}Z")

    def _tell(self) -> None:
        for switch in list(self._followers):
            switch.renew()


class FakeSwitch(KillSwitch):
    """A switch that is connected to a fake service; made by :meth:`FakeService.switch` or :func:`fake_switch`.

    Attributes:
        service: the service.
        clock: the service's clock, which also ends this switch's leases unless it runs in the background.
    """

    def __init__(self, service: FakeService, *, background: bool = False, worker: str = "worker-1") -> None:
        self.service = service
        self.clock = service.clock
        super().__init__(
            _URL,
            token=service.token,
            worker=worker,
            clocks=None if background else service.clock.clocks,
            connect=lambda: _Line(service),
            background=background,
        )

    def renew(self, timeout: float = 2.0) -> bool:
        """Renew the lease now, and return whether it is live.

        Args:
            timeout: how long to wait for a background thread to have applied the whole log, seconds.
        """
        refresher = self._refresher
        if refresher.closed:
            return False
        if refresher.background:
            refresher.wait(lambda: self.position == self.service.position, timeout, urgent=True)
        else:
            refresher.renew()
        return self.live


class _Line:
    """What carries requests to the service: a call."""

    def __init__(self, service: FakeService) -> None:
        self._service = service

    def post(self, path: str, body: bytes, *, deadline_s: float, limit: int) -> Reply:  # noqa: ARG002  # no time passes
        """Return the service's reply."""
        if path != LEASE_PATH:
            return problem(404, "not_found", "There is no such thing.")
        return self._service.answer(body, token=self._service.token)

    def close(self) -> None:
        """Give back nothing."""
