"""Planned work: what a kill discards stays discarded, what it drains goes on, and what a worker is told."""

from __future__ import annotations

import asyncio
import logging
import pickle
import time
from collections.abc import Iterator
from typing import Literal

import pytest

from haltline import CapabilityFrozen, Killed, KillSwitch, Reason, Refusal, StampRefused, Unverified, current_run
from haltline.planned import Redeemed
from haltline.stamps import PLAN_MAX_AGE_S
from haltline.testing import FakeService, FakeSwitch, fake_switch
from tests.support.lines import Line, connected

PATH = ["global", "tenant:acme", "feature:outreach", "run:r-1", "capability:send_email"]


@pytest.fixture
def switch() -> FakeSwitch:
    """Return a switch that is renewed after each flip."""
    return fake_switch()


def planned(switch: KillSwitch, capability: str = "send_email") -> str:
    """Return a stamp of a run that has ended."""
    with switch.run("r-1", tenant="acme", feature="outreach") as run:
        return run.plan(capability)


def refusal(switch: KillSwitch, stamp: str, *, payload_hash: str | None = None) -> StampRefused:
    """Redeem what is refused, and return how."""
    with pytest.raises(StampRefused) as refused:
        switch.redeem(stamp, payload_hash=payload_hash)
    return refused.value


def send(switch: KillSwitch, stamp: str) -> Redeemed:
    """Carry planned work out, and return it."""
    with switch.redeem(stamp) as work:
        work.check("send_email")
        with work.effect("send_email"):
            pass
        work.guard("send_email")()
        work.check()
        assert current_run() is work
    return work


# -- discard -----------------------------------------------------------------------------------------------------------


def test_planned_work_is_carried_out(switch: FakeSwitch) -> None:
    """Without a kill a stamp is redeemed, as often as a queue delivers it, also after the run has ended."""
    stamp = planned(switch)
    work = send(switch, stamp)
    assert (work.id, work.tenant, work.feature, work.stamp.capability) == ("r-1", "acme", "outreach", "send_email")
    send(switch, stamp)
    assert switch.discarded() == ()


@pytest.mark.parametrize("target", PATH)
def test_a_discarded_stamp_is_dead_for_ever(switch: FakeSwitch, target: str) -> None:
    """It is refused under the kill, and after the revive."""
    stamp = planned(switch)
    switch.service.kill(target, reason="wrong recipients")
    under = refusal(switch, stamp)
    assert under.reason is Refusal.DISCARDED
    assert under.final
    assert under.verdict is not None
    assert [str(hold.target) for hold in under.verdict.holds] == [target]
    assert "wrong recipients" in str(under)
    switch.service.revive(target)
    assert refusal(switch, stamp).reason is Refusal.DISCARDED
    send(switch, planned(switch))


@pytest.mark.parametrize("target", ["tenant:other", "feature:other", "run:r-2", "run:r-1.child", "capability:other"])
def test_other_kills_do_not_matter(switch: FakeSwitch, target: str) -> None:
    """A kill beside the path discards nothing of it."""
    stamp = planned(switch)
    switch.service.kill(target)
    send(switch, stamp)


def test_a_kill_above_the_run_discards(switch: FakeSwitch) -> None:
    """The path in a stamp has the runs above the one that planned."""
    with switch.run("r-0") as root, root.child("a") as child, child.child("b") as grandchild:
        stamp = grandchild.plan("send_email")
    switch.service.kill("run:r-0.a")
    switch.service.revive("run:r-0.a")
    assert refusal(switch, stamp).reason is Refusal.DISCARDED


