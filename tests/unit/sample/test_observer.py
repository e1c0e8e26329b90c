"""The observer counts what was accepted, when it was accepted."""

from __future__ import annotations

from sample import observer as module
from sample.mail import Tags
from sample.observer import Observer
from sample.watch import Watch

R1, R2 = Tags(run="r-1"), Tags(run="r-2")


class Clock:
    """A clock that a test sets, nanoseconds."""

    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns


def test_counts_each_run() -> None:
    """Mails are counted by run, and a run never seen has none."""
    observer = Observer(Watch())
    for tags in (R1, R2, R1):
        observer.accept(tags)
    assert [observer.count(run) for run in ("r-1", "r-2", "r-3")] == [2, 1, 0]


def test_stamps_and_rate() -> None:
    """A mail bears the clock's reading at its acceptance; the rate is of the last second."""
    clock = Clock()
    observer = Observer(Watch(), clock_ns=clock)
    for clock.ns in (0, 400_000_000, 900_000_000):
        observer.accept(R1)
    clock.ns = 1_200_000_000
    assert list(observer.stamps("r-1")) == [0, 400_000_000, 900_000_000]
    assert observer.rate("r-1") == 2
    assert observer.count_since("r-1", 400_000_000) == 1


def test_memory_is_bounded() -> None:
    """Old stamps leave, the newest stay, and counts never forget."""
    clock = Clock()
    observer = Observer(Watch(), clock_ns=clock)
    for clock.ns in range(2 * module.KEPT + 1):
        observer.accept(R1)
    assert len(observer.stamps("r-1")) == module.KEPT + 1
    assert observer.stamps("r-1")[-1] == 2 * module.KEPT
    assert observer.count("r-1") == 2 * module.KEPT + 1
