"""After the grace: a killed run whose block is not left is told of, or its process group is ended."""

# ruff: noqa: PT012 - the kill comes inside the block, and what surfaces is what leaves it

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from haltline import ConfigurationError, Killed, KillSwitch
from haltline.flips import InFlight
from haltline.testing import FakeService
from haltline.watchdog import Grace
from tests.support.lines import Line, connected

GRACE_S = 0.2


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition of another thread holds; fail after 10 s."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it did not happen within 10 s"
        time.sleep(0.005)


def watchdogs() -> list[threading.Thread]:
    """Return the threads that wait for blocks to be left."""
    return [thread for thread in threading.enumerate() if thread.name == "haltline-watchdog"]


@pytest.fixture
def service() -> FakeService:
    """Return a service."""
    return FakeService(ttl_ms=5000)


@pytest.fixture
def switch(service: FakeService) -> Iterator[KillSwitch]:
    """Return a switch whose runs have a short grace."""
    with connected(Line(service), grace=GRACE_S) as made:
        yield made


def heard(switch: KillSwitch, service: FakeService) -> Callable[[], bool]:
    """Return whether the switch knows what the service knows."""
    return lambda: switch.position == service.position


def test_a_block_that_is_not_left_is_said(
    switch: KillSwitch, service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    """By default no more than that happens: the run goes nowhere, and cleans up when it is left."""
    seen: list[str] = []
    with switch.run("r-1") as run:
        run.on_cleanup(lambda: seen.append("cleanup"))
        service.kill("run:r-1")
        until(lambda: "run r-1 has not left its block" in caplog.text)
        assert seen == []
    assert seen == ["cleanup"]
    until(lambda: watchdogs() == [])


def test_a_block_that_is_left_is_nobodys_business(
    switch: KillSwitch, service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    """Within the grace nothing is said, and no thread waits on."""
    with pytest.raises(Killed), switch.run("r-1") as run:
        service.kill("run:r-1")
        until(heard(switch, service))
        run.check()
    until(lambda: watchdogs() == [])
    time.sleep(2 * GRACE_S)
    assert "has not left its block" not in caplog.text


@pytest.mark.parametrize(("in_flight", "said"), [("abort", True), ("finish", False)])
def test_what_may_finish_has_the_time_it_takes(
    switch: KillSwitch, service: FakeService, caplog: pytest.LogCaptureFixture, in_flight: InFlight, *, said: bool
) -> None:
    """A kill that lets calls finish begins no grace."""
    with switch.run("r-1"):
        service.kill("run:r-1", in_flight=in_flight)
        until(heard(switch, service))
        time.sleep(3 * GRACE_S)
        assert ("has not left its block" in caplog.text) is said


@pytest.mark.parametrize(("refusals", "said"), [(3, False), (4, True)])
def test_a_halt_that_is_swallowed_begins_the_grace(
    switch: KillSwitch, service: FakeService, caplog: pytest.LogCaptureFixture, refusals: int, *, said: bool
) -> None:
    """Refused three times after its first Halt, a run is one that does not heed."""
    with switch.run("r-1") as run:
        service.kill("run:r-1", in_flight="finish")
        until(heard(switch, service))
        for _ in range(refusals):
            with pytest.raises(Killed):
                run.check()
        time.sleep(3 * GRACE_S)
        assert ("has not left its block" in caplog.text) is said


def test_a_kill_before_the_block_was_watched(
    switch: KillSwitch, service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    """A run that was armed, killed, and entered only then has its grace, too."""
    run = switch.run("r-1")
    run.arm()
    service.kill("run:r-1")
    until(heard(switch, service))
    with pytest.raises(Killed), run:
        pass
    other = switch.run("r-2")
    with other:
        service.kill("run:r-2")
        until(lambda: "run r-2 has not left its block" in caplog.text)
    assert "run r-1 has not" not in caplog.text


@pytest.mark.parametrize(("seconds", "after"), [(0, "nothing"), (-1, "nothing"), (3601, "kill"), (1, "explode")])
def test_settings_that_cannot_work(seconds: float, after: Any) -> None:
    """They are refused when the switch is made."""
    with pytest.raises(ConfigurationError, match="grace"):
        Grace(seconds, after)


AGENT = textwrap.dedent(
    """
    import os, subprocess, sys, time
    from haltline import Killed
    from haltline.testing import FakeService
    from tests.support.lines import Line, connected

    class Told(Line):
        def post(self, path, body, **bounds):
            if path == "/v1/outcomes":
                say("outcomes " + body.decode())
            return super().post(path, body, **bounds)

    def say(text):
        os.write(1, (text + "\\n").encode())

    def swallow():
        while True:
            try:
                run.check()
            except Killed:
                pass
            time.sleep(0.01)

    service = FakeService(ttl_ms=5000)
    switch = connected(Told(service), grace=0.3, after_grace="kill")
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    children = [subprocess.Popen(sleep), subprocess.Popen(sleep, start_new_session=True)]
    say(" ".join(str(child.pid) for child in children))
    with switch.run("r-0") as other, switch.run("r-1") as run:
        other.on_cleanup(lambda: say("the other's"))
        run.on_cleanup(lambda: say("cleanup"), name="say")
        run.on_cleanup(lambda: time.sleep(60), timeout=0.2, name="hang")
        service.kill("run:r-1", in_flight=sys.argv[1])
        (swallow if sys.argv[2] == "swallow" else lambda: time.sleep(60))()
    """
)


@dataclass(frozen=True)
class Ended:
    """How an agent ended.

    Attributes:
        status: its exit status.
        lines: what it printed.
        seconds: how long it took.
    """

    status: int
    lines: list[str]
    seconds: float


def agent(*arguments: str) -> Ended:
    """Run the agent in a process group of its own."""
    begun = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-c", AGENT, *arguments],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, _ = process.communicate(timeout=40)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return Ended(process.returncode, out.splitlines(), time.monotonic() - begun)


@pytest.mark.parametrize(("in_flight", "how"), [("abort", "sleep"), ("abort", "swallow"), ("finish", "swallow")])
def test_the_process_group_is_ended(in_flight: str, how: str) -> None:
    """Cleaned up behind and told of, it is ended by SIGKILL, its children too; no other run is cleaned up."""
    ended = agent(in_flight, how)
    assert ended.status == -signal.SIGKILL
    assert ended.seconds < 30
    children, *rest = ended.lines
    assert rest[0] == "cleanup"
    assert "the other's" not in rest
    (told,) = [json.loads(line.removeprefix("outcomes "))["outcomes"] for line in rest[1:]]
    ((outcome),) = told
    assert (outcome["run"], outcome["flip"], outcome["ended"]) == ("r-1", 2, "killed")
    assert [(each["name"], each["outcome"]) for each in outcome["cleanups"]] == [("hang", "timed_out"), ("say", "done")]
    for child in children.split():
        with pytest.raises(ProcessLookupError):
            ends(int(child))


def ends(pid: int) -> None:
    """Raise ProcessLookupError once a process has ended; a zombie that nobody reaps has, too."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        state = Path(f"/proc/{pid}/stat")
        if state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z":
            raise ProcessLookupError
        os.kill(pid, 0)
        time.sleep(0.01)


def test_a_log_handler_that_raises() -> None:
    """It keeps neither the watchdog from its work nor a cleanup from being the next one."""
    seen: list[str] = []

    def broken() -> None:
        raise ValueError("a defect")

    service = FakeService(ttl_ms=5000)

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError(record.getMessage())

    handler = Broken()
    logging.getLogger("haltline").addHandler(handler)
    try:
        with connected(Line(service), grace=GRACE_S) as switch, switch.run("r-1") as run:
            run.on_cleanup(lambda: seen.append("next"))
            run.on_cleanup(broken)
            service.kill("run:r-1")
            until(lambda: watchdogs() != [])
            until(lambda: watchdogs() == [])
    finally:
        logging.getLogger("haltline").removeHandler(handler)
    assert seen == ["next"]
    assert [each.outcome for each in run.cleanups] == ["failed", "done"]
