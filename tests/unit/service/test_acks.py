"""Acks: what workers claim to have applied, remembered for a while, and how old the news was."""

from __future__ import annotations

import pytest

from app.service.acks import DATED, SILENT_S, Ack, Acks
from app.service.refresher import Refresher
from tests.unit.service.fakes import EPOCH, NAMESPACE, ManualClocks, MemoryStore


class Bench:
    """Acks over fakes."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.clocks = ManualClocks()
        self.refresher = Refresher(
            self.store,
            self.clocks,
            open_log=lambda: self.store.open_log(namespace=NAMESPACE, ttl_ms=1_000, at="", epoch=EPOCH),
            forget_token=lambda _: None,
            use_ttl=lambda _: None,
        )
        self.acks = Acks(self.refresher, self.clocks)
        self.lags: list[float] = []
        self.acks.observe(self.lags.append)
        self.note()

    def note(self) -> int:
        """Write a note, have it read, and return its position."""
        self.store.append("note", topic="something")
        self.refresher.refresh()
        return len(self.store.rows)


@pytest.fixture
def bench() -> Bench:
    """Return acks over a log that was just read."""
    return Bench()


def test_an_ack_is_remembered_per_process(bench: Bench) -> None:
    """Two processes of one name are two, and each is as far as it last said."""
    bench.acks.heard(Ack("mailer", "i-1", 1))
    bench.acks.heard(Ack("mailer", "i-2", 1))
    bench.acks.heard(Ack("mailer", "i-1", 2))
    assert [bench.acks.of("mailer", each) for each in ("i-1", "i-2", "i-3")] == [
        Ack("mailer", "i-1", 2),
        Ack("mailer", "i-2", 1),
        None,
    ]
    assert (bench.acks.workers, bench.acks.count, bench.acks.lowest()) == (2, 3, 1)


def test_an_ack_never_goes_back(bench: Bench) -> None:
    """A request that was under way while a newer ack came does not undo it."""
    bench.acks.heard(Ack("mailer", "i-1", 5))
    bench.acks.heard(Ack("mailer", "i-1", 4))
    known = bench.acks.of("mailer", "i-1")
    assert known is not None
    assert known.seq == 5


def test_a_silent_worker_is_forgotten(bench: Bench) -> None:
    """Who says nothing for a minute is not counted any more."""
    bench.acks.heard(Ack("mailer", "i-1", 1))
    bench.clocks.pass_s(SILENT_S + 1)
    assert bench.acks.workers == 0
    assert bench.acks.lowest() is None


def test_the_lag_is_measured_from_the_reading(bench: Bench) -> None:
    """The lag of an ack is the time since this node published that position, once for each worker and position."""
    bench.acks.heard(Ack("mailer", "i-1", 1))
    seq = bench.note()
    bench.clocks.pass_s(0.25)
    bench.acks.heard(Ack("mailer", "i-1", seq))
    bench.acks.heard(Ack("mailer", "i-1", seq))
    assert bench.lags == [0.25]


def test_a_worker_that_was_just_started_has_no_lag(bench: Bench) -> None:
    """A first ack says where a worker begins, not how long news took."""
    bench.clocks.pass_s(30)
    bench.acks.heard(Ack("mailer", "i-1", 1))
    assert bench.lags == []


def test_memory_is_bounded(bench: Bench) -> None:
    """Only the newest positions are dated, however long the log grows."""
    bench.acks.heard(Ack("mailer", "i-1", 1))
    for _ in range(DATED + 5):
        bench.note()
    bench.acks.heard(Ack("mailer", "i-1", 3))
    assert bench.lags == []
    bench.acks.heard(Ack("mailer", "i-1", len(bench.store.rows)))
    assert bench.lags == [0.0]
