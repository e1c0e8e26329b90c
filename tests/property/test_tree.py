"""The law of the run tree: a kill halts exactly the subtree below its target, over any number of processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from haltline import Carried, InvalidTarget, Killed, Run, extract, inject
from haltline.scopes import DEPTH_MAX
from haltline.testing import FakeService, FakeSwitch
from tests.support.counts import NIGHTLY, TREES

pytestmark = pytest.mark.timeout(1_800 if NIGHTLY else 60)

PROCESSES: Final = 3
COHORTS: Final = ((None, None), ("acme", None), ("acme", "outreach"), (None, "outreach"))
WAYS: Final = ("child", "text", "baggage", "environ")


@dataclass(frozen=True)
class Node:
    """A run as one process has it."""

    run: Run
    process: int
    targets: frozenset[str]
    armed_seq: int


@dataclass
class Kill:
    """A kill, and where in the log it was revived, if it was."""

    seq: int
    target: str
    revived: int | None = None


class Forest:
    """Run trees over several processes, and beside them what the kills of a log mean to each run.

    What each run should say is worked out here from the kills alone: a set of targets, and two positions.
    """

    def __init__(self) -> None:
        self.service = FakeService()
        self.switches: list[FakeSwitch] = [
            self.service.switch(follow=False, worker=f"worker-{number}") for number in range(PROCESSES)
        ]
        self.nodes: list[Node] = []
        self.kills: list[Kill] = []
        self.named = 0

    def hit(self, targets: frozenset[str], *, since: int, upto: int) -> bool:
        """Return whether one of the targets was killed after a position, as known at another."""
        return any(since < kill.seq <= upto and kill.target in targets for kill in self.kills)

    def held(self, targets: frozenset[str], *, upto: int) -> bool:
        """Return whether one of the targets is killed at a position."""
        return any(
            kill.seq <= upto and kill.target in targets and (kill.revived is None or kill.revived > upto)
            for kill in self.kills
        )

    def seen(self, process: int) -> int:
        """Return how far a process has applied the log."""
        return self.switches[process].position.seq

    def begin(self, process: int, cohort: int) -> None:
        """Begin a tree."""
        tenant, feature = COHORTS[cohort % len(COHORTS)]
        self.named += 1
        run = self.switches[process].run(f"r{self.named}", tenant=tenant, feature=feature)
        targets = {"global", f"run:{run.id}"}
        targets |= {f"tenant:{tenant}"} if tenant else set()
        targets |= {f"feature:{feature}"} if feature else set()
        self.enter(run, process, frozenset(targets), parent=None)

    def grow(self, parent: Node, way: str, process: int) -> None:
        """Begin a child of a run: in the same process, or in another one to which the run is carried."""
        self.named += 1
        if len(parent.run.lineage.ids) == DEPTH_MAX:
            with pytest.raises(InvalidTarget, match="33 deep"):
                parent.run.child("c")
            return
        if way != "child":
            joined = self.carry(parent, way, process)
            if joined is None:
                return
            parent = joined
        child = parent.run.child(f"{self.named}"[-2:] if len(parent.run.id) > 60 else f"c{self.named}")
        self.enter(child, parent.process, parent.targets | {f"run:{child.id}"}, parent=parent)

    def enter(self, run: Run, process: int, targets: frozenset[str], *, parent: Node | None) -> None:
        """Arm a run: refused exactly where its path is killed, or its parent was since that was armed."""
        try:
            run.arm()
        except Killed:
            armed = None
        else:
            armed = run.armed_seq
            assert armed == self.seen(process)
        refused = self.held(targets, upto=self.seen(process)) or (
            parent is not None and self.hit(parent.targets, since=parent.armed_seq, upto=self.seen(process))
        )
        assert (armed is None) == refused
        if armed is not None:
            self.nodes.append(Node(run, process, targets, armed))

    def carry(self, node: Node, way: str, process: int) -> Node | None:
        """Join a run in a process; return None where it was killed since it was armed."""
        carried = node.run.carried
        switch = self.switches[process]
        if way == "text":
            run = switch.join(Carried.parse(str(carried)))
        elif way == "baggage":
            headers = inject({"Baggage": "a=1"}, run=node.run)
            assert extract(headers) == carried
            run = switch.join(headers)
        else:
            run = switch.join({"HALTLINE_RUN": carried.text})
        try:
            run.arm()
        except Killed:
            assert self.hit(node.targets, since=node.armed_seq, upto=self.seen(process))
            return None
        joined = Node(run, process, node.targets, node.armed_seq)
        assert run.armed_seq == node.armed_seq <= self.seen(process)
        assert not self.hit(node.targets, since=node.armed_seq, upto=self.seen(process))
        self.nodes.append(joined)
        return joined

    def kill(self, target: str, *, blip: bool) -> None:
        """Kill, and perhaps revive at once."""
        kill = Kill(self.service.kill(target).seq, target)
        self.kills.append(kill)
        if blip:
            self.revive(kill)

    def revive(self, kill: Kill) -> None:
        """Release one hold."""
        if kill.revived is None:
            self.service.revive(kill.target, holds=[kill.seq])
            kill.revived = self.service.position.seq

    def look(self, process: int) -> int:
        """Have a process hear of everything; exactly the runs below what was killed are halted. Return how many."""
        self.switches[process].renew()
        halted = 0
        for node in self.nodes:
            if node.process == process:
                expected = self.hit(node.targets, since=node.armed_seq, upto=self.seen(process))
                assert (not node.run.verdict()) == expected, node
                halted += expected
        return halted


steps = st.tuples(
    st.sampled_from(["begin", *["grow"] * 8, "deepen", "kill", "blip", "revive", "cohort", "look"]),
    st.integers(0, 999),
    st.sampled_from(WAYS),
    st.integers(0, PROCESSES - 1),
)


@settings(max_examples=TREES)
@given(story=st.lists(steps, min_size=10, max_size=60))
def test_exactly_the_subtree_is_halted(story: list[tuple[str, int, str, int]]) -> None:
    """Random trees, grown by child() and by carrying runs between processes that hear of kills at different times.

    After each kill, revived or not, in each process exactly the runs are halted that stand at or below its target and
    were armed before it; below a killed run none begins.
    """
    forest = Forest()
    forest.begin(0, 2)
    for what, number, way, process in story:
        nodes = forest.nodes
        node = nodes[number % len(nodes)] if nodes else None
        if what == "begin" or node is None:
            forest.begin(process, number)
        elif what == "grow":
            forest.grow(node, way, process)
        elif what == "deepen":
            for _ in range(number % 12):
                forest.grow(forest.nodes[-1], way, process)
        elif what in ("kill", "blip"):
            forest.kill(f"run:{node.run.id}", blip=what == "blip")
        elif what == "cohort":
            target = sorted(node.targets - {f"run:{each}" for each in node.run.lineage.ids})[number % 2 - 1]
            forest.kill(target, blip=way != "text")
        elif what == "revive":
            for kill in forest.kills[-1 - number % 3 :]:
                forest.revive(kill)
        else:
            forest.look(process)
    halted = sum(forest.look(process) for process in range(PROCESSES))
    event("some halted" if halted else "none halted")
    event(f"depth {max((len(node.run.lineage.ids) for node in forest.nodes), default=0) // 8 * 8} or more")
