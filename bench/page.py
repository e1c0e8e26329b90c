"""The table of figures: on the terminal, and between two markers of docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.command import GROUPS
from bench.figure import Effort, Figure, Met

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
BEGIN: Final = "<!-- figures: written by `make bench` -->"
END: Final = "<!-- end of figures -->"
COLUMNS: Final = ("script", "what", "beside it, in the same run", "must", "goal", "measured", "reached")

_STYLES: Final = {Met.GOAL: "green", Met.MUST: "cyan", Met.MISSED: "bold red", Met.SKIPPED: "yellow", Met.NOTED: "dim"}


def cells(figure: Figure) -> tuple[str, ...]:
    """Return a figure's cells in the order of :data:`COLUMNS`."""
    bounds = (figure.must, figure.goal)
    return (figure.name, figure.what, figure.floor, *bounds, figure.measured, figure.met.value)


def machine(effort: Effort, *, now: datetime) -> str:
    """Return what the figures were measured on, and by which command: nothing that names the machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    command = "make bench" if effort == Effort() else f"python -m bench --entries {effort.entries}"
    return (
        f"{now:%Y-%m-%d}, {platform.python_implementation()} {platform.python_version()}, SQLite "
        f"{sqlite3.sqlite_version}, {platform.system()} on {platform.machine()}, {os.cpu_count()} shared cores, "
        f"{memory:.0f} GiB; `{command}`"
    )


def show(figures: Sequence[Figure], *, effort: Effort) -> None:
    """Print the table."""
    console = Console()
    table = Table(*COLUMNS, caption=machine(effort, now=datetime.now(UTC)), show_lines=True)
    for figure in figures:
        *told, met = cells(figure)
        # The back-ticks are for the page; rich must not take brackets for its own mark-up either.
        table.add_row(*(text.replace("`", "").replace("[", r"\[") for text in told), met, style=_STYLES[figure.met])
    console.print(table)


def markdown(figures: Sequence[Figure], *, effort: Effort, now: datetime) -> str:
    """Return the tables as they stand in the page, one a group, without the markers."""
    lines = [machine(effort, now=now)]
    for title, names in GROUPS.items():
        rows = [cells(figure) for figure in figures if figure.name in names]
        if rows:
            lines += ["", f"### {title}", "", *map(_line, [COLUMNS, tuple("---" for _ in COLUMNS), *rows])]
    return "\n".join(lines)


def _line(row: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |"


def replaced(page: str, table: str) -> str:
    """Return ``page`` with what stands between the markers replaced by ``table``.

    Raises:
        ValueError: a marker is missing, or stands twice.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise ValueError(f"the page must have one line {BEGIN!r} and, after it, one line {END!r}")
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def write(figures: Sequence[Figure], *, effort: Effort) -> None:
    """Write the table into docs/benchmarks.md."""
    page = PAGE.read_text(encoding="utf-8")
    table = markdown(figures, effort=effort, now=datetime.now(UTC))
    PAGE.write_text(replaced(page, table), encoding="utf-8")
