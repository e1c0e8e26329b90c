"""How entries follow one another, and what breaks a chain."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from haltline.errors import ChainBroken
from haltline.flips import GENESIS_HASH, Position, follow, seal
from tests.unit.core.logs import Log


def log() -> Log:
    """Return a log of six entries."""
    made = Log()
    first = made.kill("run:r-1", reason="caf\u00e9 \U0001f6d1")
    made.kill("tenant:acme")
    made.revive("run:r-1", first)
    made.note("token_revoked", token_id="a" * 12)
    made.kill("global")
    return made


def breaks_at(members: list[Any], *, after: Position = Position()) -> int:
    """Return the position at which a log that must not verify breaks."""
    with pytest.raises(ChainBroken) as caught:
        list(follow(members, after=after))
    assert str(caught.value.seq) in str(caught.value)
    return caught.value.seq


def test_a_sound_log_is_followed_to_its_head() -> None:
    """Every entry is yielded once, in order."""
    made = log()
    assert [each.position.seq for each in follow(made.members, after=Position())] == [1, 2, 3, 4, 5, 6]
    assert made.entries()[-1].position == made.head


def test_a_log_can_be_followed_from_any_position() -> None:
    """A tail verifies against the position it continues, and against no other."""
    made = log()
    half = Position(3, made.members[2]["hash"])
    assert len(list(follow(made.members[3:], after=half))) == 3
    assert breaks_at(made.members[3:], after=Position(3, "f" * 64)) == 4
    assert breaks_at(made.members[3:], after=Position(4, made.members[3]["hash"])) == 5


def test_the_first_entry_follows_nothing() -> None:
    """A log that does not begin at entry 1 after 64 zeros is no whole log."""
    made = log()
    assert made.members[0]["prev_hash"] == GENESIS_HASH
    assert breaks_at(made.members[1:]) == 1
    assert breaks_at([seal(made.members[0], after=Position(0, "f" * 64))]) == 1


def test_no_entries_are_no_break() -> None:
    """Nothing follows anything; whoever wants a head compares it."""
    assert list(follow([], after=Position())) == []


@pytest.mark.parametrize("at", range(6))
def test_a_dropped_entry_breaks_it(at: int) -> None:
    """A missing entry is noticed at its place; the last one only by an outside head."""
    made = log()
    members = made.members[:at] + made.members[at + 1 :]
    if at == 5:
        assert list(follow(members, after=Position()))[-1].position != made.head
    else:
        assert breaks_at(members) == at + 1


@pytest.mark.parametrize("at", range(5))
def test_swapped_entries_break_it(at: int) -> None:
    """Order is part of the chain."""
    members = log().members
    members[at], members[at + 1] = members[at + 1], members[at]
    assert breaks_at(members) == at + 1


@pytest.mark.parametrize("at", range(6))
def test_a_doubled_entry_breaks_it(at: int) -> None:
    """An entry stands in a log once."""
    members = log().members
    members.insert(at, members[at])
    assert breaks_at(members) == at + 2


@pytest.mark.parametrize("at", range(6))
def test_an_altered_entry_breaks_it(at: int) -> None:
    """A changed member is noticed at its entry."""
    members = copy.deepcopy(log().members)
    members[at]["actor"] = "mallory"
    assert breaks_at(members) == at + 1


@pytest.mark.parametrize("at", range(5))
def test_an_altered_entry_with_a_fitting_hash_breaks_it(at: int) -> None:
    """A forger who also mends the entry's own hash is noticed at the next entry."""
    made = log()
    before = Position(at, made.members[at]["prev_hash"])
    made.members[at] = seal({**made.members[at], "actor": "mallory"}, after=before)
    assert breaks_at(made.members) == at + 2


@pytest.mark.parametrize("at", range(6))
def test_an_inserted_entry_breaks_it(at: int) -> None:
    """A well-formed entry put between two others is noticed."""
    made = log()
    before = Position(at, made.members[at]["prev_hash"])
    made.members.insert(at, seal({**made.members[5], "flip_id": "forged"}, after=before))
    assert breaks_at(made.members) == at + 2


@pytest.mark.parametrize("at", range(6))
def test_a_log_chained_anew_has_another_head(at: int) -> None:
    """A forger who mends every hash behind the change cannot keep the head that others have seen."""
    made = log()
    position = Position(at, made.members[at]["prev_hash"])
    forged = made.members[:at]
    for members in [{**made.members[at], "actor": "mallory"}, *made.members[at + 1 :]]:
        forged.append(seal(members, after=position))
        position = Position(forged[-1]["seq"], forged[-1]["hash"])
    assert list(follow(forged, after=Position()))[-1].position.hash != made.head.hash


@pytest.mark.parametrize(("namespace", "epoch"), [("staging", "0123456789abcdef"), ("default", "f" * 16)])
def test_a_log_is_of_one_namespace_and_epoch(namespace: str, epoch: str) -> None:
    """An entry of another log does not continue this one, even if its hashes fit."""
    made = log()
    stranger = seal({**made.members[1], "namespace": namespace, "epoch": epoch}, after=made.head)
    assert breaks_at([*made.members, stranger]) == 7


@pytest.mark.parametrize(
    "change",
    [{"caf\u00e9": 1}, {"weight": 0.5}, {"s": "\ud800"}, {"n": 2**60}, {"deep": [[[[[[[[[]]]]]]]]]}, {"v": 2}],
    ids=ascii,
)
def test_an_entry_that_cannot_be_hashed_breaks_it(change: dict[str, Any]) -> None:
    """A member without a canonical form, or a newer version, is a break like any other."""
    members = log().members
    members[2] = {**members[2], **change}
    assert breaks_at(members) == 3


@pytest.mark.parametrize("odd", [None, [], "entry", 7, {}, {"seq": 3, "hash": "a" * 64}], ids=ascii)
def test_what_is_no_entry_breaks_it(odd: object) -> None:
    """Stubs and anything that is no entry do not belong into a log that is verified whole."""
    members: list[Any] = log().members
    members[2] = odd
    assert breaks_at(members) == 3


def test_what_came_before_a_break_is_yielded() -> None:
    """A reader learns how far the log is sound."""
    members = copy.deepcopy(log().members)
    members[3]["reason"] = "another"
    entries = follow(members, after=Position())
    assert [next(entries).position.seq for _ in range(3)] == [1, 2, 3]
    with pytest.raises(ChainBroken):
        next(entries)
