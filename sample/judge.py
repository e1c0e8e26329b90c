"""The judge: which bounds the figures break. It promises no more than Haltline does, and forgives nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sample.figures import FailOver, OutageWorker, PullFigures, WorkerFigures


def broken_bounds(pulls: Sequence[PullFigures], outage: Sequence[OutageWorker], *, chain_flaw: str) -> tuple[str, ...]:
    """Return each bound that is broken, in a sentence; none if all hold.

    Args:
        pulls: what each pull did.
        outage: what the outage did to each worker.
        chain_flaw: what the verification of the log found wrong; empty if nothing.
    """
    return tuple(_all_of(pulls, outage, chain_flaw))


def broken_log(pulls: Sequence[PullFigures], entries: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return, in a sentence each, which kills are not in the flip log exactly once, where they were acknowledged.

    Args:
        pulls: what each pull did.
        entries: the flip log.
    """
    kills = [(entry["target"], entry["seq"]) for entry in entries if entry.get("kind") == "kill"]
    broken = []
    for pull in pulls:
        found = [seq for target, seq in kills if target == pull.target]
        if found != [pull.seq]:
            broken.append(
                f"{pull.target}: the kill was acknowledged once, at log position {pull.seq}; "
                f"the log holds it at {', '.join(map(str, found)) or 'none'}"
            )
    return tuple(broken)


def _all_of(pulls: Iterable[PullFigures], outage: Iterable[OutageWorker], chain_flaw: str) -> Iterator[str]:
    for pull in pulls:
        for worker in pull.workers:
            for fault in _hit(worker, reading=pull.goes_on_reading) if worker.hit else _spared(worker):
                yield f"{pull.target}: {worker.run} {fault}"
        if pull.fail_over is not None:
            for fault in _fail_over(pull.fail_over):
                yield f"{pull.target}: {fault}"
    for each in outage:
        for fault in _outage(each):
            yield f"service stopped: {each.run} {fault}"
    if chain_flaw:
        yield f"flip log: {chain_flaw}"


def _hit(worker: WorkerFigures, *, reading: bool) -> Iterator[str]:
    if worker.after_effective:
        yield f"had {worker.after_effective} mails accepted after effective_at"
    if reading and worker.reads <= 0:
        yield "did not go on reading"
    if worker.before_go:
        yield f"had {worker.before_go} mails accepted after the revive and before its restart"
    if not worker.after_go:
        yield "sent nothing after the revive" if worker.before_go is None else "sent nothing after its restart"


def _fail_over(found: FailOver) -> Iterator[str]:
    for run, heard in found.heard_ms.items():
        if heard is None:
            yield f"{run} was not stopped by the kill itself after {found.node} was gone"


def _spared(worker: WorkerFigures) -> Iterator[str]:
    if not worker.after_effective:
        yield "was not on the target's path, yet had no mail accepted while the target was killed"


def _outage(worker: OutageWorker) -> Iterator[str]:
    if worker.after_limit:
        yield f"had {worker.after_limit} mails accepted later than ttl after the service was gone"
    if not worker.why:
        yield "did not say why it stopped"
    if not worker.same_run:
        yield "did not go on in the run that it was in"
    if not worker.after_start:
        yield "sent nothing after the service was back"
