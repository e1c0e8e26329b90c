"""The stopping rule: which effect of which run may happen under one replica."""

from __future__ import annotations

import pytest

from haltline.replica import from_snapshot
from haltline.scopes import path
from haltline.verdict import GO, Reason, Stop, Verdict
from tests.unit.core.logs import EPOCH, NAMESPACE, Log

PATH = path("r-1", tenant="acme", feature="outreach")


def judge(log: Log, *, armed: int | None = None, capability: str | None = None) -> Verdict:
    """Return the verdict for the run, armed at the head unless said otherwise."""
    replica = log.replica()
    return replica.judge(PATH, replica.position.seq if armed is None else armed, capability)


def stopped(verdict: Verdict) -> Stop:
    """Return a verdict that must be a stop."""
    assert isinstance(verdict, Stop)
    return verdict


def test_nothing_killed_goes() -> None:
    """Without a kill on its path an effect may happen, with or without a capability."""
    log = Log()
    log.kill("run:r-2")
    log.kill("tenant:other")
    log.kill("feature:other")
    log.kill("capability:read")
    log.kill("run:R-1")
    log.kill("run:acme")
    log.kill("tenant:r-1")
    assert judge(log) is GO
    assert judge(log, armed=1, capability="send") is GO


@pytest.mark.parametrize("target", ["global", "tenant:acme", "feature:outreach", "run:r-1"])
def test_a_kill_on_the_path_stops_the_run(target: str) -> None:
    """Each rung of the path stops it, before and after it was armed, whatever the capability."""
    log = Log()
    armed = log.head.seq
    seq = log.kill(target, actor="bob", reason="sends twice")
    for capability in (None, "send"):
        for when in (armed, seq):
            stop = stopped(judge(log, armed=when, capability=capability))
            assert stop.reason is Reason.KILLED
            assert [hold.seq for hold in stop.holds] == [seq]
            assert [str(each) for each in stop.killed] == [target]
            assert stop.detail == f"{target} killed by bob at 2026-11-20T20:25:11.000002Z, log position 2: sends twice"


def test_every_hold_is_named_the_broadest_first() -> None:
    """The verdict lists all that blocks, whatever the order of the kills; holds of one target by their seq."""
    log = Log()
    for target in (
        "capability:send",
        "run:r-1",
        "feature:outreach",
        "run:r-1",
        "tenant:acme",
        "global",
        "capability:send",
    ):
        log.kill(target)
    stop = stopped(judge(log, capability="send"))
    assert stop.reason is Reason.KILLED
    assert [(str(hold.target), hold.seq) for hold in stop.holds] == [
        ("global", 7),
        ("tenant:acme", 6),
        ("feature:outreach", 4),
        ("run:r-1", 3),
        ("run:r-1", 5),
        ("capability:send", 2),
        ("capability:send", 8),
    ]
    assert [str(each) for each in stop.killed] == [
        "global",
        "tenant:acme",
        "feature:outreach",
        "run:r-1",
        "capability:send",
    ]
    assert stop.detail.startswith("global killed by alice")
    assert stop.detail.endswith("(and 6 more)")


def test_a_killed_capability_freezes_itself_only() -> None:
    """The run goes on without the capability: other effects, and the run alone, may happen."""
    log = Log()
    seq = log.kill("capability:send")
    stop = stopped(judge(log, armed=1, capability="send"))
    assert stop.reason is Reason.FROZEN
    assert [hold.seq for hold in stop.holds] == [seq]
    assert [str(each) for each in stop.killed] == ["capability:send"]
    assert judge(log, armed=1) is GO
    assert judge(log, armed=1, capability="read") is GO


def test_a_thawed_capability_goes_again() -> None:
    """A capability's kill is not remembered against the run."""
    log = Log()
    seq = log.kill("capability:send")
    log.revive("capability:send", seq)
    assert judge(log, armed=1, capability="send") is GO


def test_a_kill_revived_is_still_a_stop_for_who_was_armed_before() -> None:
    """A blip is a stop: no hold is left, and the verdict says that a restart is needed."""
    log = Log()
    armed = log.head.seq
    seq = log.kill("tenant:acme")
    revived = log.head.seq + 1
    log.revive("tenant:acme", seq)
    stop = stopped(judge(log, armed=armed))
    assert stop.reason is Reason.KILLED
    assert stop.holds == ()
    assert [str(each) for each in stop.killed] == ["tenant:acme"]
    assert "a revive starts nothing" in stop.detail
    for later in (seq, revived):
        assert judge(log, armed=later) is GO


def test_a_revived_target_beside_a_held_one() -> None:
    """Released and held targets are both named as killed; only the held ones have holds."""
    log = Log()
    blip = log.kill("global")
    log.revive("global", blip)
    hold = log.kill("run:r-1")
    stop = stopped(judge(log, armed=1))
    assert [str(each) for each in stop.killed] == ["global", "run:r-1"]
    assert [each.seq for each in stop.holds] == [hold]


def test_draining_kills_stop_runs_too() -> None:
    """The policy for queued work does not weaken the kill."""
    log = Log()
    seq = log.kill("run:r-1", queued="drain")
    assert stopped(judge(log, armed=1)).reason is Reason.KILLED
    log.revive("run:r-1", seq)
    assert stopped(judge(log, armed=1)).reason is Reason.KILLED


def test_a_replica_behind_the_run_is_no_proof() -> None:
    """Until the replica has reached where the run was armed, nothing passes, and it is not a kill either."""
    log = Log()
    replica = log.replica()
    stop = stopped(replica.judge(PATH, 2))
    assert stop.reason is Reason.BEHIND
    assert stop.holds == ()
    assert replica.judge(PATH, 1) is GO
    log.kill("run:r-1")
    log.revive("run:r-1", 2)
    assert stopped(log.empty().extend(log.entries()[:2]).judge(PATH, 3)).reason is Reason.BEHIND


def test_a_run_armed_below_the_floor_is_stopped() -> None:
    """Where marks may have been forgotten, a run that is older than the oldest of them does not pass."""
    log = Log()
    log.kill("run:r-2")
    log.note("token_created")
    base = from_snapshot({**log.replica().snapshot(), "floor_seq": 2}, namespace=NAMESPACE, epoch=EPOCH)
    stop = stopped(base.judge(PATH, 1))
    assert stop.reason is Reason.KILLED
    assert stop.killed == ()
    assert "armed at position 1, before 2" in stop.detail
    assert base.judge(PATH, 2) is GO


def test_a_frozen_capability_below_the_floor() -> None:
    """The floor halts the run, and the capability's holds are named beside it."""
    log = Log()
    seq = log.kill("capability:send")
    base = from_snapshot({**log.replica().snapshot(), "floor_seq": 2}, namespace=NAMESPACE, epoch=EPOCH)
    stop = stopped(base.judge(PATH, 1, "send"))
    assert stop.reason is Reason.KILLED
    assert [hold.seq for hold in stop.holds] == [seq]


def test_a_run_without_tenant_and_feature_has_a_short_path() -> None:
    """A tenant's kill does not reach a run that belongs to none."""
    log = Log()
    log.kill("tenant:acme")
    log.kill("feature:outreach")
    replica = log.replica()
    assert replica.judge(path("r-1"), 1) is GO
    log.kill("global")
    assert not log.replica().judge(path("r-1"), 1)
