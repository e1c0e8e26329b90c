"""Leases renewed per second of one core of the service: real processes, real sockets, one gevent worker."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from bench.clients import ask
from bench.command import alone
from bench.figure import Bound, Effort, Figure, noted
from bench.measure import compared
from bench.service import ROOT, Service, folder, program, served, service, token
from tests.support.ports import LOOPBACK, free_port

NAME: Final = "renewals"
PROCESSES: Final = 2
WORKERS: Final = 32
"""Workers in each of them."""

TURNS: Final = 4

# 2.5k and 4k a core, where a trivial reply of Flask on gevent was 6.1k: as shares, because absolute figures drift.
BOUND: Final = Bound(must=0.41, goal=0.66, unit="x trivial", least=True)


@dataclass(frozen=True, slots=True)
class Load:
    """What a load came to.

    Attributes:
        per_core: leases per second of the service's processor time.
        per_second: leases per second, while the load itself takes its share of the same cores.
        refused: the share of all requests for which the service had no place.
    """

    per_core: float
    per_second: float
    refused: float


def measure(effort: Effort) -> Iterator[Figure]:
    """Measure renewals in turns with trivial replies."""
    with folder() as place:
        url = f"sqlite:///{place / 'haltline.db'}"
        worker = token(url, "worker")
        port = free_port()
        with service(url) as haltline, served(trivial(port), port) as flask:
            first = ask(haltline.port, worker)
            known = {
                "namespace": first["namespace"],
                "epoch": first["epoch"],
                "seq": first["seq"],
                "hash": first["hash"],
            }
            seconds = effort.seconds / TURNS
            trivials: list[Load] = []
            renewals: list[Load] = []
            for _ in range(TURNS):
                trivials.append(loaded(flask, worker, known, seconds))
                renewals.append(loaded(haltline, worker, known, seconds))
            grown = haltline.rss()
    result = compared([1 / each.per_core for each in trivials], [1 / each.per_core for each in renewals])
    yield BOUND.figure(
        NAME,
        f"one-frame renewals per second of one core, {PROCESSES * WORKERS} workers polling flat out, SQLite",
        value=1 / result.ratio,
        measured=f"{1 / result.taken_s:,.0f}/s a core, {1 / result.ratio:.2f}x trivial",
        floor=f"trivial Flask reply, served alike: {1 / result.base_s:,.0f}/s a core",
    )
    yield noted(
        NAME,
        "… per second, while the workers use the same cores",
        measured=f"{max(each.per_second for each in renewals):,.0f}/s, {max(each.refused for each in renewals):.1%} "
        f"refused as busy; the service holds {grown / 2**20:.0f} MiB",
        floor=f"trivial {max(each.per_second for each in trivials):,.0f}/s",
    )


def trivial(port: int) -> list[str]:
    """Return the command that serves trivial replies as the service serves its own."""
    gunicorn = [program("gunicorn"), "--worker-class", "gevent", "--workers", "1", "--worker-connections", "1000"]
    return [
        *gunicorn,
        "--no-control-socket",
        "--log-level",
        "error",
        "--bind",
        f"{LOOPBACK}:{port}",
        "bench.trivial:app",
    ]


def loaded(service: Service, secret: str, known: dict[str, Any], seconds: float) -> Load:
    """Renew from all workers for some seconds, and return what that came to."""
    told = {"port": service.port, "secret": secret, "workers": WORKERS, "seconds": seconds, "known": known}
    before = service.cpu_s()
    clients = [
        subprocess.Popen(
            [sys.executable, "-m", "bench.clients"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(PROCESSES)
    ]
    for client in clients:
        assert client.stdin is not None  # noqa: S101 - a pipe was asked for
        client.stdin.write(json.dumps(told).encode("ascii"))
        client.stdin.close()  # only now do they begin: all at the same time
    ended = [client.stdout.read() for client in clients if client.stdout is not None]
    if any(client.wait() for client in clients):
        raise RuntimeError("a load generator failed; what it said stands above")
    used = service.cpu_s() - before
    results = [json.loads(each) for each in ended]
    granted, refused = (sum(each[name] for each in results) for name in ("granted", "refused"))
    return Load(granted / used, granted / max(each["seconds"] for each in results), refused / (granted + refused))


if __name__ == "__main__":
    sys.exit(alone(measure))
