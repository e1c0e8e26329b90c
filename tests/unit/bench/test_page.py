"""The table of figures in docs/benchmarks.md."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bench.command import GROUPS, SCRIPTS, main
from bench.figure import Effort, Figure, Met
from bench.page import BEGIN, COLUMNS, END, PAGE, markdown, replaced

FIGURE = Figure("check", "`run.check()` | four scopes", "clock", "≤ 4x", "≤ 3x", "2.9x", Met.GOAL)
NOW = datetime(2026, 11, 20, tzinfo=UTC)


def test_only_what_stands_between_the_markers_is_replaced() -> None:
    """The words around the table are nobody's to change."""
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert replaced(page, "new") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"


@pytest.mark.parametrize("page", ["", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_a_page_without_its_markers_is_refused(page: str) -> None:
    """Nothing is written where it does not belong."""
    with pytest.raises(ValueError, match="the page must have"):
        replaced(page, "new")


def test_the_page_has_its_markers() -> None:
    """`make bench` can write its table."""
    assert "new" in replaced(PAGE.read_text(encoding="utf-8"), "new")


def test_rows_stand_under_the_heading_of_their_script() -> None:
    """Each group has a table of its own, and none is shown that has no rows."""
    kill = Figure("propagation", "a kill", "clock", "≤ 10x", "≤ 6x", "5x", Met.GOAL)
    lines = markdown([kill, FIGURE], effort=Effort(), now=NOW).splitlines()
    headings = [line for line in lines if line.startswith("### ")]
    assert headings == [f"### {title}" for title in list(GROUPS)[:2]]
    assert lines.index(headings[1]) > next(number for number, line in enumerate(lines) if "four scopes" in line)


def test_every_script_stands_under_one_heading() -> None:
    """No row is shown twice, or left out."""
    assert sum(len(names) for names in GROUPS.values()) == len(SCRIPTS)


def test_a_row_has_one_cell_a_column() -> None:
    """A bar inside a cell does not begin another."""
    table = markdown([FIGURE], effort=Effort(), now=NOW).splitlines()
    assert table[-1].replace(r"\|", "").count("|") == len(COLUMNS) + 1


def test_the_table_says_what_it_was_measured_on() -> None:
    """Date, interpreter, cores and command; nothing that names a machine."""
    told = markdown([FIGURE], effort=Effort(), now=NOW).splitlines()[0]
    assert told.startswith("2026-11-20, ")
    assert "shared cores" in told
    assert "`make bench`" in told


def test_every_script_can_be_run_alone() -> None:
    """Each script of the list is a module of its own with a measure()."""
    folder = PAGE.parent.parent / "bench"
    for name in SCRIPTS:
        text = (folder / f"{name}.py").read_text(encoding="utf-8")
        assert "def measure(effort: Effort) -> Iterator[Figure]:" in text
        assert "sys.exit(alone(measure))" in text


@pytest.mark.parametrize(
    "arguments", [["--only", "nothing"], ["--skip", "nothing"], ["--entries", "3"], ["--entries", "many"]]
)
def test_a_wrong_command_line_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown figure or a useless count is a usage error, before anything runs."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err
