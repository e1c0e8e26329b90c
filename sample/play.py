"""The play: every act of the demo in order, and what was found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sample.acts import Pace, Script
from sample.blow import Blow
from sample.board import Board
from sample.chain import export_log, log_flaw
from sample.cluster import Cluster
from sample.crew import CREW, Assignment
from sample.folder import Folder
from sample.judge import broken_bounds, broken_log
from sample.operators import Operator
from sample.ports import free_port
from sample.programme import Findings
from sample.reports import Report
from sample.rungs import RUNGS
from sample.service import Service
from sample.stage import Stage, set_up

FULL: Final = Pace(flow_s=3.0, hold_s=2.5, rest_s=1.5)
"""For a person to watch: about a minute."""

SHORT: Final = Pace(flow_s=0.3, hold_s=0.3, rest_s=1.0)
"""For a test: as short as the figures allow."""

_KILLER: Final = "dana"
_RELEASER: Final = "rui"


def play(folder: Folder, board: Board, *, nodes: int, pace: Pace, rate: float) -> Findings:
    """Play the whole demo on a fresh folder, and return what was found.

    Args:
        folder: where everything is kept.
        board: where it is told.
        nodes: 1 for one process on SQLite; more for so many worker nodes and two control lanes on PostgreSQL, of which
            one each is struck while the last kill is on its way.
        pace: how long things are let be.
        rate: mails a second and worker at most.

    Raises:
        Broken: a kill was not acknowledged.
        Trouble: it could not be played.
    """
    cluster = Cluster(folder, nodes=nodes) if nodes > 1 else None
    started = f"PostgreSQL, Valkey, two control lanes, {nodes} worker nodes" if cluster is not None else "the service"
    board.say(f"Starting {started}, a mail server and three workers ...")
    service = Service(folder, port=free_port()) if cluster is None else cluster
    with set_up(folder, service, rate=rate, keep_mail=False, on_change=_unheard) as stage:
        people = _people(stage)
        script = Script(stage, people[_KILLER], people[_RELEASER], pace=pace, say=board.say)
        with board.bars(stage):
            script.begin()
            _introduce(stage, board.say, rate)
            pulls = []
            for number, rung in enumerate(RUNGS, 1):
                struck = cluster if number == len(RUNGS) else None
                meanwhile = "; two processes are killed meanwhile" if struck is not None else ""
                board.heading(f"{number} of {len(RUNGS) + 1}  {rung.title}{meanwhile}")
                pulls.append(script.pull(rung, strike=_striker(struck, stage, board)))
            board.heading(f"{len(RUNGS) + 1} of {len(RUNGS) + 1}  the service itself is stopped")
            outage = script.stop_the_service(stage.service.ttl_ms)
        path = folder.path / "log.jsonl"
        entries, head = export_log(people[_KILLER], path)
        flaw = log_flaw(people[_KILLER], path, head=head)
        return Findings(
            ttl_ms=stage.service.ttl_ms,
            pulls=pulls,
            outage=outage,
            entries=entries,
            chain_flaw=flaw,
            broken=broken_bounds(pulls, outage, chain_flaw=flaw) + broken_log(pulls, entries),
        )


def _striker(cluster: Cluster | None, stage: Stage, board: Board) -> Callable[[], Blow] | None:
    return None if cluster is None else lambda: Blow(cluster, stage.observer.now_ns, board.say)


def _people(stage: Stage) -> dict[str, Operator]:
    """Return the two at the command line, each with a token of their own: who may kill need not be who may revive."""
    people = {}
    for name, role in ((_KILLER, "operator"), (_RELEASER, "releaser")):
        _, token = stage.api.issue(name, role)
        config = stage.folder.write_config(f"{name}.toml", stage.service.url, token)
        people[name] = Operator(name, config, stage.observer.now_ns)
    return people


def _introduce(stage: Stage, say: Callable[[str], None], rate: float) -> None:
    for line in stage.service.describe():
        say(f"  {line}")
    say(f"  mail server on port {stage.sink.port}: the one observer, every figure is its own")
    for each in CREW:
        pid = stage.fleet[each.run].pid
        say(f"  {each.run}  tenant {each.tenant}, feature {each.feature}; process {pid}, up to {rate:g} mails a second")


def _unheard(_assignment: Assignment, _report: Report) -> None:
    """Pass over a worker's change of state: the script tells of it in its own order."""
