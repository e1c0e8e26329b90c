"""What a run's check lets through, what stops it, and what of that lasts."""

from __future__ import annotations

import pytest

from haltline import CapabilityFrozen, Go, InvalidTarget, Killed, Reason, Stop, Unverified
from haltline.testing import FakeSwitch, fake_switch, killed


@pytest.fixture
def switch() -> FakeSwitch:
    """Return a switch that renews after each flip."""
    return fake_switch()


def reason(switch: FakeSwitch, target: str) -> Reason:
    """Return why a run of every kind of scope stops while a target is killed."""
    with switch.run("r-1", tenant="acme", feature="outreach") as run, killed(switch, target):
        verdict = run.verdict("send_email")
        assert isinstance(verdict, Stop)
        return verdict.reason


@pytest.mark.parametrize("target", ["run:r-1", "tenant:acme", "feature:outreach", "global"])
def test_a_kill_on_the_path_kills(switch: FakeSwitch, target: str) -> None:
    """Each rung above the run stops it."""
    assert reason(switch, target) is Reason.KILLED


@pytest.mark.parametrize(
    "target", ["run:r-10", "tenant:acme2", "feature:out", "capability:send_emails", "run:send_email"]
)
def test_a_kill_beside_the_path_does_not(switch: FakeSwitch, target: str) -> None:
    """An id that merely looks alike stops nothing."""
    with switch.run("r-1", tenant="acme", feature="outreach") as run, killed(switch, target):
        run.check("send_email")


def test_killed_names_the_hold(switch: FakeSwitch) -> None:
    """The error says which target, who, why, and is a BaseException that no framework swallows."""
    with switch.run("r-1", tenant="acme") as run, killed(switch, "tenant:acme", reason="wrong list", actor="ann"):
        with pytest.raises(Killed, match=r"run r-1 is stopped: tenant:acme killed by ann at .*: wrong list") as caught:
            run.check("send_email")
        assert [str(hold.target) for hold in caught.value.verdict.holds] == ["tenant:acme"]
        assert not isinstance(caught.value, Exception)


def test_a_kill_is_latched(switch: FakeSwitch) -> None:
    """A run that met a kill stays halted after the revive, in check, verdict, guard, ensure and wait."""
    with switch.run("r-1") as run:
        guard = run.guard("send_email")
        guard()
        with killed(switch, "run:r-1"):
            assert run.verdict().reason is Reason.KILLED  # type: ignore[union-attr]  # it is a stop
        for call in (run.check, guard, run.ensure, run.wait, run.arm):
            with pytest.raises(Killed):
                call()
        assert run.halted is not None
        assert repr(run) == "<Run r-1 halted>"


def test_a_blip_between_two_renewals_halts(switch: FakeSwitch) -> None:
    """A kill that was revived before this process heard of it is still a stop."""
    blind = switch.service.switch(follow=False)
    with blind.run("r-1") as run:
        switch.service.kill("run:r-1")
        switch.service.revive("run:r-1")
        run.check()
        blind.renew()
        with pytest.raises(Killed, match="killed and revived after the run was armed"):
            run.check()


def test_a_run_entered_after_the_revive_goes_on(switch: FakeSwitch) -> None:
    """A kill before a run was armed, and released since, is past."""
    with killed(switch, "run:r-1"):
        pass
    with switch.run("r-1") as run:
        run.check("send_email")


def test_one_of_two_holds_released_still_kills(switch: FakeSwitch) -> None:
    """Somebody else's hold stays."""
    first = switch.service.kill("run:r-1", actor="ann")
    switch.service.kill("run:r-1", actor="bob")
    switch.service.revive("run:r-1", holds=[first.seq])
    with pytest.raises(Killed, match="killed by bob"):
        switch.run("r-1").arm()


def test_a_frozen_capability_is_not_latched(switch: FakeSwitch) -> None:
    """The run goes on without it, and with it again once it is revived."""
    with switch.run("r-1") as run:
        with killed(switch, "capability:send_email"):
            with pytest.raises(CapabilityFrozen, match="Do not look for a workaround") as caught:
                run.check("send_email")
            assert caught.value.capability == "send_email"
            assert isinstance(caught.value, Exception)
            run.check("read_inbox")
            run.check()
            with pytest.raises(CapabilityFrozen):
                run.check("send_email")
        run.check("send_email")
        assert run.halted is None


def test_unverified_is_not_latched(switch: FakeSwitch) -> None:
    """After an outage the same run goes on."""
    with switch.run("r-1") as run:
        guard = run.guard("send_email")
        guard()
        run.check()
        switch.service.down()
        switch.clock.advance(2)
        for call in (guard, run.check):
            with pytest.raises(Unverified, match=r"run\.wait\(\) blocks"):
                call()
        with pytest.raises(Unverified, match="the fake service is down"):
            run.ensure()
        switch.service.up()
        switch.clock.advance(1)  # the longest pause after a failure
        run.ensure()
        guard()
        run.check()


