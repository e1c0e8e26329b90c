"""Figures: what the observer's stamps say about one act. Pure: moments and stamps in, figures out."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PullMoments:
    """When the steps of one pull happened, nanoseconds on the observer's clock.

    Attributes:
        ack_ns: the operator had the answer to the kill.
        effective_ns: from then on nothing that the kill stops may pass.
        revive_ns: just before the revive was sent.
        go_ns: just before the restart was ordered; where nothing needs a restart, the revive's answer.
        end_ns: the end of the act.
    """

    ack_ns: int
    effective_ns: int
    revive_ns: int
    go_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class WorkerFigures:
    """What one pull did to one worker.

    Attributes:
        run: its run.
        hit: whether the kill stops it from sending.
        stopped_after_ms: from the ack to its last mail, milliseconds; 0 if that was before; None where it is not hit.
        after_ack: mails accepted between ack and revive.
        after_effective: mails accepted between effective_at and revive.
        before_go: mails accepted between revive and restart; None where nothing needs a restart.
        after_go: mails accepted from then to the end of the act.
        reads: recipients read between effective_at and revive.
    """

    run: str
    hit: bool
    stopped_after_ms: float | None
    after_ack: int
    after_effective: int
    before_go: int | None
    after_go: int
    reads: int


@dataclass(frozen=True, slots=True)
class FailOver:
    """What followed when a control lane and a worker node were killed with SIGKILL while the kill was on its way.

    Attributes:
        control: the control lane that held the kill, unread.
        node: the worker node.
        streams: how many of the fleet's lease streams the node carried.
        answered_ms: from the blow to the kill's answer, by another control lane, milliseconds.
        heard_ms: from the blow to a worker's report that the kill stopped it, by run, milliseconds; None where it did
            not report so. Whose stream the node carried was told by another one.
    """

    control: str
    node: str
    streams: int
    answered_ms: float
    heard_ms: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class PullFigures:
    """What one pull did.

    Attributes:
        target: what was killed.
        seq: the kill's position in the log.
        effective_in_ms: what the kill's answer promised, milliseconds.
        goes_on_reading: whether the workers that it hits go on with what they still may: a frozen capability.
        workers: what it did to each worker.
        fail_over: what followed where the service was struck while the kill was on its way; None where it was not.
    """

    target: str
    seq: int
    effective_in_ms: int
    goes_on_reading: bool
    workers: tuple[WorkerFigures, ...]
    fail_over: FailOver | None = None


@dataclass(frozen=True, slots=True)
class OutageMoments:
    """When the service was gone, nanoseconds on the observer's clock.

    Attributes:
        term_ns: just before it was told to end.
        gone_ns: its process had ended.
        limit_ns: gone_ns and one ttl: from then on nothing may pass.
        start_ns: just before it was started again.
        end_ns: the end of the act.
    """

    term_ns: int
    gone_ns: int
    limit_ns: int
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class OutageWorker:
    """What the outage did to one worker.

    Attributes:
        run: its run.
        stopped_after_ms: from the SIGTERM to its last mail, milliseconds; 0 if that was before.
        after_limit: mails accepted later than one ttl after the service's end, before its new start.
        why: why it stopped, in its own words; empty if it did not say.
        same_run: whether it went on in the run it was in, without a restart.
        after_start: mails accepted from the new start to the end of the act.
    """

    run: str
    stopped_after_ms: float
    after_limit: int
    why: str
    same_run: bool
    after_start: int


def mails(stamps: Sequence[int], after_ns: int, until_ns: int) -> int:
    """Return how many mails were accepted later than ``after_ns`` and not later than ``until_ns``."""
    return max(0, bisect_right(stamps, until_ns) - bisect_right(stamps, after_ns))


def last_after_ms(stamps: Sequence[int], since_ns: int, until_ns: int) -> float:
    """Return how long after ``since_ns`` the last mail up to ``until_ns`` was accepted, milliseconds; 0 if before."""
    index = bisect_right(stamps, until_ns)
    return max(0, stamps[index - 1] - since_ns) / 1e6 if index else 0.0


def worker_figures(
    run: str, stamps: Sequence[int], moments: PullMoments, *, hit: bool, restarted: bool, reads: int
) -> WorkerFigures:
    """Return what one pull did to one worker.

    Args:
        run: its run.
        stamps: when its mails were accepted.
        moments: when the steps of the pull happened.
        hit: whether the kill stops it from sending.
        restarted: whether it went on only through a restart.
        reads: recipients it read between effective_at and revive.
    """
    return WorkerFigures(
        run=run,
        hit=hit,
        stopped_after_ms=last_after_ms(stamps, moments.ack_ns, moments.revive_ns) if hit else None,
        after_ack=mails(stamps, moments.ack_ns, moments.revive_ns),
        after_effective=mails(stamps, moments.effective_ns, moments.revive_ns),
        before_go=mails(stamps, moments.revive_ns, moments.go_ns) if restarted else None,
        after_go=mails(stamps, moments.go_ns, moments.end_ns),
        reads=reads,
    )


def outage_worker(run: str, stamps: Sequence[int], moments: OutageMoments, *, why: str, same_run: bool) -> OutageWorker:
    """Return what the outage did to one worker.

    Args:
        run: its run.
        stamps: when its mails were accepted.
        moments: when the service was gone.
        why: why the worker stopped, in its own words.
        same_run: whether it went on in the run it was in.
    """
    return OutageWorker(
        run=run,
        stopped_after_ms=last_after_ms(stamps, moments.term_ns, moments.start_ns),
        after_limit=mails(stamps, moments.limit_ns, moments.start_ns),
        why=why,
        same_run=same_run,
        after_start=mails(stamps, moments.start_ns, moments.end_ns),
    )
