"""The command line of the benchmarks: which figures, how thoroughly, and where they are shown."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib import import_module
from typing import Final, TypeAlias

from bench.figure import QUICK, Effort, Figure, Met, failed

Measure: TypeAlias = Callable[[Effort], Iterator[Figure]]

GROUPS: Final = {
    "What a check costs": {
        "check": "run.check() against time.monotonic(), with 0 to 100,000 kills",
        "guard": "guard(), check(), @guarded, coroutines",
        "peers": "run.check() against the clients of four flag systems (makes .venv-peers)",
        "imports": "import time of the client",
    },
    "How fast a kill is, and how far": {
        "propagation": "a durable kill until the check of an idle worker raises, against raw Redis Pub/Sub",
        "fanout": "… until the last of 1,000 and of 10,000 workers is told, and what their streams cost",
        "unleash": "a kill against a switch in Unleash, seen by its client (installs it with npm)",
        "floor_pubsub": "raw Redis Pub/Sub to 1, 1,000 and 10,000 subscribers",
    },
    "What keeping the log costs": {
        "commit": "a durable flip against an fdatasync, on SQLite and PostgreSQL",
        "kill_latency": "a flip at the end of a log of a million entries, and beside 99,000 active kills",
        "apply": "one flip applied to a replica of 100,000 kills, and the snapshot of them all",
        "renewals": "leases renewed per second of one core of the service",
        "export": "a log of a million entries exported and verified",
    },
}
"""Scripts by their modules in this package, under the headings of the page, in the order in which they run."""

SCRIPTS: Final = {name: what for group in GROUPS.values() for name, what in group.items()}

ENTRIES_MIN: Final = 1_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks that the command line names; return 1 if a figure missed its bound.

    A whole run at full effort writes its table into docs/benchmarks.md.
    """
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure the figures of docs/benchmarks.md as ratios within one run, and write them there.",
        epilog="figures: " + "; ".join(f"{name} - {what}" for name, what in SCRIPTS.items()),
    )
    parser.add_argument("--only", metavar="NAME[,NAME]", help="only these figures; docs/benchmarks.md is left alone")
    parser.add_argument("--skip", metavar="NAME[,NAME]", help="all but these figures; the same")
    parser.add_argument("--no-page", action="store_true", help="leave docs/benchmarks.md alone")
    _add_common(parser)
    given = parser.parse_args(arguments)
    wanted = given.only.split(",") if given.only else list(SCRIPTS)
    left_out = given.skip.split(",") if given.skip else []
    unknown = [name for name in (*wanted, *left_out) if name not in SCRIPTS]
    if unknown:
        parser.error(f"there is no figure {', '.join(unknown)}; there are {', '.join(SCRIPTS)}")
    names = [name for name in wanted if name not in left_out]
    measures: list[Measure] = [import_module(f"bench.{name}").measure for name in names]
    figures = _run(measures, given)
    if not (given.only or given.skip or given.quick or given.no_page):
        from bench.page import write

        write(figures, effort=_effort(given))
    return _status(figures, given)


def alone(measure: Measure, arguments: Sequence[str] | None = None) -> int:
    """Run one benchmark script by itself; return 1 if a figure missed its bound."""
    parser = argparse.ArgumentParser(description=sys.modules[measure.__module__].__doc__)
    _add_common(parser)
    given = parser.parse_args(arguments)
    return _status(_run([measure], given), given)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object a figure instead of a table")
    parser.add_argument("--quick", action="store_true", help="a smoke run of some minutes; the figures mean little")
    parser.add_argument(
        "--entries", type=_entries, metavar="N", help="how long the exported log is (default 1,000,000)"
    )


def _entries(text: str) -> int:
    number = int(text)
    if number < ENTRIES_MIN:
        raise argparse.ArgumentTypeError(f"at least {ENTRIES_MIN}")
    return number


def _effort(given: argparse.Namespace) -> Effort:
    effort = QUICK if given.quick else Effort()
    return effort if given.entries is None else Effort(effort.rounds, given.entries, effort.seconds)


def _run(measures: Sequence[Measure], given: argparse.Namespace) -> list[Figure]:
    figures: list[Figure] = []
    for measure in measures:
        for figure in _measured(measure, _effort(given)):
            figures.append(figure)
            if given.json:
                print(json.dumps(asdict(figure), ensure_ascii=False), flush=True)
            else:
                # The table comes at the end; meanwhile somebody may be watching.
                print(f"{figure.met:>7}  {figure.what}: {figure.measured}", file=sys.stderr, flush=True)
    if not given.json:
        from bench.page import show

        show(figures, effort=_effort(given))
    return figures


def _measured(measure: Measure, effort: Effort) -> Iterator[Figure]:
    """Yield the figures of one script; where it fails, a row that says so: the others are still worth having."""
    try:
        yield from measure(effort)
    except (OSError, RuntimeError, subprocess.SubprocessError):
        traceback.print_exc()
        yield failed(measure.__module__.rpartition(".")[2])


def _status(figures: Sequence[Figure], given: argparse.Namespace) -> int:
    return 1 if not given.quick and any(figure.met is Met.MISSED for figure in figures) else 0
