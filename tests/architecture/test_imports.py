"""The contracts of .importlinter hold, and each of them breaks when somebody crosses it."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]

# One trespass for each contract: a file and the line put at its end. A contract never broken proves nothing.
TRESPASSES: Final = {
    "client-layers": ("client/haltline/scopes.py", "import haltline.verdict"),
    "service-layers": ("app/domain/__init__.py", "import app.service"),
    "pure-core": ("client/haltline/errors.py", "import time"),
    "client-alone": ("client/haltline/flips.py", "import app"),
    "client-terminal": ("client/haltline/canonical.py", "import rich"),
    "service-core": ("app/service/__init__.py", "from sqlalchemy import create_engine"),
    "shared-core": ("app/api/__init__.py", "from haltline import transport"),
    "shipped": ("app/storage/__init__.py", "import tests"),
}


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    """Run the linter over the packages under `root`, whatever is installed."""
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'client'}", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def contract_names() -> dict[str, str]:
    """Return the name of every contract in .importlinter by its id."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter")
    prefix = "importlinter:contract:"
    return {part.removeprefix(prefix): parser[part]["name"] for part in parser if part.startswith(prefix)}


def copy_of_the_packages(target: Path) -> Path:
    """Copy what the linter reads to `target`, for a test to spoil."""
    shutil.copy(ROOT / ".importlinter", target)
    for package in ("app", "client/haltline"):
        shutil.copytree(ROOT / package, target / package, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def append(path: Path, line: str) -> None:
    """Put `line` at the end of the file at `path`."""
    path.write_text(f"{path.read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")


def test_every_contract_holds() -> None:
    """The import graph of the service and the client keeps every contract."""
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_contract_bites(tmp_path: Path) -> None:
    """A trespass against each contract is found, one into the standard library included."""
    names = contract_names()
    assert TRESPASSES.keys() == names.keys()
    tree = copy_of_the_packages(tmp_path)
    for file, line in TRESPASSES.values():
        append(tree / file, line)
    done = lint(tree)
    assert done.returncode == 1, done.stdout + done.stderr
    kept = [name for name in names.values() if f"{name} BROKEN" not in " ".join(done.stdout.split())]
    assert kept == [], done.stdout


def test_layers_are_exhaustive(tmp_path: Path) -> None:
    """A module that stands in no layer is found, in the service and in the client."""
    tree = copy_of_the_packages(tmp_path)
    for stray in ("app/stray.py", "client/haltline/stray.py"):
        (tree / stray).write_text('"""In no layer."""\n', encoding="utf-8")
    done = lint(tree)
    assert done.returncode == 1
    assert "app.stray" in done.stdout
    assert "haltline.stray" in done.stdout
