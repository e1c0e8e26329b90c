"""The lines to type beside a running fleet: to kill, to revive and to watch. They work as they are printed."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Final

from sample.operators import path_prefix

_LINES: Final = (
    ("stop one run", 'haltline kill run r-1 --reason "wrong list"'),
    ("stop a tenant", 'haltline kill tenant acme --reason "consent withdrawn"'),
    ("freeze one tool", 'haltline kill capability send_email --reason "dead link"'),
    ("stop the world", 'haltline kill global --reason "stop, then look"'),
    ("let go again", 'haltline revive run r-1 --all --reason "list corrected"'),
    ("what is stopped", "haltline flags"),
    ("what happened", "haltline log"),
)


def guide(config: Path, *, service_pid: int) -> list[str]:
    """Return the lines.

    Args:
        config: the command line's configuration file.
        service_pid: the service's process id.
    """
    settings = [f"export HALTLINE_CONFIG={_here(config)}"]
    if prefix := path_prefix():
        settings.append(f'export PATH={_here(Path(prefix))}:"$PATH"')
    return [
        "Type in another terminal, in this folder, once:",
        "",
        *(f"  {line}" for line in settings),
        "",
        "and then:",
        "",
        *(f"  {what:<16} {line}" for what, line in _LINES),
        f"  {'take it away':<16} kill {service_pid}    (the service: every worker stops by itself)",
    ]


def _here(path: Path) -> str:
    """Return a path as it is best typed in this folder. No link is followed: a venv's Python may be one."""
    here = Path.cwd()
    if not path.is_relative_to(here):
        return shlex.quote(str(path))
    return '"$PWD"/' + shlex.quote(os.path.relpath(path, here))
