"""The command line: what an operator types to stop a fleet, to let it start again, and to read what happened."""

from __future__ import annotations

import sys
from typing import Final

_NEEDS: Final = frozenset({"click", "rich"})


def main() -> None:
    """Run ``haltline``; the exit status is documented in ``haltline --help``."""
    try:
        from haltline.cli.commands import haltline
    except ModuleNotFoundError as missing:
        if missing.name not in _NEEDS:
            raise
        print(f"haltline: the command line needs {missing.name}: pip install click rich", file=sys.stderr)
        sys.exit(2)
    haltline(prog_name="haltline")