def test_a_kill_heard_of_stops_even_without_a_lease(switch: FakeSwitch) -> None:
    """A lapsed lease does not turn a kill that is known into a mere Unverified."""
    with switch.run("r-1") as run, killed(switch, "run:r-1"):
        switch.clock.advance(60)
        with pytest.raises(Killed):
            run.check()


def test_a_freeze_without_a_lease_is_unverified(switch: FakeSwitch) -> None:
    """Without a lease the whole run stops, not only the capability."""
    with switch.run("r-1") as run, killed(switch, "capability:send_email"):
        switch.clock.advance(60)
        with pytest.raises(Unverified):
            run.check("send_email")


def test_arming_a_killed_run_raises(switch: FakeSwitch) -> None:
    """Entering does not get as far as the body, and makes nothing current."""
    with killed(switch, "global"), pytest.raises(Killed), switch.run("r-1"):
        pytest.fail("the body must not run")


def test_a_run_that_was_killed_while_arming_stays_halted(switch: FakeSwitch) -> None:
    """A revive permits a new run object, not this one."""
    run = switch.run("r-1")
    with killed(switch, "run:r-1"), pytest.raises(Killed):
        run.arm()
    for call in (run.arm, run.check, run.wait):
        with pytest.raises(Killed):
            call()


def test_arming_without_a_lease_raises(switch: FakeSwitch) -> None:
    """No lease in time means Unverified."""
    switch.service.down()
    run = switch.run("r-1")
    with pytest.raises(Unverified):
        run.arm()
    assert run.armed_seq is None


def test_a_run_that_was_never_armed_stops(switch: FakeSwitch) -> None:
    """A live lease is not enough."""
    switch.renew()
    run = switch.run("r-1")
    assert repr(run) == "<Run r-1 unarmed>"
    for call in (run.check, run.guard("send_email"), run.ensure, run.wait):
        with pytest.raises(Unverified, match="not armed"):
            call()


def test_armed_seq_is_the_position_at_arming(switch: FakeSwitch) -> None:
    """And stays so: arming twice does not pass over a kill in between."""
    switch.service.note("token_created")
    run = switch.run("r-1")
    run.arm()
    assert run.armed_seq == 2
    switch.service.kill("run:r-1")
    switch.service.revive("run:r-1")
    with pytest.raises(Killed):
        run.arm()
    assert run.armed_seq == 2


def test_verdict_is_a_value(switch: FakeSwitch) -> None:
    """Go is true, Stop is false and names every hold, the broadest first."""
    with switch.run("r-1", tenant="acme") as run:
        assert isinstance(run.verdict("send_email"), Go)
        assert run.verdict("send_email")
        with killed(switch, "capability:send_email"), killed(switch, "run:r-1"), killed(switch, "global"):
            verdict = run.verdict("send_email")
        assert not verdict
        assert isinstance(verdict, Stop)
        assert [str(hold.target) for hold in verdict.holds] == ["global", "run:r-1", "capability:send_email"]


@pytest.mark.parametrize("capability", ["Send", "", "a b", "x" * 129, "send_email\n"])
def test_a_capability_outside_the_grammar_is_refused(switch: FakeSwitch, capability: str) -> None:
    """By check, verdict and guard: it could never be killed."""
    with switch.run("r-1") as run:
        for call in (run.check, run.verdict, run.guard):
            with pytest.raises(InvalidTarget):
                call(capability)


def test_wait_returns_on_go(switch: FakeSwitch) -> None:
    """A lapsed lease is renewed by waiting."""
    with switch.run("r-1") as run:
        switch.clock.advance(5)
        run.wait("send_email", timeout=1)


def test_wait_for_a_frozen_capability_ends_in_time(switch: FakeSwitch) -> None:
    """Still frozen when the time is up: CapabilityFrozen; without naming it there is nothing to wait for."""
    with switch.run("r-1") as run, killed(switch, "capability:send_email"):
        run.wait()
        with pytest.raises(CapabilityFrozen):
            run.wait("send_email", timeout=0.1)


def test_a_run_says_nothing_secret(switch: FakeSwitch) -> None:
    """Its repr has its id and state only."""
    with switch.run("r-1", tenant="acme") as run:
        assert (run.id, run.tenant, run.feature) == ("r-1", "acme", None)
        assert repr(run) == "<Run r-1 armed at 1>"


def test_many_capabilities_are_each_decided(switch: FakeSwitch) -> None:
    """What is remembered per replica is bounded, and changes no verdict."""
    with switch.run("r-1") as run:
        for number in range(1_100):
            run.check(f"tool-{number}")
        with killed(switch, "capability:tool-1050"):
            for number in range(1_100):
                assert bool(run.verdict(f"tool-{number}")) is (number != 1050)
