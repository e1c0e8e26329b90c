"""What keeps the doorbell harmless: attempts that spread, an allowance, and one reading of a message."""

from __future__ import annotations

import random

import pytest

from app.bus.allowance import BYTES, MESSAGES, Allowance
from app.bus.backoff import FIRST_S, LONGEST_S, Backoff
from app.bus.redis import TIMEOUT_S
from app.bus.redis_listener import position


def test_waits_grow_at_random_and_stay_below_their_bound() -> None:
    """No wait is shorter than the first or longer than the longest, and two nodes soon wait differently."""
    one, other = Backoff(random.Random(1).uniform), Backoff(random.Random(2).uniform)
    waits = [(one.next_s(), other.next_s()) for _ in range(200)]
    assert all(FIRST_S <= each <= LONGEST_S for pair in waits for each in pair)
    assert max(waits[0]) <= 3 * FIRST_S
    assert max(each for each, _ in waits) > LONGEST_S / 2
    assert all(mine != theirs for mine, theirs in waits if mine < LONGEST_S)
    assert LONGEST_S + TIMEOUT_S < 2.0  # how long a doorbell stays away at most once Redis is back


def test_after_a_success_waits_begin_anew() -> None:
    """A reset brings the wait back to the first."""
    backoff = Backoff(lambda _low, high: high)
    assert [backoff.next_s() for _ in range(6)][-1] == LONGEST_S
    backoff.reset()
    assert backoff.next_s() == pytest.approx(3 * FIRST_S)


def test_an_allowance_counts_messages_by_the_second() -> None:
    """So many messages within a second are fine, one more is too many, and the next second begins at none."""
    allowance = Allowance(100.0)
    assert not any(allowance.exceeded(2, 100.5) for _ in range(MESSAGES))
    assert allowance.exceeded(2, 100.9)
    assert not allowance.exceeded(2, 101.0)


def test_an_allowance_counts_bytes_too() -> None:
    """A few large messages are as many as a lot of small ones."""
    allowance = Allowance(0.0)
    assert not allowance.exceeded(BYTES, 0.1)
    assert allowance.exceeded(1, 0.2)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"1", 1),
        (b"42", 42),
        (b"9223372036854775807", 9_223_372_036_854_775_807),
        (b"0", None),
        (b"042", None),
        (b"-1", None),
        (b"+1", None),
        (b"4_2", None),
        (b" 42", None),
        (b"42\n", None),
        (b"4.2", None),
        (b"", None),
        (b"9" * 20, None),
        (b"9" * 100_000, None),
        ("٤٢".encode(), None),
        (b"revive", None),
        (b'{"op": "revive", "target": "global"}', None),
        (b"\xff\x00", None),
    ],
)
def test_a_message_is_a_position_or_nothing(data: bytes, found: int | None) -> None:
    """Only ASCII digits without a leading zero are a position."""
    assert position([b"message", b"haltline:default:doorbell", data]) == found


@pytest.mark.parametrize(
    "message",
    [
        None,
        b"42",
        42,
        [],
        [b"pong", b""],
        [b"subscribe", b"c", 1],
        [b"pmessage", b"*", b"c", b"42"],
        [b"message", b"c", 42],
    ],
)
def test_what_is_no_message_rings_nothing(message: object) -> None:
    """Whatever else Redis says is no position."""
    assert position(message) is None
