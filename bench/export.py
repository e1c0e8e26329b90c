"""A long log exported through the API in constant memory, and verified offline."""

from __future__ import annotations

import hashlib
import http.client
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil

from bench.command import alone
from bench.figure import Bound, Effort, Figure
from bench.long_log import write
from bench.measure import shown
from bench.service import Service, folder, program, service, token
from tests.support.ports import LOOPBACK

NAME: Final = "export"
FULL: Final = 1_000_000
CHUNK: Final = 1 << 18
MEMORY_MIB: Final = 32
"""How much a service process may grow while it exports: nothing that depends on the length of the log."""

EXPORT: Final = Bound(must=50_000, goal=150_000, unit=" rows/s", least=True)
MEMORY: Final = Bound(must=MEMORY_MIB, goal=MEMORY_MIB, unit=" MiB more")
VERIFY: Final = Bound(must=30, goal=10, unit=" s a million")


def measure(effort: Effort) -> Iterator[Figure]:
    """Write a long log, export it, verify it."""
    with folder() as place:
        path = place / "haltline.db"
        write(path, effort.entries)
        url = f"sqlite:///{path}"
        observer = token(url, "observer")
        exported = place / "log.jsonl"
        with service(url) as running:
            export(running, observer, "/v1/log/export?to=1000", exported)  # what is loaded once is not growth
            with peak(running.rss) as most:
                before = running.rss()
                begun = time.perf_counter()
                head = export(running, observer, "/v1/log/export", exported)
                took = time.perf_counter() - begun
        rows = int(head.partition(":")[0])
        size = exported.stat().st_size
        yield EXPORT.figure(
            NAME,
            f"export of {rows:,} entries through `GET /v1/log/export`, SQLite",
            value=rows / took,
            measured=f"{rows / took:,.0f} rows/s, {shown(took)}",
            floor=f"{size / 2**20:,.0f} MiB of JSON lines",
        )
        grown = max(0, most[0] - before) / 2**20
        yield MEMORY.figure(
            NAME,
            "… by how much the service grew meanwhile",
            value=grown,
            measured=f"{grown:.1f} MiB",
            floor=f"{before / 2**20:.0f} MiB before",
        )
        yield verified(exported, head, rows)


def export(running: Service, secret: str, path: str, into: Path) -> str:
    """Export a log into a file, and return its head as the service names it.

    Raises:
        RuntimeError: it was refused.
    """
    with closing(http.client.HTTPConnection(LOOPBACK, running.port, timeout=30)) as connection:
        connection.request("GET", path, headers={"Authorization": f"Bearer {secret}"})
        reply = connection.getresponse()
        if reply.status != 200:
            raise RuntimeError(f"{reply.status}: {reply.read()!r:.300}")
        with into.open("wb") as file:
            while data := reply.read1(CHUNK):
                file.write(data)
        return str(reply.headers["Haltline-Head"])


@contextmanager
def peak(rss: Callable[[], int]) -> Iterator[list[int]]:
    """Watch the memory of a process; the one number in the list is the most that was seen, bytes."""
    most = [0]
    over = threading.Event()

    def watch() -> None:
        # A process that has ended meanwhile holds nothing any more.
        with suppress(psutil.Error):
            while not over.wait(0.02):
                most[0] = max(most[0], rss())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        over.set()
        watcher.join()


def verified(exported: Path, head: str, rows: int) -> Figure:
    """Verify an export with the command line, against its head, and return the row.

    Raises:
        RuntimeError: it was found broken.
    """
    begun = time.perf_counter()
    command = [program("haltline"), "verify", str(exported), "--head", head]
    # Watched, because its rusage begins with the memory of the process that forked it.
    with (
        psutil.Popen(command, stdout=subprocess.DEVNULL) as verify,
        peak(lambda: int(verify.memory_info().rss)) as most,
    ):
        status = verify.wait()
    took = time.perf_counter() - begun
    if status != 0:
        raise RuntimeError(f"haltline verify ended with {status}")
    return VERIFY.figure(
        NAME,
        f"`haltline verify` of {rows:,} entries",
        value=took * FULL / rows,
        measured=f"{shown(took)}, {most[0] / 2**20:.0f} MiB at most",
        floor=f"SHA-256 of the same lines alone {shown(hashed(exported))}",
    )


def hashed(exported: Path) -> float:
    """Return how long it takes to hash every line of a file, seconds."""
    begun = time.perf_counter()
    with exported.open("rb") as lines:
        for line in lines:
            hashlib.sha256(line).hexdigest()
    return time.perf_counter() - begun


if __name__ == "__main__":
    sys.exit(alone(measure))
