"""Figures follow from stamps and moments alone."""

from __future__ import annotations

from sample.figures import OutageMoments, PullMoments, last_after_ms, mails, outage_worker, worker_figures

MS = 1_000_000
MOMENTS = PullMoments(
    ack_ns=1_000 * MS, effective_ns=2_000 * MS, revive_ns=3_000 * MS, go_ns=4_000 * MS, end_ns=5_000 * MS
)


def ms(*moments: int) -> list[int]:
    """Return milliseconds as the observer's stamps."""
    return [moment * MS for moment in moments]


def test_windows_meet_without_overlap() -> None:
    """A mail at a boundary belongs to the window that ends there, and to no other."""
    stamps = ms(10, 20, 30)
    assert mails(stamps, 10 * MS, 20 * MS) == 1
    assert mails(stamps, 20 * MS, 30 * MS) == 1
    assert mails(stamps, 30 * MS, 10 * MS) == 0


def test_time_to_stop() -> None:
    """It runs from the ack to the last mail before the revive; a mail before the ack makes it 0."""
    assert last_after_ms(ms(900, 1_250, 3_500), 1_000 * MS, 3_000 * MS) == 250.0
    assert last_after_ms(ms(900, 3_500), 1_000 * MS, 3_000 * MS) == 0.0
    assert last_after_ms([], 1_000 * MS, 3_000 * MS) == 0.0


def test_hit_worker() -> None:
    """Each mail of a stopped worker falls into the window that judges it."""
    stamps = ms(900, 1_100, 1_200, 2_500, 3_500, 4_200, 4_300, 4_400)
    figures = worker_figures("r-1", stamps, MOMENTS, hit=True, restarted=True, reads=0)
    assert figures.stopped_after_ms == 1_500.0
    assert (figures.after_ack, figures.after_effective, figures.before_go, figures.after_go) == (3, 1, 1, 3)


def test_spared_worker() -> None:
    """A worker that the kill does not hit has no time to stop, and nothing to be restarted."""
    figures = worker_figures("r-3", ms(1_100, 2_100), MOMENTS, hit=False, restarted=False, reads=4)
    assert figures.stopped_after_ms is None
    assert figures.before_go is None
    assert figures.after_effective == 1


def test_outage() -> None:
    """Mails later than one ttl after the service's end are told from those before."""
    moments = OutageMoments(
        term_ns=900 * MS, gone_ns=1_000 * MS, limit_ns=2_000 * MS, start_ns=3_000 * MS, end_ns=4_000 * MS
    )
    worker = outage_worker("r-1", ms(850, 1_800, 2_001, 3_300), moments, why="unreachable", same_run=True)
    assert worker.stopped_after_ms == 1_101.0
    assert (worker.after_limit, worker.after_start) == (1, 1)
