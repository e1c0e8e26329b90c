"""Importing Haltline does nothing but define names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
PROBE: Final = Path(__file__).with_name("probe_imports.py")


def probe(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the probe in a fresh interpreter that writes no .pyc files."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    if path is not None:
        environment["PYTHONPATH"] = path
    return subprocess.run(
        [sys.executable, "-B", "-W", "error", PROBE, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.parametrize("package", ["haltline", "app"])
def test_import_has_no_effects(package: str) -> None:
    """No module opens a socket, starts a thread or a process, writes a file or reads the environment."""
    done = probe("effects", package)
    assert done.returncode == 0, done.stdout + done.stderr


def test_effects_are_seen(tmp_path: Path) -> None:
    """The probe finds each kind of effect in a package that has them all."""
    guilty = tmp_path / "guilty"
    guilty.mkdir()
    effects = {
        "sockets": "import socket\nsocket.socket().close()\n",
        "processes": "import subprocess\nsubprocess.run(['true'], check=True)\n",
        "files": f"open({str(tmp_path / 'written')!r}, 'w').close()\n",
        "environment": "import os\nSETTING = os.environ.get('HOME')\n",
        "threads": "import threading\nthreading.Thread(target=print).start()\n",
    }
    (guilty / "__init__.py").write_text("", encoding="utf-8")
    for name, source in effects.items():
        (guilty / f"{name}.py").write_text(source, encoding="utf-8")
    done = probe("effects", "guilty", path=str(tmp_path))
    assert done.returncode == 1
    unseen = [name for name in effects if f"guilty.{name}:" not in done.stdout]
    assert unseen == [], done.stdout + done.stderr


def test_client_needs_only_h11() -> None:
    """Every module of the client but its extras imports with the standard library and h11 alone."""
    done = probe("alone", "haltline", "h11")
    assert done.returncode == 0, done.stdout + done.stderr
