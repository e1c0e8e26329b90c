"""The board: three bars on a terminal, plain lines elsewhere, and what is said scrolling above them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from sample.folder import RECIPIENTS
from sample.reports import State
from sample.stage import Stage

_STYLES: Final = {
    State.STARTING: "dim",
    State.SENDING: "green",
    State.FROZEN: "cyan",
    State.UNVERIFIED: "yellow",
    State.STOPPED: "bold red",
    State.ENDED: "dim",
}


class Board:
    """Where the sample speaks.

    Args:
        console: the terminal, or whatever standard output is.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    @property
    def live(self) -> bool:
        """Whether bars can be drawn."""
        return self._console.is_terminal

    def say(self, text: RenderableType = "", *, style: str | None = None) -> None:
        """Say something: above the bars, where there are some. Any thread may."""
        if isinstance(text, str):
            text = Text(text)  # never markup: an operator's reason may hold brackets
        # A pipe has no width: nothing is wrapped there, so that a line can be searched for and copied.
        self._console.print(text, style=style, highlight=False, soft_wrap=not self.live)

    def heading(self, text: str) -> None:
        """Begin a part."""
        self._console.print()
        if self.live:
            self._console.print(Rule(Text(text, "bold"), align="left", style="dim"))
        else:
            self.say(f"== {text}")

    @contextlib.contextmanager
    def bars(self, stage: Stage) -> Iterator[None]:
        """Show the bars for as long as this lasts; elsewhere than on a terminal, show nothing."""
        if not self.live:
            yield
            return
        with Live(get_renderable=lambda: _bars(stage), console=self._console, refresh_per_second=5, transient=True):
            yield


def status_line(stage: Stage) -> str:
    """Return how each worker stands, in one line."""
    parts = []
    for worker in stage.fleet:
        run, now = worker.assignment.run, worker.latest
        parts.append(f"{run} {now.state.value} {stage.observer.count(run)} mails")
    return " | ".join(parts)


def _bars(stage: Stage) -> Table:
    table = Table.grid(padding=(0, 1), expand=True)
    for column in ("run", "tenant"):
        table.add_column(column, no_wrap=True)
    table.add_column("bar", ratio=1, min_width=8)
    table.add_column("state", no_wrap=True, width=10)
    for column, width in (("sent", 12), ("read", 12), ("rate", 5)):
        table.add_column(column, no_wrap=True, justify="right", width=width)
    for worker in stage.fleet:
        now, run = worker.latest, worker.assignment.run
        sent = stage.observer.count(run)
        table.add_row(
            Text(run, "bold"),
            worker.assignment.tenant,
            ProgressBar(total=RECIPIENTS, completed=now.read % RECIPIENTS, complete_style=_STYLES[now.state]),
            Text(now.state.value, _STYLES[now.state]),
            f"{sent:,} sent",
            f"{max(now.read, sent):,} read",  # a report may be a moment old; nothing is sent unread
            f"{stage.observer.rate(run)}/s",
        )
    return table


def terminal(*, quiet: bool = False) -> Console:
    """Return the console of standard output; a quiet one says nothing."""
    console = Console(quiet=quiet, soft_wrap=False)
    # Elsewhere than on a terminal rich assumes 80 columns, and cuts what is longer.
    return console if console.is_terminal else Console(quiet=quiet, width=120)
