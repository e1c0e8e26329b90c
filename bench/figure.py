"""A figure: what was measured, beside what it has to reach."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Met(StrEnum):
    """How a figure stands."""

    GOAL = "goal"
    MUST = "must"
    MISSED = "missed"
    NOTED = "-"
    """Nothing was asked of it."""
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table.

    Attributes:
        name: the script that measures it, ``python -m bench.<name>``.
        what: what was measured.
        floor: what the machine itself, or somebody else, does in the same run.
        must: the bound that has to hold; empty where there is none.
        goal: the bound to aim for; empty where there is none.
        measured: today's figure; for a skipped one, why.
        met: how it stands.
    """

    name: str
    what: str
    floor: str
    must: str
    goal: str
    measured: str
    met: Met


@dataclass(frozen=True, slots=True)
class Bound:
    """The two bounds of a figure.

    Attributes:
        must: what has to hold.
        goal: what to aim for; at least as strict.
        unit: what stands behind the numbers, such as ``"x"`` or ``" ms"``.
        least: whether they are lower bounds; otherwise the figure may not be larger.
    """

    must: float
    goal: float
    unit: str = "x"
    least: bool = False

    def judge(self, value: float) -> Met:
        """Return how ``value`` stands, unrounded."""
        if self.least:
            return Met.GOAL if value >= self.goal else Met.MUST if value >= self.must else Met.MISSED
        return Met.GOAL if value <= self.goal else Met.MUST if value <= self.must else Met.MISSED

    def text(self, number: float) -> str:
        """Return one of the bounds as the table shows it."""
        return f"{'≥' if self.least else '≤'} {number:,g}{self.unit}"

    def figure(self, name: str, what: str, *, value: float, measured: str, floor: str) -> Figure:
        """Return the row of a figure under these bounds.

        Args:
            name: the script that measures it.
            what: what was measured.
            value: what it came to, in the unit of the bounds.
            measured: the same as the table shows it.
            floor: what it stands beside.
        """
        return Figure(name, what, floor, self.text(self.must), self.text(self.goal), measured, self.judge(value))


def noted(name: str, what: str, *, measured: str, floor: str = "") -> Figure:
    """Return a row of which nothing is asked."""
    return Figure(name, what, floor, "", "", measured, Met.NOTED)


def skipped(name: str, what: str, why: str) -> Figure:
    """Return the row of a figure that could not be measured here."""
    return Figure(name, what, "", "", "", f"skipped: {why}", Met.SKIPPED)


def missed(name: str, what: str, why: str) -> Figure:
    """Return the row of a figure that could not be measured because what it measures does not work."""
    return Figure(name, what, "", "", "", why, Met.MISSED)


def failed(name: str) -> Figure:
    """Return the row of a script that broke off."""
    return Figure(name, "the rest of this script", "", "", "", "failed: the terminal says why", Met.MISSED)


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure.

    Attributes:
        rounds: how many pairs of each comparison, at full effort.
        entries: the length of the log that is exported and verified.
        seconds: how long a load lasts.
    """

    rounds: int = 200
    entries: int = 1_000_000
    seconds: float = 10.0

    def of(self, rounds: int, *, at_least: int = 3) -> int:
        """Return ``rounds``, which is meant for full effort, in proportion."""
        return max(at_least, round(rounds * self.rounds / 200))


QUICK = Effort(rounds=10, entries=5_000, seconds=1.0)
"""Enough to see that every script works; the figures mean little."""
