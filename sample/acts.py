"""The acts of the demo: what is done to the fleet, what is waited for, and the moments at which it was done."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sample.blow import Blow
from sample.crew import CREW
from sample.figures import (
    FailOver,
    OutageMoments,
    OutageWorker,
    PullFigures,
    PullMoments,
    WorkerFigures,
    outage_worker,
    worker_figures,
)
from sample.operators import Operator, typed
from sample.reports import State
from sample.rungs import Rung
from sample.stage import Stage
from sample.troubles import Broken, Trouble

MAILS: Final = 5
"""How many mails of a worker count as "mail flows"."""

FLOW_S: Final = 15.0
"""How long mail may take to flow, seconds; what does not flow then is judged by its figures."""

_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Pace:
    """How long the demo lets things be, for a person to see them; seconds.

    Attributes:
        flow_s: mail flows before each kill.
        hold_s: a kill stays after it is effective.
        rest_s: nothing is done after a revive, and nothing may start.
    """

    flow_s: float
    hold_s: float
    rest_s: float


class Script:
    """Plays the acts on a stage.

    Args:
        stage: what there is.
        killer: the person who kills, at the command line.
        releaser: the person who revives.
        pace: how long things are let be.
        say: tells the audience.
    """

    def __init__(
        self, stage: Stage, killer: Operator, releaser: Operator, *, pace: Pace, say: Callable[[str], None]
    ) -> None:
        self._stage = stage
        self._killer = killer
        self._releaser = releaser
        self._pace = pace
        self._say = say
        self._runs = [each.run for each in CREW]

    def begin(self) -> None:
        """Wait until every worker's mail flows.

        Raises:
            Trouble: it does not.
        """
        if not self._mail_flows(self._runs):
            raise Trouble("the fleet does not send: " + "; ".join(w.latest.why or "?" for w in self._stage.fleet))

    def pull(self, rung: Rung, *, strike: Callable[[], Blow] | None = None) -> PullFigures:
        """Kill, look, revive, look, restart, look.

        Args:
            rung: what is pulled.
            strike: makes the blow that falls on the service while the kill is on its way; None for none.

        Raises:
            Broken: the kill was not acknowledged.
            Trouble: the play cannot go on.
        """
        observer, fleet = self._stage.observer, self._stage.fleet
        hit = [each.run for each in CREW if rung.hits(each)]
        halted = hit if rung.halts else []
        self._let_be(self._pace.flow_s)

        kill = ["kill", *rung.words, "--reason", rung.reason]
        blow = strike() if strike is not None else None
        with contextlib.ExitStack() as while_it_is_sent:
            if blow is not None:
                while_it_is_sent.enter_context(blow)
            self._say(f"  {self._killer.name}$ {typed(kill)}")
            try:
                killed = self._killer.succeed(kill)
            except Trouble as trouble:
                raise Broken(f"the kill of {rung.target} was not acknowledged: {trouble}") from trouble
        ack_ns, wait_ms = killed.at_ns, int(killed.members["effective_in_ms"])
        effective_ns = ack_ns + wait_ms * 1_000_000
        self._say(f"    acknowledged: log position {killed.members['seq']}, effective in {wait_ms} ms")
        self._let_be_until(effective_ns)
        reads = self._hold(hit, halted, effective_ns)
        fail_over = None if blow is None else self._fail_over(blow, ack_ns, halted)

        revive_ns = observer.now_ns()
        if rung.halts:
            self._tell_halted(hit)
        else:
            self._say(
                f"    reading goes on: {', '.join(f'{run} {reads[run]}' for run in hit)} recipients since effective_at"
            )
        revive = ["revive", *rung.words, "--all", "--reason", rung.cure]
        self._say(f"  {self._releaser.name}$ {typed(revive)}")
        go_ns = self._releaser.succeed(revive).at_ns
        if halted:
            self._let_be(self._pace.rest_s)
            go_ns = observer.now_ns()
            by_itself = sum(observer.count_since(run, revive_ns) for run in halted)
            self._say(f"    a revive starts nothing: {by_itself} mails from {_list(halted)} since")
            self._say(f"    whoever runs the fleet restarts {_list(halted)}")
            for run in halted:
                fleet[run].restart()
        self._mail_flows(self._runs)
        moments = PullMoments(ack_ns, effective_ns, revive_ns, go_ns, observer.now_ns())
        workers = tuple(
            worker_figures(
                run, observer.stamps(run), moments, hit=run in hit, restarted=run in halted, reads=reads[run]
            )
            for run in self._runs
        )
        self._tell_pull(workers)
        return PullFigures(rung.target, int(killed.members["seq"]), wait_ms, not rung.halts, workers, fail_over)

    def stop_the_service(self, ttl_ms: int) -> tuple[OutageWorker, ...]:
        """Stop the service, look, start it again, look."""
        stage, observer, fleet = self._stage, self._stage.observer, self._stage.fleet
        self._let_be(self._pace.flow_s)
        entered = {run: fleet[run].latest.entered for run in self._runs}
        said = {run: len(fleet[run].changes) for run in self._runs}
        self._say(f"  $ kill -TERM {' '.join(map(str, stage.service.pids))}    (the service)")
        term_ns = observer.now_ns()
        gone_ns = stage.service.stop()
        limit_ns = gone_ns + ttl_ms * 1_000_000
        drained_ms = (gone_ns - term_ns) / 1e6
        self._say(f"    gone {drained_ms:.0f} ms later; from then on no lease outlives its ttl of {ttl_ms} ms")
        self._watch_until(lambda: fleet.states(self._runs) == {State.UNVERIFIED}, limit_ns)
        self._let_be_until(limit_ns, service=False)
        self._let_be(self._pace.hold_s, service=False)
        why = {
            run: next((each.why for each in fleet[run].changes[said[run] :] if each.state is State.UNVERIFIED), "")
            for run in self._runs
        }
        for run in self._runs:
            self._say(f"    {run} unverified: {why[run]}")
        start_ns = observer.now_ns()
        self._say("  $ haltline-server serve")
        stage.service.start()
        self._mail_flows(self._runs)
        moments = OutageMoments(term_ns, gone_ns, limit_ns, start_ns, observer.now_ns())
        workers = tuple(
            outage_worker(
                run,
                observer.stamps(run),
                moments,
                why=why[run],
                same_run=fleet[run].latest.entered == entered[run],
            )
            for run in self._runs
        )
        for worker in workers:
            self._say(f"    {worker.run}: {_since(worker.after_start)}, without a restart")
        return workers

    def _hold(self, hit: Sequence[str], halted: Sequence[str], effective_ns: int) -> dict[str, int]:
        """Leave a kill as it is for a while; return how many recipients each worker has read meanwhile.

        Longer where the machine is slow: until each worker that goes on has shown that it does, or had time enough.
        """
        observer, fleet = self._stage.observer, self._stage.fleet
        going_on = [run for run in self._runs if run not in halted]
        spared = [run for run in self._runs if run not in hit]
        old = {run: fleet[run].latest for run in going_on}
        self._wait(lambda: all(fleet[run].latest is not old[run] for run in going_on), FLOW_S)
        before = {run: fleet[run].latest.read for run in self._runs}
        self._let_be(self._pace.hold_s)
        self._wait(
            lambda: (
                all(fleet[run].latest.read > before[run] for run in going_on)
                and all(observer.count_since(run, effective_ns) for run in spared)
            ),
            FLOW_S,
        )
        return {run: fleet[run].latest.read - before[run] for run in self._runs}

    def _fail_over(self, blow: Blow, ack_ns: int, halted: Sequence[str]) -> FailOver:
        """Return what followed a blow, and tell of it."""
        fleet = self._stage.fleet
        heard = {
            run: max(0.0, (fleet[run].since_ns - blow.fell_ns) / 1e6)
            if fleet[run].latest.state is State.STOPPED
            else None
            for run in halted
        }
        found = FailOver(
            control=blow.control.name,
            node=blow.node.name,
            streams=blow.carried[blow.node.name],
            answered_ms=(ack_ns - blow.fell_ns) / 1e6,
            heard_ms=heard,
        )
        self._say(f"    {found.control} gone: another answered the kill {found.answered_ms:.0f} ms later")
        told = ", ".join(f"{run} {'never' if ms is None else f'{ms:.0f} ms later'}" for run, ms in heard.items())
        self._say(f"    {found.node} gone: the kill reached {told}")
        return found

    def _tell_halted(self, runs: Sequence[str]) -> None:
        for run in runs:
            latest = self._stage.fleet[run].latest
            self._say(f"    {run} {latest.state.value}: {latest.why}")

    def _tell_pull(self, workers: Sequence[WorkerFigures]) -> None:
        for each in workers:
            if each.stopped_after_ms is None:
                self._say(f"    {each.run}: not on the path; sent {each.after_ack} mails meanwhile")
            else:
                self._say(
                    f"    {each.run}: stopped {each.stopped_after_ms:.0f} ms after the ack; "
                    f"{each.after_effective} mails after effective_at; {_since(each.after_go)}"
                )

    def _mail_flows(self, runs: Sequence[str]) -> bool:
        """Wait until each run's mail flows, and return whether it does."""
        observer = self._stage.observer
        goal = {run: observer.count(run) + MAILS for run in runs}
        flowing = self._wait(lambda: all(observer.count(run) >= goal[run] for run in runs), FLOW_S)
        self._stage.look_after()
        return flowing

    def _let_be(self, seconds: float, *, service: bool = True) -> None:
        """Let things be, unless a process ends that should not."""
        self._wait(lambda: False, seconds, service=service)

    def _let_be_until(self, moment_ns: int, *, service: bool = True) -> None:
        self._let_be((moment_ns - self._stage.observer.now_ns()) / _NS, service=service)

    def _watch_until(self, happened: Callable[[], bool], moment_ns: int) -> bool:
        return self._wait(happened, (moment_ns - self._stage.observer.now_ns()) / _NS, service=False)

    def _wait(self, happened: Callable[[], bool], seconds: float, *, service: bool = True) -> bool:
        stage = self._stage
        gone = stage.gone if service else lambda: bool(stage.fleet.gone())
        stage.watch.until(lambda: happened() or gone(), seconds)
        if service:
            stage.look_after()
        elif stage.fleet.gone():
            raise Trouble(stage.fleet.gone())
        return happened()


def _since(mails: int) -> str:
    return "sends again" if mails else "SENDS NOTHING since"


def _list(runs: Sequence[str]) -> str:
    return ", ".join(runs)
