"""Waiting ends when it happened, or when the time is up."""

from __future__ import annotations

import threading

from sample.watch import Watch


def test_already_so() -> None:
    """What has happened before is not waited for, with no time left either."""
    assert Watch().until(lambda: True, 0)
    assert not Watch().until(lambda: False, -1)


def test_woken_by_another_thread() -> None:
    """A change in another thread ends the wait long before its time."""
    watch, happened = Watch(), threading.Event()

    def happen() -> None:
        happened.set()
        watch.changed()

    other = threading.Thread(target=happen)
    other.start()
    assert watch.until(happened.is_set, 30)
    other.join()


def test_time_is_up() -> None:
    """What never happens is waited for no longer than was said, however often something changes."""
    watch, over = Watch(), threading.Event()

    def fidget() -> None:
        while not over.wait(0.001):
            watch.changed()

    other = threading.Thread(target=fidget)
    other.start()
    assert not watch.until(lambda: False, 0.05)
    over.set()
    other.join()