def test_what_was_discarded_is_kept_and_said(switch: FakeSwitch, caplog: pytest.LogCaptureFixture) -> None:
    """The record has what planning it anew takes, once however often it comes, and it works."""
    with switch.run("r-1", tenant="acme") as run:
        stamp = run.plan("send_email", payload_hash="sha256:abc")
    switch.service.kill("tenant:acme")
    with caplog.at_level(logging.WARNING, "haltline"):
        refusal(switch, stamp)
        refusal(switch, stamp)
    (record,) = switch.discarded()
    assert (record.stamp, record.run, record.capability) == (stamp, "r-1", "send_email")
    assert (record.payload_hash, record.reason, record.lineage.tenant) == ("sha256:abc", Refusal.DISCARDED, "acme")
    assert stamp in caplog.text
    switch.service.revive("tenant:acme")
    with switch.run(record.run, tenant=record.lineage.tenant) as again:
        assert record.capability is not None
        anew = again.plan(record.capability, payload_hash=record.payload_hash)
    with switch.redeem(anew, payload_hash="sha256:abc") as work:
        work.check("send_email")


def test_a_kill_stops_work_that_is_being_carried_out(switch: FakeSwitch) -> None:
    """A discarding kill stops it like any run, and for good."""
    with switch.redeem(planned(switch)) as work:
        guard = work.guard("send_email")
        guard()
        switch.service.kill("tenant:acme")
        switch.service.revive("tenant:acme")
        for ask in (work.check, guard, work.effect("send_email").__enter__):
            with pytest.raises(Killed):
                ask()


def test_a_call_of_planned_work_is_ended(switch: FakeSwitch) -> None:
    """A discarding kill ends its calls in flight; under ``finish`` they end by themselves."""

    async def main(in_flight: Literal["abort", "finish"]) -> bool:
        async with switch.redeem(planned(switch)) as work, work.abortable() as call:
            switch.service.kill("run:r-1", in_flight=in_flight)
            await asyncio.sleep(0.01)
            return call.aborted

    with pytest.raises(Killed):
        asyncio.run(main("abort"))
    switch.service.revive("run:r-1")
    assert asyncio.run(main("finish")) is False


def test_a_frozen_capability_leaves_the_rest_of_the_work(switch: FakeSwitch) -> None:
    """Its own capability, which check() asks for, is refused for good; another one, and the worker, go on."""
    with switch.redeem(planned(switch)) as work:
        switch.service.kill("capability:send_email")
        switch.service.revive("capability:send_email")
        for capability in (None, "send_email"):
            with pytest.raises(CapabilityFrozen, match="send_email"):
                work.check(capability)
        work.check("other")


# -- drain -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", PATH)
def test_drained_work_runs(switch: FakeSwitch, target: str) -> None:
    """Under the kill and after the revive, while the run itself is halted and nothing new may begin."""
    with switch.run("r-1", tenant="acme", feature="outreach") as run:
        stamp = run.plan("send_email")
        switch.service.kill(target, queued="drain")
        with pytest.raises((Killed, CapabilityFrozen)):
            run.check("send_email")
        with pytest.raises((Killed, CapabilityFrozen)):
            run.plan("send_email")
        send(switch, stamp)
        with run.redeem(stamp) as work:  # neither the run's latch nor its armed_seq counts in here
            work.check("send_email")
    switch.service.revive(target)
    send(switch, stamp)


def test_work_goes_on_while_it_is_drained(switch: FakeSwitch) -> None:
    """A draining kill stops neither work that is being carried out, nor its calls."""

    async def main() -> None:
        async with switch.redeem(planned(switch)) as work:
            async with work.effect("send_email"):
                switch.service.kill("global", queued="drain")
                await asyncio.sleep(0.01)
            work.check("send_email")

    asyncio.run(main())


def test_every_hold_must_drain(switch: FakeSwitch) -> None:
    """One hold that discards, anywhere on the path, is enough; and it outlives its revive."""
    stamp = planned(switch)
    switch.service.kill("tenant:acme", queued="drain")
    send(switch, stamp)
    switch.service.kill("run:r-1", queued="discard")
    assert refusal(switch, stamp).reason is Refusal.DISCARDED
    switch.service.revive("run:r-1")
    assert refusal(switch, stamp).reason is Refusal.DISCARDED


