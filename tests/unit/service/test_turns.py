"""Turns: so many requests at once, the next ones wait a little, the others are refused at once."""

from __future__ import annotations

import threading
import time

import pytest

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


def test_the_newest_may_go_first() -> None:
    """Where it is so, the last who came gets the turn, and the first who came makes room where too many wait."""
    turns = Turns(1, waiting=2, newest_first=True)
    assert turns.take(0.0)
    came: dict[int, bool] = {}
    threads = []
    for number in range(3):
        threads.append(threading.Thread(target=lambda number=number: came.update({number: turns.take(20.0)})))
        threads[-1].start()
        while turns.waiting < min(number + 1, 2) or (number == 2 and 0 not in came):
            time.sleep(0.001)
    assert came == {0: False}
    turns.give()
    threads[2].join(20)
    assert came == {0: False, 2: True}
    turns.give()
    threads[1].join(20)
    assert came == {0: False, 1: True, 2: True}
    assert not Turns(0, waiting=0, newest_first=True).take(1.0)


def test_many_at_once_are_never_too_many() -> None:
    """However they come, wait and give up, no more are served at once than there are turns, and none is lost."""
    turns, lock = Turns(3, waiting=100), threading.Lock()
    inside, most, served = 0, 0, 0

    def ask() -> None:
        nonlocal inside, most, served
        for number in range(50):
            if turns.take(0.0005 * (number % 4)):
                with lock:
                    inside, served = inside + 1, served + 1
                    most = max(most, inside)
                time.sleep(0.0002)
                with lock:
                    inside -= 1
                turns.give()

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert served > 50
    assert most <= 3
    assert turns.waiting == 0
    assert [turns.take(0.0) for _ in range(4)] == [True, True, True, False]


def test_a_turn_that_nobody_had_is_not_taken_back() -> None:
    """To give back more than was taken is a defect, and said."""
    with pytest.raises(ValueError, match="nobody had"):
        Turns(1, waiting=1).give()
