"""run.check() beside the evaluation of one boolean flag by the Python clients of four flag systems."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.command import alone
from bench.figure import Bound, Effort, Figure, skipped
from bench.measure import shown

NAME: Final = "peers"
ROOT: Final = Path(__file__).resolve().parent.parent
VENV: Final = ROOT / ".venv-peers"
PINS: Final = ROOT / "bench" / "requirements-peers.txt"
INSTALL_SECONDS: Final = 300
MEASURE_SECONDS: Final = 300

BOUNDS: Final = {
    "growthbook": ("GrowthBook", Bound(must=5, goal=10, unit="x faster", least=True)),
    "launchdarkly-server-sdk": ("LaunchDarkly", Bound(must=25, goal=50, unit="x faster", least=True)),
    "openfeature-sdk": ("OpenFeature in memory", Bound(must=25, goal=50, unit="x faster", least=True)),
    "UnleashClient": ("Unleash", Bound(must=60, goal=150, unit="x faster", least=True)),
}


class NotInstalled(Exception):
    """The peers cannot be had here; the benchmark goes on without them."""


def measure(effort: Effort) -> Iterator[Figure]:
    """Measure each peer in one process with the check, in an environment made for them."""
    try:
        python = environment()
    except NotInstalled as why:
        for title, _ in BOUNDS.values():
            yield skipped(NAME, f"`run.check()` beside {title}", str(why))
        return
    ran = subprocess.run(
        [python, "-m", "bench.peer_clients", str(effort.of(1_000))],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "client")))},
        stdout=subprocess.PIPE,
        timeout=MEASURE_SECONDS,
        check=True,
    )
    for line in ran.stdout.splitlines():
        told = json.loads(line)
        title, bound = BOUNDS[told["peer"]]
        yield bound.figure(
            NAME,
            f"`run.check()` beside {title} {told['version']}",
            value=told["ratio"],
            measured=f"{told['ratio']:.0f}x faster, {shown(told['check_s'])}",
            floor=f"{title} {shown(told['peer_s'])}",
        )


def environment() -> str:
    """Return the interpreter of the peers' environment, made if it is missing or its pins have changed.

    Raises:
        NotInstalled: it cannot be made.
    """
    python = VENV / "bin" / "python"
    stamp = VENV / ".installed"
    pins = hashlib.sha256(PINS.read_bytes() + sys.version.encode()).hexdigest()
    if stamp.exists() and stamp.read_text(encoding="ascii") == pins:
        return str(python)
    print(f"making {VENV.name} (once)", file=sys.stderr)
    commands = (
        [sys.executable, "-m", "venv", "--clear", str(VENV)],
        [str(python), "-m", "pip", "--no-input", "-q", "install", "--require-hashes", "-r", str(PINS)],
    )
    for command in commands:
        try:
            subprocess.run(command, check=True, timeout=INSTALL_SECONDS)
        except (OSError, subprocess.SubprocessError) as error:
            raise NotInstalled("the peers' clients could not be installed here") from error
    stamp.write_text(pins, encoding="ascii")
    return str(python)


if __name__ == "__main__":
    sys.exit(alone(measure))
