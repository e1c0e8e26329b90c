"""The programme: what the demo found, as tables for a person and as one JSON object for a program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from sample.board import Board
from sample.figures import FailOver, OutageWorker, PullFigures, WorkerFigures


@dataclass(frozen=True, slots=True)
class Findings:
    """What the demo found.

    Attributes:
        ttl_ms: the lease ttl, milliseconds.
        pulls: what each pull did.
        outage: what the outage did to each worker.
        entries: the flip log as it was exported.
        chain_flaw: what ``haltline verify`` found wrong with it; empty if nothing.
        broken: each bound that is broken, in a sentence.
    """

    ttl_ms: int
    pulls: Sequence[PullFigures]
    outage: Sequence[OutageWorker]
    entries: Sequence[Mapping[str, Any]]
    chain_flaw: str
    broken: Sequence[str]


def as_json(found: Findings) -> dict[str, Any]:
    """Return the findings for a program."""
    return {
        "ok": not found.broken,
        "broken": list(found.broken),
        "ttl_ms": found.ttl_ms,
        "pulls": [asdict(pull) for pull in found.pulls],
        "service_stopped": [asdict(worker) for worker in found.outage],
        "chain": found.chain_flaw or "verified",
        "log": list(found.entries),
    }


def show(found: Findings, board: Board) -> None:
    """Tell a person."""
    board.heading("What the mail server saw")
    board.say(pulls_table(found.pulls))
    board.say()
    for pull in pulls_struck(found.pulls):
        board.say(fail_over_table(pull))
        board.say()
    board.say(outage_table(found.outage, found.ttl_ms))
    board.heading("The flip log: what happened, who did it, and why")
    board.say(story(found.entries))
    board.say()
    if found.chain_flaw:
        board.say(f"haltline verify: {found.chain_flaw}", style="bold red")
    else:
        board.say(f"haltline verify: {len(found.entries)} entries, one unbroken chain", style="green")
    for each in found.broken:
        board.say(f"BROKEN: {each}", style="bold red")
    if not found.broken:
        board.say("Every bound held: 0 mails after effective_at on every rung.", style="bold green")


def pulls_table(pulls: Sequence[PullFigures]) -> Table:
    """Return what the observer saw of each pull."""
    table = _table()
    table.add_column("killed", no_wrap=True)
    table.add_column("worker", no_wrap=True)
    table.add_column("stopped\nafter ack", justify="right", no_wrap=True)
    table.add_column("mails\nafter ack", justify="right")
    table.add_column("mails after\neffective_at", justify="right")
    table.add_column("what went on", no_wrap=True)
    for pull in pulls:
        for number, worker in enumerate(pull.workers):
            last = number == len(pull.workers) - 1
            table.add_row("" if number else pull.target, *_cells(worker, pull), end_section=last)
    return table


def _cells(worker: WorkerFigures, pull: PullFigures) -> tuple[Text | str, ...]:
    if worker.stopped_after_ms is None:
        return worker.run, Text("-", "dim"), str(worker.after_ack), str(worker.after_effective), "it sent on"
    went_on = f"read {worker.reads} on" if pull.goes_on_reading else "nothing"
    zero = Text(str(worker.after_effective), "bold green" if worker.after_effective == 0 else "bold red")
    return worker.run, f"{worker.stopped_after_ms:.0f} ms", str(worker.after_ack), zero, went_on


def pulls_struck(pulls: Sequence[PullFigures]) -> list[FailOver]:
    """Return what followed each blow."""
    return [pull.fail_over for pull in pulls if pull.fail_over is not None]


def fail_over_table(found: FailOver) -> Table:
    """Return what followed one blow, from the moment it fell."""
    table = _table()
    table.add_column("killed -9 in mid-stop", no_wrap=True)
    table.add_column("what it had", no_wrap=True)
    table.add_column("what then")
    table.add_column("after", justify="right", no_wrap=True)
    table.add_row(found.control, "the kill, unread", "another answered it", f"{found.answered_ms:.0f} ms")
    for number, (run, ms) in enumerate(found.heard_ms.items()):
        first = (found.node, f"{found.streams} of {len(found.heard_ms)} lease streams") if number == 0 else ("", "")
        table.add_row(*first, f"the kill reached {run}", "never" if ms is None else f"{ms:.0f} ms")
    return table


def outage_table(outage: Sequence[OutageWorker], ttl_ms: int) -> Table:
    """Return what the observer saw while the service was stopped."""
    table = _table()
    table.add_column("stopped", no_wrap=True)
    table.add_column("worker", no_wrap=True)
    table.add_column("stopped\nafter SIGTERM", justify="right", no_wrap=True)
    table.add_column(f"mails later than ttl\n({ttl_ms} ms) after its end", justify="right", no_wrap=True)
    table.add_column("mails once\nit was back", justify="right", no_wrap=True)
    for number, worker in enumerate(outage):
        zero = Text(str(worker.after_limit), "bold green" if worker.after_limit == 0 else "bold red")
        first = "" if number else "the service"
        table.add_row(first, worker.run, f"{worker.stopped_after_ms:.0f} ms", zero, str(worker.after_start))
    return table


def story(entries: Sequence[Mapping[str, Any]]) -> Table:
    """Return the flip log as a story."""
    table = _table()
    table.add_column("seq", justify="right", no_wrap=True)
    table.add_column("UTC", no_wrap=True)
    table.add_column("actor", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    table.add_column("target", no_wrap=True)
    table.add_column("reason", overflow="fold")
    for entry in entries:
        kind = str(entry.get("kind", ""))
        about = entry.get("target", entry.get("topic", ""))
        why = entry.get("reason", _details(entry))
        style = {"kill": "red", "revive": "green"}.get(kind, "dim")
        cells = (entry["seq"], str(entry.get("at", ""))[11:19], entry.get("actor", ""), kind, about, why)
        table.add_row(*(Text(str(cell)) for cell in cells), style=style)
    return table


def _details(note: Mapping[str, Any]) -> str:
    """Return what a note is about, as far as a story needs it."""
    details = [str(note[name]) for name in ("subject", "role") if name in note]
    if "ttl_ms" in note:
        details.append(f"ttl {note['ttl_ms']} ms")
    return " ".join(details)


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
