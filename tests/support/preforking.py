"""Servers and pools that fork after an import armed a run: the ways in which agents are really deployed.

``python -m tests.support.preforking pool`` runs a process pool and prints one JSON list, one object a task. As the
module of gunicorn's ``--preload`` it is a WSGI application, whose import arms a run. The address and token come from
the environment.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from haltline import Halt, KillSwitch

switch = KillSwitch()
run = switch.run("r-1", timeout=10)
run.arm()
armed_by = os.getpid()


def reason() -> str:
    """Return what a check says in this process."""
    try:
        run.check("send_email")
    except Halt as halt:
        return halt.verdict.reason.value
    return "go"


def told() -> dict[str, Any]:
    """Return what this process sees: at once, and once it has asked for a lease of its own."""
    at_once = reason()
    began = time.monotonic()
    run.wait(timeout=10)
    return {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "armed_by": armed_by,
        "at_once": at_once,
        "after": reason(),
        "took": time.monotonic() - began,
    }


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer what this worker sees; ``/now`` without waiting for anything."""
    seen = {"pid": os.getpid(), "after": reason()} if environ["PATH_INFO"] == "/now" else told()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(seen).encode()]


def slowly(_number: int) -> dict[str, Any]:
    """Do one task, slowly enough that every process of the pool has some."""
    seen = told()
    time.sleep(0.1)
    return seen


def main() -> None:
    """Run a pool of forked processes, while this process checks."""
    stopped = 0
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("fork")) as pool:
        tasks = [pool.submit(slowly, number) for number in range(12)]
        while not all(task.done() for task in tasks):
            stopped += reason() != "go"
            time.sleep(0.002)
        seen = [task.result() for task in tasks]
    sys.stdout.write(json.dumps([{**each, "parent_stopped": stopped} for each in seen]))
    switch.close()


if __name__ == "__main__":
    main()
