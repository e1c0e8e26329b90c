"""The judge finds every broken bound, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sample.demo import BROKEN, verdict
from sample.figures import FailOver, OutageWorker, PullFigures, WorkerFigures
from sample.judge import broken_bounds, broken_log
from sample.programme import Findings

HIT = WorkerFigures(
    "r-1", hit=True, stopped_after_ms=210.0, after_ack=21, after_effective=0, before_go=0, after_go=9, reads=0
)
FROZEN = replace(HIT, before_go=None, reads=150)
SPARED = replace(HIT, run="r-3", hit=False, stopped_after_ms=None, after_effective=150, before_go=None)
OUTAGE = OutageWorker("r-1", stopped_after_ms=800.0, after_limit=0, why="unreachable", same_run=True, after_start=9)


def pull(*workers: WorkerFigures, reading: bool = False) -> PullFigures:
    """Return a pull of these workers."""
    return PullFigures("run:r-1", seq=9, effective_in_ms=1_000, goes_on_reading=reading, workers=workers)


def test_all_holds() -> None:
    """Where every bound holds, nothing is found."""
    pulls = [pull(HIT, SPARED), pull(FROZEN, reading=True)]
    assert broken_bounds(pulls, [OUTAGE], chain_flaw="") == ()


@pytest.mark.parametrize(
    ("worker", "reading", "said"),
    [
        (replace(HIT, after_effective=1), False, "run:r-1: r-1 had 1 mails accepted after effective_at"),
        (replace(FROZEN, after_effective=2), True, "run:r-1: r-1 had 2 mails accepted after effective_at"),
        (replace(FROZEN, reads=0), True, "run:r-1: r-1 did not go on reading"),
        (replace(HIT, before_go=3), False, "run:r-1: r-1 had 3 mails accepted after the revive and before its restart"),
        (replace(HIT, after_go=0), False, "run:r-1: r-1 sent nothing after its restart"),
        (replace(FROZEN, after_go=0), True, "run:r-1: r-1 sent nothing after the revive"),
        (
            replace(SPARED, after_effective=0),
            False,
            "run:r-1: r-3 was not on the target's path, yet had no mail accepted while the target was killed",
        ),
    ],
)
def test_broken_pull(worker: WorkerFigures, *, reading: bool, said: str) -> None:
    """Each bound of a pull is found broken by itself, and says which worker broke it."""
    assert broken_bounds([pull(worker, reading=reading)], [], chain_flaw="") == (said,)


@pytest.mark.parametrize(
    ("worker", "said"),
    [
        (replace(OUTAGE, after_limit=1), "r-1 had 1 mails accepted later than ttl after the service was gone"),
        (replace(OUTAGE, why=""), "r-1 did not say why it stopped"),
        (replace(OUTAGE, same_run=False), "r-1 did not go on in the run that it was in"),
        (replace(OUTAGE, after_start=0), "r-1 sent nothing after the service was back"),
    ],
)
def test_broken_outage(worker: OutageWorker, said: str) -> None:
    """Each bound of the outage is found broken by itself."""
    assert broken_bounds([], [worker], chain_flaw="") == (f"service stopped: {said}",)


def test_broken_chain() -> None:
    """A log that does not verify breaks the demo."""
    assert broken_bounds([], [], chain_flaw="entry 7 was altered") == ("flip log: entry 7 was altered",)


def test_kill_that_no_other_node_told() -> None:
    """After a blow, a worker that was not stopped by the kill itself breaks the demo, and the others do not."""
    told = FailOver("control lane 1", "worker node 1", 2, answered_ms=20.0, heard_ms={"r-1": 31.0, "r-2": None})
    (said,) = broken_bounds([replace(pull(HIT), fail_over=told)], [], chain_flaw="")
    assert said == "run:r-1: r-2 was not stopped by the kill itself after worker node 1 was gone"


@pytest.mark.parametrize(
    ("seqs", "said"),
    [
        ([9], ()),
        ([], ("run:r-1: the kill was acknowledged once, at log position 9; the log holds it at none",)),
        ([9, 10], ("run:r-1: the kill was acknowledged once, at log position 9; the log holds it at 9, 10",)),
        ([8], ("run:r-1: the kill was acknowledged once, at log position 9; the log holds it at 8",)),
    ],
)
def test_kill_once_in_the_log(seqs: list[int], said: tuple[str, ...]) -> None:
    """A kill that is lost, doubled or elsewhere in the log breaks the demo; kills of others and revives do not."""
    entries = [{"kind": "kill", "target": "run:r-1", "seq": seq} for seq in seqs]
    others = [
        {"kind": "kill", "target": "global", "seq": 7},
        {"kind": "revive", "target": "run:r-1", "seq": 11},
        {"kind": "note", "topic": "token_created", "seq": 12},
    ]
    assert broken_log([pull(HIT)], [*entries, *others]) == said


def test_exit_status() -> None:
    """One mail after effective_at is exit status 1, and none is 0."""
    for worker, status in ((HIT, 0), (replace(HIT, after_effective=1), BROKEN)):
        pulls = [pull(worker)]
        broken = broken_bounds(pulls, [], chain_flaw="")
        found = Findings(ttl_ms=1_000, pulls=pulls, outage=[], entries=[], chain_flaw="", broken=broken)
        assert verdict(found) == status
    assert BROKEN == 1
