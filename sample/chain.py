"""The flip log, exported and verified with the command line, as anybody would who does not trust the service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sample.operators import Operator
from sample.troubles import Trouble


def export_log(operator: Operator, path: Path) -> tuple[list[dict[str, Any]], str]:
    """Export the flip log to a file; return its entries, and its head as ``haltline verify --head`` takes it.

    Raises:
        Trouble: it could not be exported.
    """
    head = operator.succeed(["export", "--output", str(path)]).members["head"]
    try:
        with path.open(encoding="utf-8") as file:
            return [json.loads(line) for line in file], f"{head['seq']}:{head['hash']}"
    except (OSError, ValueError) as error:
        raise Trouble(f"the exported log cannot be read: {error}") from error


def log_flaw(operator: Operator, path: Path, *, head: str) -> str:
    """Return what ``haltline verify`` finds wrong with an exported log; an empty text if nothing.

    Raises:
        Trouble: it said nothing that can be read.
    """
    said = operator.type(["verify", str(path), "--head", head])
    return "" if said.status == 0 else str(said.members.get("error", f"haltline verify ended with {said.status}"))
