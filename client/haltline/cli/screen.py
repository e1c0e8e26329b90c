"""What a command shows: plain lines in a pipe, rich on a terminal, one JSON object for programs.

Everything passes through :func:`haltline.cli.inert.inert`, and rich is given texts, never markup.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TextIO

from haltline.cli.exits import OUTCOMES, Ended, Exit
from haltline.cli.inert import inert

if TYPE_CHECKING:
    from rich.console import Console

_TICK_S: Final = 0.05


class Screen:
    """Standard output and standard error of one command.

    Args:
        as_json: whether standard output belongs to one JSON object, or to JSON lines.

    Attributes:
        as_json: the same.
        terminal: whether a person watches standard output.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._out: TextIO = sys.stdout
        self._err: TextIO = sys.stderr
        for stream in (self._out, self._err):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # what a terminal cannot show must not end a kill
        self.terminal = not as_json and self._out.isatty()

    def say(self, text: str = "", *, style: str = "") -> None:
        """Show a line on standard output; nothing if that belongs to JSON."""
        if not self.as_json:
            self._line(self._out, text, style)

    def tell(self, text: str, *, style: str = "") -> None:
        """Show a line on standard error."""
        self._line(self._err, text, style)

    def warn(self, text: str) -> None:
        """Show what an operator should mend."""
        self.tell(f"warning: {text}", style="yellow")

    def json(self, members: Mapping[str, Any]) -> None:
        """Write a JSON object as one line of ASCII, if output is JSON."""
        if self.as_json:
            self._out.write(f"{json.dumps(members)}\n")
            self._out.flush()  # a program that reads a pipe wants the answer now, not when the command ends

    def ended(self, ended: Ended) -> Exit:
        """Show why a command ended early, and return its exit code."""
        style = "bold red" if ended.code is not Exit.USAGE else ""
        for number, line in enumerate(ended.said):
            self.tell(line, style="" if number else style)
        outcome = {"ok": False, "outcome": OUTCOMES[ended.code], "exit": int(ended.code), "error": ended.said[0]}
        self.json({**outcome, **ended.members})
        return ended.code

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Show rows under headings; nothing is cut, long cells go on in the next line of a terminal."""
        if self.as_json:
            return
        cells = [[inert(cell) for cell in row] for row in rows]
        if self.terminal:
            from rich.table import Table
            from rich.text import Text

            table = Table(box=None, pad_edge=False, header_style="bold")
            for column in columns:
                table.add_column(column, overflow="fold")
            for row in cells:
                table.add_row(*(Text(cell) for cell in row))
            _console(self._out).print(table)
            return
        widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
        for row in ([*columns], *cells):
            padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self._out.write("  ".join(padded).rstrip() + "\n")

    def countdown(self, *, until: float, now: Callable[[], float], sleep: Callable[[float], None]) -> None:
        """Count down to ``until``, on a terminal before the eyes of whoever waits.

        Args:
            until: when it ends, a reading of ``now``, seconds.
            now: reads a clock that is never set.
            sleep: waits so many seconds.
        """
        if not self.terminal:
            while (left := until - now()) > 0:
                sleep(left)
            return
        from rich.text import Text

        with _console(self._out).status("") as status:
            while (left := until - now()) > 0:
                status.update(Text(f"effective in {left:.1f} s"))
                sleep(min(_TICK_S, left))

    @contextmanager
    def progress(self, what: str, *, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
        """Show a bar on standard error if that is a terminal; yields a function that is told how far it got."""
        if not self._err.isatty():
            yield lambda _: None
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit, markup=False),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=_console(self._err), transient=True) as bar:
            task = bar.add_task(inert(what), total=total)
            yield lambda done: bar.update(task, completed=done)

    def _line(self, stream: TextIO, text: str, style: str) -> None:
        line = inert(text)
        if style and stream.isatty():
            from rich.text import Text

            _console(stream).print(Text(line, style=style), soft_wrap=True)
        else:
            stream.write(f"{line}\n")
            stream.flush()


def _console(stream: TextIO) -> Console:
    from rich.console import Console  # 40 ms that a kill from a script need not cost

    return Console(file=stream, highlight=False, markup=False, emoji=False)