def test_a_drain_does_not_wake_what_a_kill_before_it_discarded(switch: FakeSwitch) -> None:
    """Newer than the barrier, or dead: a draining kill that follows changes nothing."""
    stamp = planned(switch)
    switch.service.kill("run:r-1")
    switch.service.revive("run:r-1")
    later = planned(switch)
    switch.service.kill("run:r-1", queued="drain")
    assert refusal(switch, stamp).reason is Refusal.DISCARDED
    send(switch, later)


def test_a_child_of_drained_work_goes_on(switch: FakeSwitch) -> None:
    """It is judged by the same stamp: entered under the drain, stopped by a kill of its own that discards."""
    stamp = planned(switch)
    switch.service.kill("tenant:acme", queued="drain")
    with switch.redeem(stamp) as work, work.child("part") as part, part.child("of") as inner:
        inner.check("send_email")
        switch.service.kill("run:r-1.part")
        for stopped in (part, inner):
            with pytest.raises(Killed):
                stopped.check()
        work.check("send_email")
        with pytest.raises(Killed):
            work.child("part").__enter__()


def test_what_drained_work_plans_is_drained_too(switch: FakeSwitch) -> None:
    """The next link of a chain has its position: it runs, and a kill that discards voids it."""
    stamp = planned(switch)
    switch.service.kill("tenant:acme", queued="drain")
    with switch.redeem(stamp) as work:
        following = work.plan("send_email")
    send(switch, following)
    switch.service.kill("global")
    switch.service.revive("global")
    assert refusal(switch, following).reason is Refusal.DISCARDED


def test_what_work_plans_with_nothing_held_is_planned_then(switch: FakeSwitch) -> None:
    """Without a hold on its path the next link has the present position: an older one would die of older kills."""
    stamp = planned(switch)
    switch.service.note("token_created")
    with switch.redeem(stamp) as work:
        following = work.plan("send_email")
    with switch.redeem(following) as work:
        assert work.stamp.seq == switch.position.seq


# -- where it is redeemed ----------------------------------------------------------------------------------------------


def test_work_ends_with_the_run_that_carries_it_out(switch: FakeSwitch) -> None:
    """A run outside the stamp's line that redeems it stops what it redeemed, as it stops itself."""
    stamp = planned(switch)
    with switch.run("worker-7") as worker, worker.redeem(stamp) as work:
        work.check("send_email")
        switch.service.kill("run:worker-7", queued="drain")
        with pytest.raises(Killed):
            work.check("send_email")
    send(switch, stamp)
    with pytest.raises(Killed):
        worker.redeem(stamp)


def test_a_timer_of_such_work_ends_with_its_host(switch: FakeSwitch) -> None:
    """What work plans that another run carries out is stopped with that run, too, also after its revive."""
    stamp = planned(switch)
    fired: list[int] = []
    with switch.run("worker-7") as worker, worker.redeem(stamp) as work:
        timer = work.call_later(0.2, lambda: fired.append(1), capability="send_email")
        switch.service.kill("run:worker-7", queued="drain")
        switch.service.revive("run:worker-7")
        time.sleep(0.4)
        assert timer.state == "discarded"
    assert fired == []


def test_redeeming_in_asyncio(switch: FakeSwitch) -> None:
    """The same, from a task."""
    stamp = planned(switch)

    async def main() -> None:
        async with await switch.aredeem(stamp) as work:
            work.check("send_email")
        async with switch.run("w") as run, await run.aredeem(stamp) as work:
            assert current_run() is work
        switch.service.kill("run:r-1")
        with pytest.raises(StampRefused):
            await switch.aredeem(stamp)

    asyncio.run(main())


# -- what is refused, and what is only not proven yet --------------------------------------------------------------


