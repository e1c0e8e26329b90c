"""Turns: so many requests at once, the next ones wait a little, the others are refused at once."""

from __future__ import annotations

import threading
import time

from app.service.turns import Turns


def test_beyond_the_number_one_waits_for_a_turn() -> None:
    """Whoever finds every turn taken gets the next one that is given back."""
    turns = Turns(2, waiting=5)
    assert turns.take(0.0)
    assert turns.take(0.0)
    came: list[bool] = []
    waiter = threading.Thread(target=lambda: came.append(turns.take(20.0)))
    waiter.start()
    while turns.waiting == 0:
        time.sleep(0.001)
    turns.give()
    waiter.join(20)
    assert came == [True]
    assert turns.waiting == 0


def test_nobody_waits_for_longer_than_asked() -> None:
    """When no turn comes in time there is none."""
    turns = Turns(1, waiting=5)
    assert turns.take(0.0)
    assert not turns.take(0.01)
    turns.give()
    assert turns.take(0.0)


def test_the_queue_has_an_end() -> None:
    """Whoever finds the queue full is refused without waiting."""
    turns = Turns(1, waiting=0)
    assert turns.take(0.0)
    began = time.monotonic()
    assert not turns.take(60.0)
    assert time.monotonic() - began < 30
