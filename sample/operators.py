"""An operator: the real command line, run the way a person would, with its answer stamped when it arrives."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sample.fleet import clean_environment
from sample.server import tool
from sample.troubles import Trouble

_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Said:
    """What a command answered.

    Attributes:
        members: the JSON object of its first line.
        at_ns: when that line arrived, on the observer's clock.
        status: the command's exit status.
    """

    members: dict[str, Any]
    at_ns: int
    status: int


class Operator:
    """A person at the command line.

    Args:
        name: the person, a subject of tokens.
        config: the person's configuration file, which holds a token.
        now_ns: the observer's clock, nanoseconds.
    """

    def __init__(self, name: str, config: Path, now_ns: Callable[[], int]) -> None:
        self.name = name
        self._tool = tool("haltline")
        self._now_ns = now_ns
        # Unbuffered: the answer must be stamped when it is given, not when the command has ended.
        self._environment = {**clean_environment(), "HALTLINE_CONFIG": str(config), "PYTHONUNBUFFERED": "1"}

    def type(self, arguments: Sequence[str]) -> Said:
        """Run ``haltline`` with arguments and ``--json``, and return what it answered, whatever its exit status.

        Raises:
            Trouble: it answered nothing that can be read.
        """
        process = subprocess.Popen(
            [self._tool, *arguments, "--json"],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            line = process.stdout.readline() if process.stdout is not None else b""
            at_ns = self._now_ns()
            _, errors = process.communicate(timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise Trouble(f"haltline {arguments[0]} did not end within {_TIMEOUT_S:g} s") from error
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        try:
            members = json.loads(line)
        except ValueError:
            members = None
        if not isinstance(members, dict):
            told = errors.decode("utf-8", "replace").strip().splitlines()
            raise Trouble(f"haltline {arguments[0]}: {told[0] if told else f'status {process.returncode}'}")
        return Said(members, at_ns, process.returncode)

    def succeed(self, arguments: Sequence[str]) -> Said:
        """The same, for a command that must succeed.

        Raises:
            Trouble: it did not.
        """
        said = self.type(arguments)
        if said.status != 0:
            raise Trouble(f"haltline {arguments[0]}: {said.members.get('error', f'status {said.status}')}")
        return said


def typed(arguments: Sequence[str]) -> str:
    """Return the line that a person would type."""
    words = [word if word.replace("-", "").replace("_", "").isalnum() else json.dumps(word) for word in arguments]
    return " ".join(("haltline", *words))


def path_prefix() -> str:
    """Return what a shell needs before ``haltline`` can be typed; empty where it already finds this very one."""
    wanted = Path(tool("haltline"))
    for folder in os.get_exec_path():
        candidate = Path(folder) / "haltline"
        if os.access(candidate, os.X_OK):
            return "" if candidate.resolve() == wanted.resolve() else str(wanted.parent)
    return str(wanted.parent)
