"""Kill and revive as use cases: what is promised, who may, and when the doorbell rings."""

from __future__ import annotations

import pytest

from app.domain.access import Principal, Reach, Role
from app.service.flips import Flipped, Flips
from app.service.skew import Skew
from app.service.store import FlipIdTaken, NoSuchHold, OutcomeUnknown, StaleView, StoreUnavailable, Ttl
from haltline.scopes import parse_target
from tests.unit.service.fakes import EPOCH, ManualClocks, MemoryStore

ADA = Principal("aaaaaaaaaaaa", "ada", Role.OPERATOR, None, frozenset(), 9e9)
BOUND = Principal("bbbbbbbbbbbb", "bo", Role.OPERATOR, ("acme",), frozenset(), 9e9)
R42 = parse_target("run:r-42")


class Desk:
    """The use case over fakes."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.store.append("note", topic="log_opened")
        self.clocks = ManualClocks()
        self.rung: list[int] = []
        self.skew = Skew(self.store, self.clocks)
        self.flips = Flips(self.store, self.clocks, self.skew, ring=self.rung.append)

    def kill(self, target: str = "run:r-42", *, flip_id: str | None = None, reason: str = "why") -> Flipped:
        """Kill, and return the flip."""
        outcome = self.flips.kill(ADA, parse_target(target), reason=reason, flip_id=flip_id)
        assert isinstance(outcome, Flipped)
        return outcome


def test_effective_after_the_ttl() -> None:
    """effective_at is the commit plus the ttl, and effective_in_ms counts down to it, rounded up."""
    desk = Desk()
    flipped = desk.kill()
    assert flipped.committed_at == "2027-01-15T08:00:01.000000Z"
    assert flipped.effective_at == "2027-01-15T08:00:02.000000Z"
    assert flipped.effective_in_ms(desk.clocks) == 1_000
    desk.clocks.pass_us(1)
    assert flipped.effective_in_ms(desk.clocks) == 1_000
    desk.clocks.pass_us(999)
    assert flipped.effective_in_ms(desk.clocks) == 999
    desk.clocks.pass_s(5)
    assert flipped.effective_in_ms(desk.clocks) == 0


def test_effective_covers_a_ttl_that_was_just_shortened() -> None:
    """Leases of the old ttl count until they have ended."""
    desk = Desk()
    desk.store.ttl = Ttl(200, desk.clocks.wall() - 1, 5_000)
    assert desk.kill().effective_in_ms(desk.clocks) == 4_000


@pytest.mark.parametrize("ahead_s", [0.6, 3_600.0, -0.6, -3_600.0])
def test_a_clock_that_is_wrong_promises_the_longer_ttl(ahead_s: float) -> None:
    """What such a clock says of a change's moment is not believed while a lease of the old ttl may still run."""
    desk = Desk()
    desk.store.clock = lambda: desk.clocks.wall() - ahead_s
    changed_at = desk.clocks.wall() - ahead_s - 4.9  # by the database's clock, 4.9 s ago
    desk.store.ttl = Ttl(200, changed_at, 5_000)
    desk.skew.measure()
    assert desk.kill().effective_in_ms(desk.clocks) == 5_000
    desk.store.ttl = Ttl(200, changed_at - 10, 5_000)
    if ahead_s > 0:
        assert desk.kill("run:r-2").effective_in_ms(desk.clocks) <= 201, "long ago by any clock"


def test_a_replay_promises_from_now() -> None:
    """A replay has the seq and time of the first; when it was durable is known only to be before now."""
    desk = Desk()
    first = desk.kill(flip_id="f-1")
    desk.clocks.pass_s(60)
    again = desk.kill(flip_id="f-1")
    assert again.committed.replayed
    assert again.committed.row == first.committed.row
    assert again.committed_at == first.committed.members["at"]
    assert again.effective_in_ms(desk.clocks) == 1_000


def test_a_flip_id_is_made_where_none_is_given() -> None:
    """Two kills without flip_id are two flips."""
    desk = Desk()
    first, second = desk.kill(), desk.kill()
    assert first.committed.members["flip_id"] != second.committed.members["flip_id"]
    assert second.committed.row.position.seq == first.committed.row.position.seq + 1


def test_another_flip_with_the_same_id_is_refused() -> None:
    """A flip_id names one flip."""
    desk = Desk()
    desk.kill(flip_id="f-1")
    outcome = desk.flips.kill(ADA, R42, reason="another", flip_id="f-1")
    assert outcome == FlipIdTaken(2)


@pytest.mark.parametrize(
    ("target", "reach"),
    [
        ("tenant:acme", None),
        ("tenant:other", Reach.HIDDEN),
        ("run:r-1", Reach.HIDDEN),
        ("capability:send_email", Reach.FORBIDDEN),
        ("feature:x", Reach.FORBIDDEN),
        ("global", Reach.FORBIDDEN),
    ],
)
def test_bound_operators_reach_their_tenant_only(target: str, reach: Reach | None) -> None:
    """A bound operator kills its own tenant, and nothing is written for anything else."""
    desk = Desk()
    outcome = desk.flips.kill(BOUND, parse_target(target), reason="why", flip_id=None)
    assert outcome is reach or (reach is None and isinstance(outcome, Flipped))
    assert len(desk.store.rows) == (1 if reach else 2)


def test_a_revive_needs_the_view_and_the_holds() -> None:
    """A stale view and a hold that is not active are told apart, and write nothing."""
    desk = Desk()
    desk.kill()
    outcomes = [
        desk.flips.revive(ADA, R42, holds=holds, reason="ok", flip_id=None, if_match=f'"{EPOCH}.{version}"')
        for holds, version in (((2,), 1), ((9,), 2), ((2,), 2))
    ]
    assert isinstance(outcomes[0], StaleView)
    assert isinstance(outcomes[1], NoSuchHold)
    assert isinstance(outcomes[2], Flipped)
    assert outcomes[2].committed.flag.holds == ()
    assert len(desk.store.rows) == 3


def test_the_doorbell_rings_after_the_commit() -> None:
    """The doorbell is rung with the flip's position, once it is durable, and not for a refusal."""
    desk = Desk()
    desk.kill(flip_id="f-1")
    desk.flips.kill(ADA, R42, reason="another", flip_id="f-1")
    assert desk.rung == [2]


@pytest.mark.parametrize("failure", [StoreUnavailable("gone"), OutcomeUnknown("lost")])
def test_failures_are_not_swallowed(failure: Exception) -> None:
    """A store that fails, or that does not know, never turns into a flip."""
    desk = Desk()
    desk.store.failure = failure
    with pytest.raises(type(failure)):
        desk.kill()
    assert desk.rung == []
