"""How killed runs ended, told by real workers to a real service and read from it."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from haltline import KillSwitch, RunStopped
from tests.e2e.server import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a server that all tests share."""
    with Server(tmp_path_factory.mktemp("outcomes")) as started:
        yield started


@pytest.fixture(scope="module")
def token(server: Server) -> str:
    """Return a worker's token."""
    made = server.call("POST", "/v1/tokens", {"subject": "mailer", "role": "worker"}).members["token"]
    assert isinstance(made, str)
    return made


def listed(server: Server, query: str) -> list[dict[str, Any]]:
    """Return the outcomes that a query names, once there are some, or after 15 s."""
    end = time.monotonic() + 15
    while True:
        reply = server.call("GET", f"/v1/outcomes?{query}")
        assert reply.status == 200, reply.body
        found: list[dict[str, Any]] = reply.members["outcomes"]
        if found or time.monotonic() > end:
            return found
        time.sleep(0.05)


def test_what_became_of_a_fan_out(server: Server, token: str) -> None:
    """One kill, many runs below it: each is told once, with the kill's position and what became of its cleanups."""
    with KillSwitch(f"http://127.0.0.1:{server.port}", token=token, worker="mailer-1") as switch:
        run = switch.run("r-1")
        flips: list[int] = []

        def broken() -> None:
            raise ConnectionError(f"refused {token}\nänd more")

        def work() -> None:
            children = [run.child(f"c-{number}") for number in range(20)]
            for child in children:
                child.__enter__()
                child.on_cleanup(lambda: None, name="close")
            run.on_cleanup(broken, name="release\nthe sandbox")
            flips.append(server.kill("run:r-1").members["seq"])
            while switch.position.seq < flips[0]:
                time.sleep(0.005)
            for child in reversed(children):
                child.__exit__(None, None, None)
            run.check()

        assert isinstance(run.carry_out(work), RunStopped)
    found = {each["run"]: each for each in listed(server, f"flip={flips[0]}")}
    assert set(found) == {"r-1", *(f"r-1.c-{number}" for number in range(20))}
    assert {each["worker"] for each in found.values()} == {"mailer-1"}
    assert {each["ended"] for each in found.values()} == {"cleanup"}
    (cleanup,) = found["r-1"]["cleanups"]
    assert (cleanup["name"], cleanup["outcome"]) == ("release the sandbox", "failed")
    assert cleanup["detail"] == "ConnectionError: refused hlt_... änd more"
    assert [each["outcome"] for each in found["r-1.c-0"]["cleanups"]] == ["done"]


HANGING = textwrap.dedent(
    """
    import sys, time
    from haltline import KillSwitch
    switch = KillSwitch(sys.argv[1], token=sys.stdin.readline().strip(), grace=0.5, after_grace="kill")
    with switch.run("r-2") as run:
        run.on_cleanup(lambda: None, name="close")
        print("ready", flush=True)
        while True:
            time.sleep(60)
    """
)


def test_what_became_of_a_process_that_had_to_be_ended(server: Server, token: str) -> None:
    """It is told before the process is ended."""
    with subprocess.Popen(
        [sys.executable, "-c", HANGING, f"http://127.0.0.1:{server.port}"],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{token}\n")
            process.stdin.flush()
            assert process.stdout.readline() == "ready\n"
            flip = server.kill("run:r-2").members["seq"]
            assert process.wait(30) == -9
        finally:
            process.kill()
    (outcome,) = listed(server, "run=r-2")
    assert (outcome["flip"], outcome["ended"]) == (flip, "killed")
    assert [(each["name"], each["outcome"]) for each in outcome["cleanups"]] == [("close", "done")]


def test_an_outcome_is_told_once_although_its_answer_was_lost(server: Server, token: str) -> None:
    """Telling it again changes nothing."""
    flip = server.kill("run:r-3").members["seq"]
    told = {"run": "r-3", "flip": flip, "worker": "w", "instance": "i", "at": "2026-11-21T19:00:00.000000Z",
            "ended": "cleanup", "cleanups": []}  # fmt: skip
    for ended in ("cleanup", "killed"):
        reply = server.call(
            "POST",
            "/v1/outcomes",
            {"outcomes": [{**told, "ended": ended}]},
            headers={"Authorization": f"Bearer {token}"},
        )
        assert reply.status == 200, json.dumps(reply.members)
    (outcome,) = listed(server, f"flip={flip}")
    assert outcome["ended"] == "cleanup"
