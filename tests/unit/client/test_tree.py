"""The run tree: what a kill of an ancestor halts, in this process and in another, and what cannot be in a tree."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
from typing import Final

import pytest

from haltline import Carried, InvalidTarget, Killed, Reason, Run, Stop, Unverified
from haltline.scopes import DEPTH_MAX
from haltline.testing import FakeService, FakeSwitch, killed


@pytest.fixture
def service() -> FakeService:
    """Return a service."""
    return FakeService()


@pytest.fixture
def switch(service: FakeService) -> FakeSwitch:
    """Return the switch of one process."""
    return service.switch()


@pytest.fixture
def other(service: FakeService) -> FakeSwitch:
    """Return the switch of another process, which hears of a flip when it renews."""
    return service.switch(follow=False, worker="worker-2")


def reason(run: Run) -> str:
    """Return why a run stops, or "go"."""
    verdict = run.verdict()
    return verdict.reason.value if isinstance(verdict, Stop) else "go"


def carried(switch: FakeSwitch, *names: str, tenant: str | None = None, feature: str | None = None) -> Carried:
    """Return a run, or one below it, that was armed by a switch."""
    run = switch.run("r-1", tenant=tenant, feature=feature)
    run.arm()
    for name in names:
        run = run.child(name)
        run.arm()
    return run.carried


# -- one process ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "stopped"),
    [
        ("run:r-1", {"r-1", "r-1.a", "r-1.a.x", "r-1.b"}),
        ("run:r-1.a", {"r-1.a", "r-1.a.x"}),
        ("run:r-1.a.x", {"r-1.a.x"}),
        ("run:r-1.b", {"r-1.b"}),
        ("run:r-1.", set()),
        ("tenant:acme", {"r-1", "r-1.a", "r-1.a.x", "r-1.b"}),
        ("run:r-2", {"r-2"}),
    ],
)
def test_a_kill_halts_the_subtree(switch: FakeSwitch, target: str, stopped: set[str]) -> None:
    """The killed run and all below it, revived or not, and none beside it or above."""
    root = switch.run("r-1", tenant="acme", feature="outreach")
    root.arm()
    a, b = root.child("a"), root.child("b")
    a.arm()
    runs = [root, a, b, a.child("x"), switch.run("r-2", tenant="other")]
    for run in runs:
        run.arm()
    with killed(switch, target):
        assert {run.id for run in runs if not run.verdict()} == stopped
    assert {run.id for run in runs if not run.verdict()} == stopped


def test_the_stop_names_the_ancestor(switch: FakeSwitch) -> None:
    """The error of a child says which run was killed, and why."""
    with switch.run("r-1") as run, run.child("a") as child, killed(switch, "run:r-1", reason="loops"):
        with pytest.raises(Killed, match=r"run r-1\.a is stopped: run:r-1 killed by .*: loops") as caught:
            child.check("send_email")
        assert [str(target) for target in caught.value.verdict.killed] == ["run:r-1"]


def test_no_child_below_a_killed_ancestor(switch: FakeSwitch) -> None:
    """A child is refused from the replica, without a call of its own, however deep it is."""
    root = switch.run("r-1")
    root.arm()
    a = root.child("a")
    a.arm()
    switch.service.kill("run:r-1")
    for run in (root.child("late"), a.child("late")):
        with pytest.raises(Killed, match="is stopped: run:r-1 killed"):
            run.arm()


@pytest.mark.parametrize("target", ["run:r-1", "run:r-1.a", "global"])
def test_no_child_below_an_ancestor_that_was_killed_since(switch: FakeSwitch, target: str) -> None:
    """A blip is a stop for children to come, too: killed and revived after the parent was armed is killed."""
    root = switch.run("r-1")
    root.arm()
    a = root.child("a")
    a.arm()
    with killed(switch, target):
        pass
    child = a.child("late")
    with pytest.raises(Killed, match="was killed and revived after the run was armed"):
        child.arm()
    with pytest.raises(Killed):
        child.check()
    # The restart that a revive permits: a new tree.
    again = switch.run("r-1")
    again.arm()
    again.child("late").arm()


def test_a_child_of_an_unarmed_run_is_refused(switch: FakeSwitch) -> None:
    """What was never armed has no position to inherit."""
    with pytest.raises(Unverified, match="not armed"):
        switch.run("r-1").child("a")


def test_a_child_has_its_parents_cohort(switch: FakeSwitch) -> None:
    """Tenant and feature are the parent's; who takes it to be another's is told so."""
    with switch.run("r-1", tenant="acme", feature="outreach") as run:
        child = run.child("a", tenant="acme", feature="outreach")
        assert (child.tenant, child.feature) == ("acme", "outreach")
        with pytest.raises(InvalidTarget, match=r"cannot have the tenant 'other': .* which is acme"):
            run.child("a", tenant="other")
        with pytest.raises(InvalidTarget, match="cannot have the feature"):
            run.child("a", feature="bulk")
    with switch.run("r-2") as run, pytest.raises(InvalidTarget, match="which is none"):
        run.child("a", tenant="acme")


def test_a_tree_is_32_deep(switch: FakeSwitch) -> None:
    """The 32nd run is entered, the 33rd refused."""
    run = switch.run("r")
    run.arm()
    for _ in range(DEPTH_MAX - 1):
        run = run.child("c")
        run.arm()
    assert len(run.lineage.ids) == 32
    with pytest.raises(InvalidTarget, match="33 deep"):
        run.child("c")


def test_a_childs_id_is_no_root(switch: FakeSwitch) -> None:
    """Somebody who takes a child's id for a run of its own would escape its ancestors' kills."""
    with switch.run("r-1") as run, run.child("a"):
        with pytest.raises(InvalidTarget, match=r"run r-1\.a is at work in this process below run r-1; .* at the root"):
            switch.run("r-1.a").arm()
        with pytest.raises(InvalidTarget, match="a run keeps its place"):
            switch.run("r-1", tenant="acme").arm()


def test_a_run_that_ended_leaves_its_place(switch: FakeSwitch) -> None:
    """Ids are taken only while the run, or one below it, is entered; by the same run any number of times."""
    run = switch.run("job", tenant="a")
    with run, switch.run("job", tenant="a"):
        pass
    run = switch.run("job", tenant="b")
    with run:
        child = run.child("x")
        child.arm()
    with pytest.raises(InvalidTarget, match="is at work"):
        switch.run("job", tenant="c").arm()
    del child
    gc.collect()
    switch.run("job", tenant="c").arm()


# -- another process --------------------------------------------------------------------------------------------------


def test_a_joined_run_is_the_same_run(switch: FakeSwitch, other: FakeSwitch) -> None:
    """Same id, path, tenant, feature and position; and it is carried on as it came."""
    sent = carried(switch, "a", tenant="acme", feature="outreach")
    for _ in range(3):
        switch.service.note("something else")
    with other.join(Carried.parse(sent.text)) as run:
        assert (run.id, run.tenant, run.feature, run.armed_seq) == ("r-1.a", "acme", "outreach", sent.armed_seq)
        assert run.lineage == sent.lineage
        assert run.carried == sent
        run.check("send_email")
        assert other.position.seq > sent.armed_seq


@pytest.mark.parametrize("target", ["run:r-1", "run:r-1.a", "tenant:acme", "feature:outreach", "global"])
@pytest.mark.parametrize("revived", [False, True])
def test_a_kill_reaches_a_joined_run(switch: FakeSwitch, other: FakeSwitch, target: str, *, revived: bool) -> None:
    """On any rung of its path, before or after it was joined, revived or not: halted, and so are its children."""
    sent = carried(switch, "a", tenant="acme", feature="outreach")
    early = other.join(sent)
    early.arm()
    child = early.child("x")
    child.arm()
    switch.service.kill(target)
    if revived:
        switch.service.revive(target)
    late = other.join(sent)
    other.renew()
    for run in (early, child):
        with pytest.raises(Killed):
            run.check()
    for run in (early.child("late"), late):
        with pytest.raises(Killed):
            run.arm()
    assert late.halted is not None


def test_a_kill_beside_it_does_not_reach_a_joined_run(switch: FakeSwitch, other: FakeSwitch) -> None:
    """A sibling's, a child's, and one from before it was armed."""
    with killed(switch, "run:r-1"):
        pass
    sent = carried(switch, "a")
    with other.join(sent) as run:
        for target in ("run:r-1.b", "run:r-1.a.x", "run:r-10", "run:a", "capability:send_email"):
            switch.service.kill(target)
        other.renew()
        run.check()


def test_a_process_that_is_behind_waits(switch: FakeSwitch, other: FakeSwitch) -> None:
    """Entering asks the service until this process has seen as much as the one that armed the run."""
    other.ensure()
    for number in range(3):
        switch.service.note(f"news {number}")
    sent = carried(switch)
    assert other.position.seq < sent.armed_seq
    with other.join(sent) as run:
        assert other.position.seq >= sent.armed_seq
        run.check()


def test_what_stays_behind_is_unverified_and_not_dead(switch: FakeSwitch, other: FakeSwitch) -> None:
    """Newer than the log that this process can reach: BEHIND, until it has caught up; then the same run goes on."""
    other.ensure()
    sent = carried(switch)
    ahead = Carried(sent.lineage, sent.epoch, sent.armed_seq + 2)
    run = other.join(ahead)
    with pytest.raises(Unverified) as caught:
        run.arm()
    assert caught.value.verdict.reason is Reason.BEHIND
    assert run.halted is None
    # A kill that this process sees while it is behind is older than the run: it may have been revived since.
    hold = switch.service.kill("run:r-1")
    other.renew()
    assert reason(run) == "behind"
    switch.service.revive("run:r-1", holds=[hold.seq])
    run.wait(timeout=2)
    with run:
        run.check("send_email")


def test_what_is_behind_waits_in_the_background(service: FakeService) -> None:
    """With a lease stream: who enters is woken as soon as the position is there, in threads and in asyncio."""
    with service.switch(background=True, follow=False) as switch:
        assert switch.ensure(5)
        seq = service.position.seq + 1
        sent = Carried(switch.run("r-1").lineage, service.epoch, seq)
        begun = time.monotonic()
        timer = threading.Timer(0.2, service.note, ("news",))
        timer.start()
        with switch.join(sent, timeout=30) as run:
            run.check()
        timer.join()
        assert 0.2 <= time.monotonic() - begun < 20

        async def main() -> None:
            ahead = switch.join(Carried(sent.lineage, sent.epoch, seq + 1), timeout=0.3)
            with pytest.raises(Unverified) as caught:
                async with ahead:
                    pass
            assert caught.value.verdict.reason is Reason.BEHIND
            asyncio.get_running_loop().call_later(0.1, service.note, "more")
            await ahead.aarm(timeout=30)
            ahead.check()

        asyncio.run(main())


def test_another_log_is_foreign(service: FakeService, other: FakeSwitch) -> None:
    """A position of another log says nothing here: Unverified, at once, before and after the first lease."""
    theirs = carried(FakeService().switch())
    elsewhere = Carried(theirs.lineage, theirs.epoch, 999)
    begun = time.monotonic()
    runs = [other.join(elsewhere, timeout=30) for _ in range(2)]
    for run in runs:
        with pytest.raises(Unverified, match="armed on the log with epoch") as caught:
            run.arm()
        assert caught.value.verdict.reason is Reason.FOREIGN
        assert run.halted is None
    with pytest.raises(Unverified):
        runs[0].child("x").arm()
    with service.switch(background=True) as streaming, pytest.raises(Unverified, match="armed on the log with epoch"):
        streaming.join(elsewhere, timeout=30).arm()
    assert time.monotonic() - begun < 20


def test_an_unreachable_service_joins_nothing(switch: FakeSwitch, other: FakeSwitch) -> None:
    """Without a lease of its own a process goes nowhere, whatever it was told; later the same run goes on."""
    sent = carried(switch)
    switch.service.down()
    run = other.join(sent)
    with pytest.raises(Unverified) as caught:
        run.arm()
    assert caught.value.verdict.reason is Reason.UNREACHABLE
    switch.service.up()
    other.renew()
    run.arm()
    run.check()


def test_a_joined_run_is_entered_first(switch: FakeSwitch, other: FakeSwitch) -> None:
    """As any other run: before, no check passes."""
    run = other.join(carried(switch))
    other.ensure()
    with pytest.raises(Unverified, match="not armed"):
        run.check()


def test_a_run_keeps_its_place(switch: FakeSwitch, other: FakeSwitch) -> None:
    """One process does not join a run below two parents, or its parent for another tenant; processes of their own do.

    Each path by itself is a valid one.
    """
    sent = carried(switch, "a", tenant="acme")
    moved = Carried.parse(sent.text.replace("r-1/.a", "r-2/r-1.a"))
    rooted = Carried.parse(sent.text.replace("r-1/.a", "r-1.a"))
    tenant = Carried.parse(sent.text.replace("/acme/", "/other/"))
    deeper = Carried.parse(sent.text.replace("r-1/.a", "r-0/r-1/.b"))
    nobody = Carried.parse(sent.text.replace("/acme/", "//"))
    with other.join(sent) as run, other.join(sent), other.join(Carried.parse(sent.text)):
        for wrong in (moved, rooted, tenant, deeper, nobody):
            with pytest.raises(InvalidTarget, match="keeps its place"):
                other.join(wrong).arm()
        run.check()
        run.child("x").arm()
    switch.service.switch(worker="worker-3").join(moved).arm()


def test_a_joined_cycle_is_refused(switch: FakeSwitch, other: FakeSwitch) -> None:
    """A run below its own child: no path says so, and no process takes both halves."""
    sent = carried(switch, "a")
    turned = Carried.parse(sent.text.replace("r-1/.a", "r-1.a/r-1"))
    with other.join(sent), pytest.raises(InvalidTarget, match="keeps its place"):
        other.join(turned).arm()


def test_a_tree_is_32_deep_across_processes(switch: FakeSwitch, other: FakeSwitch) -> None:
    """Depth is counted from the root, wherever each run is."""
    sent = carried(switch, *"c" * (DEPTH_MAX - 1))
    with other.join(sent) as run, pytest.raises(InvalidTarget, match="33 deep"):
        run.child("c")


FORKED: Final = """
import os, signal, sys, threading
from haltline.testing import fake_switch
switch = fake_switch()
held, done = threading.Event(), threading.Event()

def hold():
    with switch._refresher.places._lock:
        held.set()
        done.wait()

threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(10)
    switch.run("r-1").arm()
    os._exit(0)
status = os.waitpid(child, 0)[1]
done.set()
sys.exit(status != 0)
"""


def test_a_forked_child_takes_places_of_its_own() -> None:
    """A lock that another thread holds at the moment of a fork does not stop the child."""
    assert subprocess.run([sys.executable, "-c", FORKED], check=False, timeout=40).returncode == 0
