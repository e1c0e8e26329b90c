"""Who of several does not want to be asked yet: one machine is not asked by another way, another machine is."""

from __future__ import annotations

import socket
from typing import Final

from haltline.address import Places, Where

V4, V6 = socket.AF_INET, socket.AF_INET6
ONE: Final[Where] = (V4, ("192.0.2.1", 8787))
TWO: Final[Where] = (V4, ("192.0.2.2", 8787))
ONE6: Final[Where] = (V6, ("2001:db8::1", 8787, 0, 0))
TWO6: Final[Where] = (V6, ("2001:db8::2", 8787, 0, 0))


def places(*names: tuple[Where, ...]) -> Places:
    """Return the places to which these names lead."""
    made = Places(len(names))
    for at, led in enumerate(names):
        made.lead(at, led)
    return made


def test_whoever_asked_for_it_is_spared_and_nobody_else() -> None:
    """For as long as it said; the others of its name are other machines."""
    made = places((ONE, TWO))
    made.spare(ONE, 1.0, now=100.0)
    assert [made.wait_s(0, each, 100.25) for each in (ONE, TWO)] == [0.75, 0.0]
    assert made.least_s(ONE, 100.25) == 0
    assert made.wait_s(0, ONE, 101.0) == 0


def test_it_is_honoured_every_time() -> None:
    """Of two machines of one name that both asked for it none is asked before its time is over."""
    made = places((ONE, TWO))
    made.spare(ONE, 1.0, now=100.0)
    made.spare(TWO, 1.0, now=100.25)
    assert made.least_s(TWO, 100.25) == 0.75
    made.spare(ONE, 1.0, now=101.0)
    assert made.least_s(ONE, 101.0) == 0.25
    made.spare(TWO, 1.0, now=101.25)
    assert made.least_s(TWO, 101.25) == 0.75


def test_a_machine_is_not_asked_by_its_address_of_another_family() -> None:
    """As where localhost is ::1 and 127.0.0.1, whichever of the two has answered."""
    for told, other in ((ONE6, ONE), (ONE, ONE6)):
        made = places((ONE6, ONE))
        made.spare(told, 1.0, now=100.0)
        assert made.wait_s(0, other, 100.0) == 1
        assert made.least_s(told, 100.0) == 1
        assert made.wait_s(0, other, 101.0) == 0


def test_of_several_machines_of_two_families_one_is_spared() -> None:
    """Which of the other family's addresses leads to it is not known until all of them asked for it."""
    made = places((ONE6, TWO6, ONE, TWO))
    made.spare(ONE6, 1.0, now=100.0)
    assert [made.wait_s(0, each, 100.0) for each in (ONE6, TWO6, ONE, TWO)] == [1, 0, 0, 0]
    made.spare(TWO6, 0.5, now=100.0)
    assert [made.wait_s(0, each, 100.0) for each in (ONE6, TWO6, ONE, TWO)] == [1, 0.5, 0.5, 0.5]


def test_one_that_cannot_be_reached_is_no_reason_to_ask_sooner() -> None:
    """It is passed over in the reckoning until the next attempt begins."""
    made = places((ONE,), (TWO,))
    made.spare(ONE, 1.0, now=100.0)
    assert made.least_s(ONE, 100.0) == 0
    made.fail(TWO)
    assert made.least_s(None, 100.25) == 0.75
    made.begin()
    assert made.least_s(None, 100.25) == 0


def test_a_name_that_cannot_be_looked_up_is_no_reason_either() -> None:
    """While one that nobody has looked up yet is."""
    made = Places(2)
    made.lead(0, (ONE,))
    made.spare(ONE, 1.0, now=100.0)
    assert made.least_s(ONE, 100.0) == 0
    made.lead(1, ())
    assert made.least_s(None, 100.0) == 1
    made.begin()
    assert made.least_s(ONE, 100.0) == 0


def test_whoever_was_given_up_counts_only_where_there_is_nobody_else() -> None:
    """The next one's time is waited for, or its own."""
    made = places((ONE,), (TWO,))
    made.spare(ONE, 1.0, now=100.0)
    made.spare(TWO, 0.0, now=100.0)
    assert made.least_s(TWO, 100.0) == 1
    alone = places((ONE,))
    alone.spare(ONE, 1.0, now=100.0)
    assert alone.least_s(ONE, 100.0) == 1
    alone.fail(ONE)
    assert alone.least_s(None, 100.0) == 0


def test_two_urls_of_one_place_are_one_place() -> None:
    """As localhost and 127.0.0.1, or two prefixes."""
    made = places((ONE,), (ONE,))
    made.spare(ONE, 1.0, now=100.0)
    assert made.wait_s(1, ONE, 100.0) == 1
    assert made.least_s(ONE, 100.0) == 1