def test_a_forged_stamp_is_refused(switch: FakeSwitch) -> None:
    """And not kept: nobody planned it."""
    stamp = planned(switch)
    assert refusal(switch, stamp[:-4] + "AAAA").reason is Refusal.FORGED
    assert refusal(switch, "hs1.e30.AAAA").reason is Refusal.FORGED
    assert switch.discarded() == ()


def test_a_stamp_of_another_service_is_refused(switch: FakeSwitch) -> None:
    """Its key is not known here, and its epoch is another."""
    other = fake_switch()
    assert refusal(switch, planned(other)).reason is Refusal.FOREIGN


def test_an_unknown_key_is_not_called_forged_without_a_lease(switch: FakeSwitch) -> None:
    """The keys may be those that this process has missed while it was cut off."""
    ahead = switch.service.switch()
    cut_off = switch.service.switch(follow=False)
    cut_off.ensure()
    switch.service.rotate_stamp_key(keep=False)
    ahead.renew()
    stamp = planned(ahead)
    assert refusal(cut_off, stamp).reason is Refusal.FORGED
    switch.service.down()
    switch.clock.advance(10)
    with pytest.raises(Unverified):
        cut_off.redeem(stamp, timeout=0)
    switch.service.up()
    send(cut_off, stamp)


def test_an_old_stamp_is_refused(switch: FakeSwitch) -> None:
    """After 30 days, to the second."""
    stamp = planned(switch)
    switch.clock.advance(PLAN_MAX_AGE_S - 1)
    send(switch, stamp)
    switch.clock.advance(3)
    assert refusal(switch, stamp).reason is Refusal.EXPIRED
    assert [each.reason for each in switch.discarded()] == [Refusal.EXPIRED]


def test_another_payload_is_refused(switch: FakeSwitch) -> None:
    """A stamp that was made for one payload does not pass with another, nor one made for none."""
    with switch.run("r-1") as run:
        stamp, bare = run.plan("send_email", payload_hash="sha256:a"), run.plan("send_email")
        with pytest.raises(ValueError, match="hash"):
            run.plan("send_email", payload_hash="a b")
    assert refusal(switch, stamp, payload_hash="sha256:b").reason is Refusal.MISMATCH
    assert refusal(switch, bare, payload_hash="sha256:b").reason is Refusal.MISMATCH
    assert switch.redeem(stamp, payload_hash="sha256:a").stamp.payload_hash == "sha256:a"
    assert switch.redeem(stamp).stamp.payload_hash == "sha256:a"


def test_keys_may_be_rotated(switch: FakeSwitch) -> None:
    """What an older key has sealed is redeemed for as long as that is given out, also by who has just begun."""
    stamps = [planned(switch)]
    for _ in range(3):
        switch.service.rotate_stamp_key()
        switch.renew()
        switch.clock.advance(700)
        stamps.append(planned(switch))
        for stamp in stamps:
            send(switch, stamp)
            send(switch.service.switch(), stamp)
    switch.service.rotate_stamp_key(keep=False)
    switch.renew()
    assert refusal(switch, stamps[-1]).reason is Refusal.FORGED


def test_a_process_that_has_not_heard_of_a_new_key_is_not_shut_out(switch: FakeSwitch) -> None:
    """Who hears of a key first seals with the one before it, for as long as another may not have it."""
    behind = switch.service.switch(follow=False)
    behind.ensure()
    planned(switch)
    switch.service.rotate_stamp_key()
    switch.renew()
    send(behind, planned(switch))


def test_a_stamp_newer_than_the_replica_is_not_dead() -> None:
    """It is Unverified until this process has caught up, and then it is redeemed."""
    service = FakeService()
    ahead, behind = service.switch(), service.switch(follow=False)
    with behind.run("w"):
        pass
    service.note("token_created")
    stamp = planned(ahead)
    service.down()
    with pytest.raises(Unverified) as unverified:
        behind.redeem(stamp, timeout=0)
    assert unverified.value.verdict.reason is Reason.BEHIND
    assert behind.discarded() == ()
    service.up()
    behind.renew()
    send(behind, stamp)


