"""Clients of an Unleash server in one process, and when each of them sees that a flag was switched.

Run by bench.unleash in the peers' environment. The clients poll at one interval and start a share of it apart, so that
a single switch is seen at every phase of it. Told what to look for, it says when each client had seen it, by the
monotonic clock that all processes of a machine share.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from bench.crowd import say

LOOK_S: Final = 0.0005


def started(given: dict[str, Any], folder: Path) -> list[Any]:
    """Start so many clients, a share of their interval apart, as their documentation says."""
    module: Any = import_module("UnleashClient")
    cache: Any = import_module("UnleashClient.cache")
    allowed: Any = import_module("UnleashClient.utils").InstanceAllowType.SILENTLY_ALLOW
    clients: list[Any] = []
    for number in range(given["clients"]):
        name = f"haltline-bench-{number}"
        client = module.UnleashClient(
            given["url"],
            name,
            refresh_interval=given["interval_s"],
            disable_metrics=True,
            disable_registration=True,
            custom_headers={"Authorization": given["secret"]},
            cache=cache.FileCache(name, directory=str(folder / str(number))),
            multiple_instance_mode=allowed,
        )
        client.initialize_client()
        clients.append(client)
        if number + 1 < given["clients"]:
            time.sleep(given["interval_s"] / given["clients"])
    return clients


def seen(clients: list[Any], flag: str, *, enabled: bool) -> list[int]:
    """Look until every client says that the flag is switched, and return when each did, nanoseconds."""
    times: dict[int, int] = {}
    while len(times) < len(clients):
        for number, client in enumerate(clients):
            if number not in times and client.is_enabled(flag) is enabled:
                times[number] = time.monotonic_ns()
        time.sleep(LOOK_S)
    return list(times.values())


def main() -> int:
    """Work until standard input ends."""
    logging.disable(logging.CRITICAL)
    given = json.loads(sys.stdin.readline())
    with tempfile.TemporaryDirectory() as folder:
        clients = started(given, Path(folder))
        seen(clients, given["flag"], enabled=given["enabled"])
        say({"ready": len(clients)})
        for line in sys.stdin:
            say({"seen": seen(clients, given["flag"], enabled=json.loads(line)["enabled"])})
        for client in clients:
            client.destroy()
    return 0


if __name__ == "__main__":
    sys.exit(main())
