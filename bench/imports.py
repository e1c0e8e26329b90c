"""What importing the client costs a program, in fresh interpreters."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Final

from bench.command import alone
from bench.figure import Bound, Effort, Figure, noted
from bench.measure import shown

NAME: Final = "imports"
RUNS: Final = 40
BOUND: Final = Bound(must=4, goal=2, unit="x `import ssl`")
"""40 and 20 ms where `import ssl` takes 10."""

NOTHING: Final = "pass"
CLIENT: Final = "import haltline"
TLS: Final = "import ssl"
FIRST_USE: Final = (
    "import haltline, h11\n"
    f"haltline.KillSwitch('http://127.0.0.1:9', token='hlt_default_{'b' * 12}_{'0' * 49}', worker='w')"
)


def measure(effort: Effort) -> Iterator[Figure]:
    """Measure it against a bare interpreter, beside what the standard library's own modules cost."""
    programs = (NOTHING, CLIENT, "import socket", TLS, "import asyncio", FIRST_USE)
    taken = in_turns(programs, runs=effort.of(RUNS))
    bare = taken[NOTHING]

    def more(program: str) -> float:
        return statistics.median(one - base for one, base in zip(taken[program], bare, strict=True))

    client, tls = more(CLIENT), more(TLS)
    floor = ", ".join(f"`{each}` {shown(more(each))}" for each in programs[2:5])
    yield BOUND.figure(
        NAME,
        "`import haltline`, more than a bare interpreter",
        value=client / tls,
        measured=f"{client / tls:.1f}x, {shown(client)}",
        floor=f"bare interpreter {shown(statistics.median(bare))}; {floor}",
    )
    yield noted(
        NAME,
        "… and a `KillSwitch` made, with what its first exchange loads later",
        measured=shown(more(FIRST_USE)),
    )


def in_turns(programs: tuple[str, ...], *, runs: int) -> dict[str, list[float]]:
    """Return how long each program took in each of ``runs`` rounds, in seconds; the programs take turns."""
    taken: dict[str, list[float]] = {program: [] for program in programs}
    # Byte code is kept, as an installed package has it, whatever the environment of this run says.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(-1, runs):  # the first round writes the byte code and warms the page cache
            for program in programs:
                begun = time.perf_counter()
                subprocess.run([sys.executable, "-c", program], env={**kept, "PYTHONPYCACHEPREFIX": folder}, check=True)
                if number >= 0:
                    taken[program].append(time.perf_counter() - begun)
    return taken


if __name__ == "__main__":
    sys.exit(alone(measure))
