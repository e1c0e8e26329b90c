"""Killing for the length of a ``with`` block."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import overload

from haltline.testing.clock import ManualClock
from haltline.testing.service import FakeService
from haltline.testing.switch import FakeSwitch
from haltline.verdict import Hold


class _Newest:
    """Which service ``killed(target)`` means: the one that ``fake_switch()`` made last, as long as it is in use."""

    service: weakref.ref[FakeService] | None = None


def fake_switch(*, clock: ManualClock | None = None, ttl_ms: int = 1000, background: bool = False) -> FakeSwitch:
    """Return a switch on a service of its own; from here on :func:`killed` means that service.

    Args:
        clock: the clock that leases end on; a new one by default, to be moved by ``switch.clock.advance(seconds)``.
        ttl_ms: for how long a lease is granted, milliseconds.
        background: whether a thread renews the lease on the machine's own clocks, as in production. By default nothing
            happens by itself: the lease is renewed after each flip, by ``switch.renew()``, and by whoever waits for it.

    Example:
        >>> switch = fake_switch()
        >>> with switch.run("r-42") as run:
        ...     switch.clock.advance(2)
        ...     print(run.verdict().reason.value)
        ...     run.ensure()
        ...     print(bool(run.verdict()))
        stale
        True
    """
    switch = FakeService(clock=clock, ttl_ms=ttl_ms).switch(background=background)
    _Newest.service = weakref.ref(switch.service)
    return switch


@overload
def killed(where: str, /, *, reason: str = ..., actor: str = ...) -> AbstractContextManager[Hold]: ...
@overload
def killed(
    where: FakeService | FakeSwitch, target: str, /, *, reason: str = ..., actor: str = ...
) -> AbstractContextManager[Hold]: ...
def killed(
    where: str | FakeService | FakeSwitch,
    target: str | None = None,
    /,
    *,
    reason: str = "a test kills it",
    actor: str = "operator",
) -> AbstractContextManager[Hold]:
    """Return a context manager that kills a target on entering, and releases that hold on leaving.

    ``killed("run:r-42")`` means the service of the newest :func:`fake_switch`; ``killed(service, "run:r-42")`` and
    ``killed(switch, "run:r-42")`` name one. Entering returns the hold. A hold that somebody else made stays.

    Args:
        where: the target, or the service or switch.
        target: the target, where the first argument is a service or switch.
        reason: why.
        actor: who.

    Raises:
        LookupError: no service is named, and no fake switch is in use.
        InvalidTarget: the target is outside the grammar.

    Example:
        >>> from haltline import Killed
        >>> switch = fake_switch()
        >>> with switch.run("r-42") as run, killed("run:r-42", reason="wrong recipients"):
        ...     try:
        ...         run.check("send_email")
        ...     except Killed as halt:
        ...         print(halt.verdict.holds[0].reason)
        wrong recipients
    """
    if isinstance(where, FakeService | FakeSwitch):
        service: FakeService | None = where if isinstance(where, FakeService) else where.service
        name = target
    else:
        service = _Newest.service() if _Newest.service is not None else None
        name = where
    if service is None:
        raise LookupError("which service? Make one with fake_switch() and keep it, or name it: killed(service, target)")
    if name is None:
        raise TypeError("killed(service, target) needs the target")
    return _killing(service, name, reason, actor)


@contextmanager
def _killing(service: FakeService, target: str, reason: str, actor: str) -> Iterator[Hold]:
    hold = service.kill(target, reason=reason, actor=actor)
    try:
        yield hold
    finally:
        if hold in service.holds(target):
            service.revive(target, holds=[hold.seq])
