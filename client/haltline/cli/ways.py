"""The ways to a service, one for each of its addresses; a question goes on to the next until one of them answers it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final

from haltline.cli.exchange import Answer, Ask, Body, Wire, elsewhere
from haltline.errors import ServiceError

_ELSEWHERE: Final = frozenset({404, 429})
"""Refusals that another address may not share: it is of the other lane, or less busy."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to the service.

    Attributes:
        address: the address that it leads to, as a URL.
        wire: what carries requests there.
    """

    address: str
    wire: Wire = field(repr=False)

    def told(self, text: str) -> str:
        """Return ``text`` with the address that it is about, unless it says so itself."""
        return text if self.address in text else f"{self.address}: {text}"


class Ways:
    """Questions to whichever address answers them; it stays with the one that did. Never for what changes anything.

    Args:
        ways: the ways, in the order in which to try.
        now: reads a clock that is never set, seconds.
    """

    def __init__(self, ways: Sequence[Way], now: Callable[[], float]) -> None:
        self._ways = tuple(ways)
        self._now = now
        self._at = 0

    @property
    def address(self) -> str:
        """The address that answered last, or that is asked first."""
        return self._ways[self._at].address

    def send(self, ask: Ask, deadline_s: float) -> Answer:
        """Send a question and return its whole answer: the first that is one, or else the last that came.

        Args:
            ask: the question.
            deadline_s: for how long it may take in all; each way is given a share.

        Raises:
            ServiceError: no whole answer came from anywhere.
        """
        failures: list[ServiceError] = []
        answer: Answer | None = None
        for at, share in self._each(deadline_s):
            try:
                came = self._ways[at].wire.send(ask, share)
            except ServiceError as error:
                failures.append(error)
                continue
            answer, self._at = came, at
            if not elsewhere(came):
                break
        if answer is None:
            raise _failed(failures)
        return answer

    @contextmanager
    def stream(self, ask: Ask, deadline_s: float) -> Iterator[Body]:
        """Send a question and yield the head of its answer: the first with status 200, or else the last that came.

        Args:
            ask: the question.
            deadline_s: for how long all heads may take, and each part of the body, seconds.

        Raises:
            ServiceError: no head came from anywhere, or the body broke off.
        """
        failures: list[ServiceError] = []
        with ExitStack() as kept:
            body: Body | None = None
            for at, share in self._each(deadline_s):
                with ExitStack() as stack:
                    try:
                        came = stack.enter_context(self._ways[at].wire.stream(ask, share, deadline_s))
                    except ServiceError as error:
                        failures.append(error)
                        continue
                    body, self._at = came, at
                    kept.close()  # what an earlier way said is not wanted any more
                    kept.push(stack.pop_all())
                if came.status == 200 or (400 <= came.status < 500 and came.status not in _ELSEWHERE):
                    break
            if body is None:
                raise _failed(failures)
            yield body

    def _each(self, deadline_s: float) -> Iterator[tuple[int, float]]:
        """Yield the number of each way, beginning with the one that answered last, and its share of the time."""
        until = self._now() + deadline_s
        first, count = self._at, len(self._ways)
        for number in range(count):
            yield (first + number) % count, max(0.0, until - self._now()) / (count - number)


def _failed(failures: Sequence[ServiceError]) -> ServiceError:
    if len(failures) == 1:
        return failures[0]
    return ServiceError("; ".join(map(str, failures)), sent=any(failure.sent for failure in failures))
