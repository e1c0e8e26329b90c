"""The play: every act of the demo in order, and what was found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sample.acts import RUNGS, Pace, Script
from sample.board import Board
from sample.chain import export_log, log_flaw
from sample.crew import CREW, Assignment
from sample.folder import Folder
from sample.judge import broken_bounds
from sample.operators import Operator
from sample.ports import free_port
from sample.programme import Findings
from sample.reports import Report
from sample.stage import Stage, set_up

FULL: Final = Pace(flow_s=3.0, hold_s=2.5, rest_s=1.5)
"""For a person to watch: about a minute."""

SHORT: Final = Pace(flow_s=0.3, hold_s=0.3, rest_s=1.0)
"""For a test: as short as the figures allow."""

_KILLER: Final = "dana"
_RELEASER: Final = "rui"


def play(folder: Folder, board: Board, *, pace: Pace, rate: float) -> Findings:
    """Play the whole demo on a fresh folder, and return what was found.

    Args:
        folder: where everything is kept.
        board: where it is told.
        pace: how long things are let be.
        rate: mails a second and worker at most.

    Raises:
        Trouble: it could not be played.
    """
    board.say("Starting the service, a mail server and three workers ...")
    with set_up(folder, port=free_port(), rate=rate, keep_mail=False, on_change=_unheard) as stage:
        people = _people(stage)
        script = Script(stage, people[_KILLER], people[_RELEASER], pace=pace, say=board.say)
        with board.bars(stage):
            script.begin()
            _introduce(stage, board.say, rate)
            pulls = []
            for number, rung in enumerate(RUNGS, 1):
                board.heading(f"{number} of {len(RUNGS) + 1}  {rung.title}")
                pulls.append(script.pull(rung))
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
            broken=broken_bounds(pulls, outage, chain_flaw=flaw),
        )


def _people(stage: Stage) -> dict[str, Operator]:
    """Return the two at the command line, each with a token of their own: who may kill need not be who may revive."""
    people = {}
    for name, role in ((_KILLER, "operator"), (_RELEASER, "releaser")):
        _, token = stage.api.issue(name, role)
        config = stage.folder.write_config(f"{name}.toml", stage.service.url, token)
        people[name] = Operator(name, config, stage.observer.now_ns)
    return people


def _introduce(stage: Stage, say: Callable[[str], None], rate: float) -> None:
    say(f"  service at {stage.service.url}, lease ttl {stage.service.ttl_ms} ms")
    say(f"  mail server on port {stage.sink.port}: the one observer, every figure is its own")
    for each in CREW:
        pid = stage.fleet[each.run].pid
        say(f"  {each.run}  tenant {each.tenant}, feature {each.feature}; process {pid}, up to {rate:g} mails a second")


def _unheard(_assignment: Assignment, _report: Report) -> None:
    """Pass over a worker's change of state: the script tells of it in its own order."""
