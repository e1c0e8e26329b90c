"""Chores: done again and again in a thread of their own, each although another failed."""

from __future__ import annotations

import threading

import structlog

from app.service.chores import Chores


def test_chores_are_done_again_and_again() -> None:
    """One that raises is logged, and neither ends the thread nor keeps the next one from its turn."""
    rounds, done = [0], threading.Event()

    def failing() -> None:
        raise RuntimeError("as a bug would")

    def counting() -> None:
        rounds[0] += 1
        if rounds[0] >= 3:
            done.set()

    chores = Chores([failing, counting], every_s=0.01)
    with structlog.testing.capture_logs() as journal:
        chores.start()
        chores.start()
        assert done.wait(20)
        chores.close()
    assert {line["event"] for line in journal} == {"chore_failed"}
    before = rounds[0]
    assert not threading.Event().wait(0.1)
    assert rounds[0] == before


def test_chores_that_were_never_started_end() -> None:
    """As at a command that needs no thread."""
    Chores([]).close()
