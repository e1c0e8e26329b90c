"""Upkeep: who may flip is learnt as the log says so, and the clocks are compared again and again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from app.domain.access import Role
from app.service.clocks import SystemClocks
from app.service.refresher import Refresher
from app.service.skew import Skew
from app.service.store import StoreUnavailable
from app.service.tokens import Tokens
from app.service.upkeep import PAUSE_S, Upkeep
from tests.unit.service.fakes import MemoryStore


def until(holds: Callable[[], bool], within_s: float = 20.0) -> None:
    """Wait for something that the thread does."""
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.002)


def behind(seconds: float) -> float:
    """Return what a clock shows that is so far behind this node's."""
    return time.time() - seconds


class Place:
    """A node's upkeep over a store in memory, whose log is read when the test says so."""

    def __init__(self, *, every_s: float = 60.0, learns: bool = True) -> None:
        clocks = SystemClocks()
        self.store = MemoryStore()
        self.store.append("note", topic="log_opened")
        self.refusals: list[Exception] = []
        self.learnt = 0
        self.skew = Skew(self.store, clocks)
        self.skew.seconds = 0.0
        self.elsewhere = Tokens(self.store, clocks, namespace="default", embedded=True, ttl_ms=1_000)
        self.refresher = Refresher(
            self.store,
            clocks,
            open_log=self.store.head,
            forget_token=lambda _: None,
            use_ttl=lambda _: None,
        )
        self.upkeep = Upkeep(self.refresher, clocks, self.skew, learn=self._learn if learns else None, every_s=every_s)

    def _learn(self) -> None:
        if self.refusals:
            raise self.refusals.pop()
        self.learnt += 1

    def made(self, role: Role) -> None:
        """Make a token at another node, and read the log."""
        self.elsewhere.issue(subject="ann", role=role, actor="root")
        self.refresher.refresh()

    def until_learnt(self, times: int) -> None:
        """Wait until the tokens were read so many times."""
        until(lambda: self.learnt == times)

    def until_ahead(self, seconds: float) -> None:
        """Wait until this node's clock is known to be so far ahead."""
        until(lambda: abs((self.skew.seconds or 0.0) - seconds) < 1.0)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Have it run."""
        self.upkeep.start()
        try:
            yield
        finally:
            self.upkeep.close()


def test_who_may_flip_is_learnt_at_the_start_and_with_each_note() -> None:
    """After the first read of the log, and when a token that may flip was made; other tokens are no reason."""
    place = Place()
    with place.running():
        time.sleep(0.05)
        assert place.learnt == 0, "nothing is published: a revocation might never be heard of"
        place.refresher.refresh()
        until(lambda: place.learnt == 1)
        for number, role in enumerate((Role.OPERATOR, Role.RELEASER, Role.ADMIN), start=2):
            place.made(role)
            place.until_learnt(number)
        place.made(Role.WORKER)
        place.made(Role.OBSERVER)
        place.store.append("note", topic="token_revoked", token_id="0" * 12, role="operator")
        place.refresher.refresh()
        time.sleep(PAUSE_S + 0.2)
        assert place.learnt == 4


def test_a_failed_read_is_tried_again_and_a_crowd_is_one() -> None:
    """What could not be learnt is learnt a second later; a hundred tokens at once are read together."""
    place = Place()
    place.refusals = [StoreUnavailable("gone"), StoreUnavailable("gone")]
    with place.running():
        place.refresher.refresh()
        until(lambda: place.learnt == 1)
        assert place.refusals == []
        for _ in range(100):
            place.made(Role.OPERATOR)
        time.sleep(PAUSE_S + 0.2)
        assert 2 <= place.learnt <= 3


def test_the_clocks_are_compared_again_and_again() -> None:
    """Every so often, be it that the database cannot be asked in between; also where nobody flips."""
    place = Place(every_s=0.02, learns=False)
    with place.running():
        for ahead_s in (5.0, -5.0):
            place.store.failure = StoreUnavailable("gone")
            time.sleep(0.1)
            place.store.clock = partial(behind, ahead_s)
            place.store.failure = None
            place.until_ahead(ahead_s)
    assert place.learnt == 0


def test_it_ends_when_it_is_told_to() -> None:
    """Closing does not wait for the minute, nor for a start that never was."""
    place = Place()
    place.upkeep.close()
    place = Place()
    began = time.monotonic()
    with place.running():
        pass
    assert time.monotonic() - began < 30
    assert place.upkeep._thread is not None  # noqa: SLF001 - the thread is nobody's business but this test's
    assert not place.upkeep._thread.is_alive()  # noqa: SLF001
