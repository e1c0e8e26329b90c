"""The supervisor where no command line can make it stand: between arming a run and starting its command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

_BETWEEN: Final = """
import os, sys
from haltline.guard import Plan
from haltline.kills import Watch
from haltline.supervisor import Supervisor
from haltline.testing import fake_switch
plan = Plan(("touch", sys.argv[1]), grace_s=1, cleanup=f"touch {sys.argv[1]}", cleanup_s=1, terminal=False)
with Supervisor(plan, print) as supervisor, fake_switch() as switch:
    run = switch.run("r-1")
    assert supervisor.arm(run, 1) == 0
    if sys.argv[2] == "killed":
        switch.service.kill("run:r-1", in_flight="finish")
    over = supervisor.carry_out(switch, run, os.environ, Watch())
    print(over.why.value, bool(over.error))
"""


def carried_out(path: Path, how: str) -> list[str]:
    """Return what is said of a command that touches a file."""
    words = [sys.executable, "-c", _BETWEEN, str(path), how]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout.split()


def test_killed_between_arming_and_starting(tmp_path: Path) -> None:
    """A kill that comes after the run was armed, and before its command was started, is not missed."""
    assert carried_out(tmp_path / "ran", "killed") == ["killed", "True"]
    assert not (tmp_path / "ran").exists()
    assert carried_out(tmp_path / "ran", "alive") == ["exited", "False"]
    assert (tmp_path / "ran").exists()
