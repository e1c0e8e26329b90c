"""``make run``: the service and a fleet that is really sending mail, until Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sample.interrupts import Interrupted, interruptible
from sample.troubles import Trouble, need

if TYPE_CHECKING:
    from sample.board import Board
    from sample.reports import Report

TROUBLE: Final = 2
"""The exit status where it could not run."""

_LOOK_S: Final = 1.0
_STATUS_EVERY: Final = 10
"""Every how many looks the workers' state is told where there are no bars."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until interrupted; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m sample.run",
        description="Run the service on SQLite and three workers that send mail to a mail server of their own, until "
        "Ctrl-C. Nothing leaves this machine.",
    )
    parser.add_argument("--data", type=Path, default=Path(".haltline"), help="the data folder (default ./.haltline)")
    parser.add_argument("--port", type=int, default=8787, help="the service's port on 127.0.0.1 (default 8787)")
    parser.add_argument("--rate", type=float, default=100.0, help="mails a second and worker at most (default 100)")
    parser.add_argument("--keep-mail", action="store_true", help="keep each mail as a file in the data folder")
    given = parser.parse_args(arguments)
    if not 1 <= given.port <= 65535:
        parser.error("--port must be from 1 to 65535")
    if not 0 < given.rate <= 1000:
        parser.error("--rate must be above 0 and at most 1000")
    try:
        need(("aiosmtpd", "rich", "app", "haltline"))
        with _until_interrupted(), interruptible():
            _run(given)
    except Trouble as trouble:
        print(f"run: {trouble}", file=sys.stderr)
        return TROUBLE
    return 0


@contextlib.contextmanager
def _until_interrupted() -> Iterator[None]:
    """Take Ctrl-C and SIGTERM for what they are here: the way to end."""
    with contextlib.suppress(Interrupted):
        yield
        return
    print("Everything has ended. The log is kept; `make run` goes on with it.")


def _run(given: argparse.Namespace) -> None:
    from sample.board import Board, status_line, terminal
    from sample.folder import Folder
    from sample.guide import guide
    from sample.service import Service
    from sample.stage import set_up
    from sample.supervisor import Supervisor

    board = Board(terminal())

    folder = Folder(given.data)
    kept = folder.database.exists()
    board.say("Starting the service, a mail server and three workers ...")
    service = Service(folder, port=given.port)
    with set_up(
        folder,
        service,
        rate=given.rate,
        keep_mail=given.keep_mail,
        on_change=lambda _, report: _tell(board, report),
    ) as stage:
        board.say(f"The service is {service.url}; its log in {given.data} is {'an earlier one' if kept else 'new'}.")
        board.say(f"The admin token is in {given.data / folder.config.name}, which only you can read.")
        board.say()
        for line in guide(folder.config, service_pid=service.pid):
            board.say(line)
        board.say()
        board.say("Ctrl-C ends everything.")
        board.say()
        supervisor = Supervisor(stage, board.say)
        looks = 0
        with board.bars(stage):
            while True:
                stage.watch.until(stage.gone, _LOOK_S)
                supervisor.look()
                looks += 1
                if not board.live and looks % _STATUS_EVERY == 0:
                    board.say(status_line(stage))


def _tell(board: Board, report: Report) -> None:
    """Tell of a worker's change of state."""
    why = f": {report.why}" if report.why else ""
    board.say(f"{report.run} {report.state.value}{why}")


if __name__ == "__main__":
    sys.exit(main())
