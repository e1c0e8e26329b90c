"""How a command ends: the exit codes, and the one exception that carries one."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any


class Exit(IntEnum):
    """The exit codes of ``haltline``; docs/cli.md and ``haltline --help`` explain them."""

    DONE = 0
    FAILED = 1
    """The check failed: a broken chain, an export that broke off, a repeated kill that was released since."""
    USAGE = 2
    REFUSED = 3
    """The service, or whatever answered in its place, refused."""
    NOT_DONE = 4
    """Not reached, or it could not write: nothing was done."""
    UNKNOWN = 5
    """Whether the flip was done is not known."""


OUTCOMES: Mapping[Exit, str] = {
    Exit.DONE: "done",
    Exit.FAILED: "failed",
    Exit.USAGE: "usage",
    Exit.REFUSED: "refused",
    Exit.NOT_DONE: "not_done",
    Exit.UNKNOWN: "unknown",
}
"""The same as words, for ``--json``."""


class Ended(Exception):
    """A command cannot go on.

    Attributes:
        code: the exit code.
        said: the lines for a person, the first of them what happened.
        members: more members for ``--json``.
    """

    def __init__(self, code: Exit, *said: str, members: Mapping[str, Any] | None = None) -> None:
        super().__init__(said[0])
        self.code = code
        self.said = said
        self.members = dict(members or {})