def test_nothing_is_redeemed_without_a_lease(switch: FakeSwitch) -> None:
    """Unverified, and not refused; what is known to be dead is refused all the same."""
    stamp, dead = planned(switch), planned(switch)
    with switch.run("r-9") as run:
        dead = run.plan("send_email")
    switch.service.kill("run:r-9")
    switch.service.down()
    switch.clock.advance(10)
    with pytest.raises(Unverified):
        switch.redeem(stamp, timeout=0)
    assert refusal(switch, dead).reason is Refusal.DISCARDED
    switch.service.up()
    switch.renew()
    send(switch, stamp)


def test_planning_asks_first(switch: FakeSwitch) -> None:
    """A run that may not act may not plan: halted, never armed, without a lease, or a frozen capability."""
    run = switch.run("r-1")
    with pytest.raises(Unverified):
        run.plan("send_email")
    with run:
        switch.service.kill("capability:send_email")
        with pytest.raises(CapabilityFrozen):
            run.plan("send_email")
        run.plan("other")
        switch.clock.advance(10)
        with pytest.raises(Unverified):
            run.plan("other")
        switch.renew()
        switch.service.kill("run:r-1")
        with pytest.raises(Killed):
            run.plan("other")


def test_without_keys_nothing_is_planned_or_redeemed(switch: FakeSwitch) -> None:
    """A service that gives none: what cannot be proven is not believed."""
    stamp = planned(switch)
    switch.service.stamp_keys = ()
    switch.renew()
    with switch.run("r-1") as run:
        with pytest.raises(Unverified, match="stamp keys"):
            run.plan("send_email")
        with pytest.raises(Unverified, match="stamp keys"):
            run.redeem(stamp)


def test_a_refusal_crosses_processes() -> None:
    """It is pickled whole, as a pool of workers does."""
    refused = StampRefused("the stamp is refused", reason=Refusal.HELD)
    copy = pickle.loads(pickle.dumps(refused))  # noqa: S301 - made here
    assert (str(copy), copy.reason, copy.final) == (str(refused), Refusal.HELD, False)
    assert not issubclass(StampRefused, Unverified)
    assert issubclass(StampRefused, Exception)


# -- across a stream ---------------------------------------------------------------------------------------------------


@pytest.fixture
def streaming() -> Iterator[tuple[KillSwitch, Line]]:
    """Return a switch with a background thread, and its line."""
    line = Line(FakeService(ttl_ms=5000))
    with connected(line) as made:
        yield made, line
        line.open.set()


def test_nobody_waits_for_what_never_comes(streaming: tuple[KillSwitch, Line]) -> None:
    """A frozen capability is waited for, but not by work that was planned before it was frozen."""
    switch, line = streaming
    with switch.redeem(planned(switch)) as work:
        line.service.kill("capability:send_email")
        begun = time.monotonic()
        while work.verdict() and time.monotonic() - begun < 20:
            time.sleep(0.01)
        for capability in (None, "send_email"):
            with pytest.raises(CapabilityFrozen):
                work.wait(capability, timeout=40)
        assert time.monotonic() - begun < 30


def test_redeeming_waits_until_the_replica_has_caught_up(streaming: tuple[KillSwitch, Line]) -> None:
    """The stamp is a step ahead of this process's frames: it is redeemed once they have come."""
    switch, line = streaming
    assert switch.ensure(5)
    ahead = line.service.switch()
    line.open.clear()
    time.sleep(0.1)  # whoever stands in the line meanwhile looks every few milliseconds
    line.service.note("token_created")
    stamp = planned(ahead)
    with pytest.raises(Unverified):
        switch.redeem(stamp, timeout=0.05)
    line.open.set()
    with switch.redeem(stamp, timeout=5) as work:
        work.check("send_email")
