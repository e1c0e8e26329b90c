"""``haltline exec`` when it is asked to end, is killed itself, is pid 1, or loses the service; and what cleans up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.e2e.server import Server
from tests.support.ports import LOOPBACK, free_port
from tests.support.supervised import TICK, Supervised, marked, supervised, wait_for

TREE: Final = f"""
sh -c '{TICK.format(who="child")}' &
(setsid sh -c '{TICK.format(who="daemon")}' &)
{TICK.format(who="main")}
"""

EVERYBODY: Final = ("main", "child", "daemon")

CLEANUP: Final = 'echo "cleaned-$HALTLINE_ENDED-$HALTLINE_EXIT" >> "$SINK"'


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service, shared by this module: every test has a run of its own."""
    with Server(tmp_path_factory.mktemp("service"), {"HALTLINE_TTL_MS": "500"}) as server:
        yield server


@pytest.fixture(scope="module")
def worker(service: Server) -> str:
    """A worker token."""
    return str(service.call("POST", "/v1/tokens", {"subject": "agent", "role": "worker"}).members["token"])


@pytest.fixture(scope="module")
def url(service: Server) -> str:
    """The service's address."""
    return f"http://{LOOPBACK}:{service.port}"


def cleaned(running: Supervised) -> list[str]:
    """Return what the cleanup command wrote, each time that it ran."""
    return [effect for effect in running.effects() if effect.startswith("cleaned")]


def killed(url: str, worker: str, folder: Path, number: int, *, of: str) -> Supervised:
    """Start a tree and kill its supervisor or its guard; return what was started, once all of it is gone."""
    options = ("--run", f"y-{of}-{number}", "--grace", "500ms", "--cleanup", CLEANUP)
    with supervised(folder / f"{of}-{number}", url, worker, "sh", "-c", TREE, options=options) as running:
        running.wait_for(*EVERYBODY)
        guards = running.guards()
        assert [guard.name() for guard in guards] == ["haltline-guard"]
        (guards[0] if of == "guard" else psutil.Process(running.process.pid)).send_signal(signal.SIGKILL)
        running.end()
        wait_for(lambda: not [each for each in marked(running.mark) if each.pid != running.process.pid])
        assert running.is_still()
        return running


@pytest.mark.parametrize("number", range(3))
def test_a_killed_supervisor_leaves_nothing(url: str, worker: str, tmp_path: Path, number: int) -> None:
    """When the supervisor is killed by SIGKILL, its guard ends everything, and cleans up once."""
    running = killed(url, worker, tmp_path, number, of="supervisor")
    assert [each.rpartition("-")[0] for each in cleaned(running)] == ["cleaned-orphaned"]


@pytest.mark.parametrize("number", range(3))
def test_a_killed_guard_leaves_nothing(url: str, worker: str, tmp_path: Path, number: int) -> None:
    """When the guard is killed by SIGKILL, the supervisor ends everything, cleans up once, and says so."""
    running = killed(url, worker, tmp_path, number, of="guard")
    assert running.process.returncode == 70
    assert cleaned(running) == ["cleaned-orphaned-137"]
    assert running.told["outcome"] == "broken"


def test_a_killed_guard_takes_the_command_with_it(url: str, worker: str, tmp_path: Path) -> None:
    """The kernel kills the command with its guard, also where the supervisor can do nothing any more."""
    options = ("--run", "y-both")
    with supervised(tmp_path / "both", url, worker, "sh", "-c", TICK.format(who="main"), options=options) as running:
        running.wait_for("main")
        (guard,) = running.guards()
        running.process.send_signal(signal.SIGSTOP)
        guard.send_signal(signal.SIGKILL)
        wait_for(running.is_still)
        running.process.send_signal(signal.SIGKILL)
        running.end()
        wait_for(lambda: marked(running.mark) == [])


def test_killed_while_it_stops_a_stubborn_command(service: Server, url: str, worker: str, tmp_path: Path) -> None:
    """A supervisor that is killed within the grace leaves nothing either, and the cleanup says that it was a kill."""
    stubborn = f"trap '' TERM; {TICK.format(who='main')}"
    options = ("--run", "y-within", "--grace", "2s", "--cleanup", CLEANUP)
    with supervised(tmp_path / "within", url, worker, "sh", "-c", stubborn, options=options) as running:
        running.wait_for("main")
        service.kill("run:y-within")
        wait_for(lambda: "stopping the command" in running.err)
        running.process.send_signal(signal.SIGKILL)
        running.end()
        wait_for(lambda: cleaned(running))
        assert cleaned(running) == ["cleaned-killed-137"]
        wait_for(lambda: not [each for each in marked(running.mark) if each.pid != running.process.pid])
        assert running.is_still()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_asked_to_end(url: str, worker: str, tmp_path: Path, number: signal.Signals) -> None:
    """A signal that asks the supervisor to end is passed on to the whole group; the exit code is the command's."""
    trap = number.name.removeprefix("SIG")
    got = f"""trap 'echo WHO-got >> "$SINK"; exit 7' {trap}; echo WHO >> "$SINK"; while :; do sleep 0.02; done"""
    (tmp_path / "child").write_text(got.replace("WHO", "child"))
    # In Python: a shell has what it starts in the background ignore SIGINT.
    (tmp_path / "main.py").write_text(
        "import os, signal, subprocess, sys\n"
        "child = subprocess.Popen(['sh', sys.argv[1]])\n"
        "signal.signal(int(sys.argv[2]), lambda *_: sys.exit(child.wait()))\n"
        "while True: signal.pause()\n"
    )
    work = (sys.executable, str(tmp_path / "main.py"), str(tmp_path / "child"), str(int(number)))
    with supervised(tmp_path / "asked", url, worker, *work, options=("--run", "y-asked")) as running:
        running.wait_for("child")
        running.process.send_signal(number)
        assert running.end() == 7
        assert running.effects() == ["child", "child-got"]
        assert running.told["outcome"] == "signalled"


def test_asked_to_end_and_ignored(url: str, worker: str, tmp_path: Path) -> None:
    """A command that does not end when it is asked to is killed after the grace."""
    stubborn = f"trap '' TERM; {TICK.format(who='main')}"
    options = ("--run", "y-deaf", "--grace", "500ms", "--cleanup", CLEANUP)
    with supervised(tmp_path / "deaf", url, worker, "sh", "-c", stubborn, options=options) as running:
        running.wait_for("main")
        running.process.send_signal(signal.SIGTERM)
        assert running.end() == 137
        assert running.told["escalated"] >= 1
        assert cleaned(running) == ["cleaned-signalled-137"]
        assert running.below() == []


def test_asked_to_end_before_it_has_begun(worker: str, tmp_path: Path) -> None:
    """Who is asked to end while it waits for a lease ends, and starts nothing."""
    nowhere = f"http://{LOOPBACK}:{free_port()}"
    options = ("--run", "y-early", "--timeout", "300")
    with supervised(tmp_path / "early", nowhere, worker, "sh", "-c", 'echo ran >> "$SINK"', options=options) as running:
        wait_for(running.guards)
        running.process.send_signal(signal.SIGTERM)
        assert running.end() == 143
        assert running.effects() == []
        assert running.told["outcome"] == "not_started"


def test_children_from_before(url: str, worker: str, tmp_path: Path) -> None:
    """What the shell that became this supervisor had started is nobody's to end."""
    before = ("sh", "-c", 'sleep 300 & echo $! > stranger; exec "$@"', "sh")
    with supervised(tmp_path / "before", url, worker, "true", options=("--run", "y-before"), before=before) as running:
        assert running.end() == 0
        stranger = int((running.folder / "stranger").read_text("utf-8"))
        assert [each.pid for each in marked(running.mark)] == [stranger]


def test_other_signals_are_passed_on(url: str, worker: str, tmp_path: Path) -> None:
    """SIGUSR1 reaches the command, and ends nothing."""
    work = 'trap \'echo usr1 >> "$SINK"; exit 0\' USR1; echo begun >> "$SINK"; while :; do sleep 0.02; done'
    with supervised(tmp_path / "usr1", url, worker, "sh", "-c", work, options=("--run", "y-usr1")) as running:
        running.wait_for("begun")
        running.process.send_signal(signal.SIGUSR1)
        assert running.end() == 0
        assert running.effects() == ["begun", "usr1"]


@pytest.mark.parametrize(("script", "ended"), [("exit 3", "exited-3"), ("kill -9 $$", "exited-137")])
def test_cleanup_after_a_natural_end(url: str, worker: str, tmp_path: Path, script: str, ended: str) -> None:
    """The cleanup command runs once when the command ended by itself, and does not change the exit code."""
    options = ("--run", "y-clean", "--cleanup", CLEANUP)
    with supervised(tmp_path / "clean", url, worker, "sh", "-c", script, options=options) as running:
        assert running.end() == (3 if script == "exit 3" else 137)
        assert cleaned(running) == [f"cleaned-{ended}"]
        assert running.told["cleanup"]["outcome"] == "done"


def test_cleanup_after_a_kill(service: Server, url: str, worker: str, tmp_path: Path) -> None:
    """After SIGKILL, too, the cleanup command runs once, when nothing of the command is left to disturb it."""
    stubborn = f"trap '' TERM; {TICK.format(who='main')}"
    options = ("--run", "y-dirty", "--grace", "300ms", "--cleanup", f'{CLEANUP}; echo "flip-$HALTLINE_FLIP" >> "$SINK"')
    with supervised(tmp_path / "dirty", url, worker, "sh", "-c", stubborn, options=options) as running:
        running.wait_for("main")
        seq = service.kill("run:y-dirty").members["seq"]
        assert running.end() == 75
        assert running.effects()[-2:] == ["cleaned-killed-137", f"flip-{seq}"]
        assert len(cleaned(running)) == 1


def test_a_cleanup_that_hangs_is_ended(url: str, worker: str, tmp_path: Path) -> None:
    """A cleanup command has a time-out of its own, and leaves nothing either."""
    hang = f"{CLEANUP}; (setsid sh -c '{TICK.format(who='stray')}' &); sleep 300"
    options = ("--run", "y-hang", "--cleanup", hang, "--cleanup-timeout", "500ms")
    with supervised(tmp_path / "hang", url, worker, "true", options=options) as running:
        assert running.end() == 0
        assert running.told["cleanup"]["outcome"] == "timed_out"
        assert 0.5 <= running.told["cleanup"]["seconds"] < 15
        assert "the cleanup command timed_out" in running.err
        assert running.below() == []
        assert running.is_still()


def test_without_the_service(worker: str, tmp_path: Path) -> None:
    """While the service is unreachable a command goes on until a kill is heard of; a strict one ends with the lease."""
    folder = tmp_path / "frozen"
    folder.mkdir()
    with Server(folder, {"HALTLINE_TTL_MS": "500"}) as server:
        token = str(server.call("POST", "/v1/tokens", {"subject": "agent", "role": "worker"}).members["token"])
        where = f"http://{LOOPBACK}:{server.port}"
        work = ("sh", "-c", TICK.format(who="main"))
        strict = ("--run", "y-strict", "--strict", "--grace", "1s", "--cleanup", CLEANUP)
        with (
            supervised(tmp_path / "lax", where, token, *work, options=("--run", "y-lax")) as lax,
            supervised(tmp_path / "strict", where, token, *work, options=strict) as running,
        ):
            lax.wait_for("main")
            running.wait_for("main")
            time.sleep(
                1.5
            )  # a strict command goes on with the lease, and not only until its first one would have ended
            assert (lax.process.poll(), running.process.poll()) == (None, None), running.err
            serving = [server.process.pid, server.worker.pid]
            for pid in serving:
                os.kill(pid, signal.SIGSTOP)
            try:
                assert running.end() == 69, running.err
                assert cleaned(running) == ["cleaned-lapsed-143"]
                assert running.told["outcome"] == "unverified"
                wait_for(lambda: "the command goes on" in lax.err)
                before = len(lax.effects())
                wait_for(lambda: len(lax.effects()) > before)
            finally:
                for pid in serving:
                    os.kill(pid, signal.SIGCONT)
            server.wait_ready()
            server.kill("run:y-lax")
            assert lax.end() == 75
            assert lax.is_still()


def test_strict_holds_while_the_supervisor_is_stopped(url: str, worker: str, tmp_path: Path) -> None:
    """A strict command ends with the lease also where the supervisor itself does not run: its guard sees to that."""
    options = ("--run", "y-asleep", "--strict")
    with supervised(tmp_path / "asleep", url, worker, "sh", "-c", TREE, options=options) as running:
        running.wait_for(*EVERYBODY)
        running.process.send_signal(signal.SIGSTOP)
        try:
            wait_for(lambda: not running.below())
            assert running.is_still()
        finally:
            running.process.send_signal(signal.SIGCONT)
        assert running.end() == 69


def can_unshare() -> bool:
    """Return whether this user may make a container's namespace of processes."""
    words = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
    with suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(words, capture_output=True, timeout=10, check=False).returncode == 0
    return False


@pytest.mark.skipif(not can_unshare(), reason="unshare --pid --mount-proc is not permitted here")
class TestPidOne:
    BEFORE: Final = ("unshare", "--pid", "--fork", "--mount-proc")

    def test_it_reaps(self, url: str, worker: str, tmp_path: Path) -> None:
        """As pid 1 it reaps what has lost its parent, while the command runs."""
        work = (
            "for i in 1 2 3 4 5 6 7 8 9 10; do (setsid sleep 0.05 &); done; sleep 1; "
            "cat /proc/1/comm; cat /proc/[0-9]*/stat | grep -c ') Z ' || true"
        )
        options = ("--run", "y-one")
        with supervised(
            tmp_path / "one", url, worker, "sh", "-c", work, options=options, before=self.BEFORE
        ) as running:
            assert running.end() == 0, running.err
            assert running.out.splitlines()[1:] == ["0"]

    def test_it_ends_when_asked_to(self, url: str, worker: str, tmp_path: Path) -> None:
        """As pid 1, to which an unhandled SIGTERM means nothing, it passes it on; a kill ends the container."""
        options = ("--run", "y-pod")
        with supervised(
            tmp_path / "pod", url, worker, "sh", "-c", TREE, options=options, before=self.BEFORE
        ) as running:
            running.wait_for(*EVERYBODY)
            (first,) = psutil.Process(running.process.pid).children()
            first.send_signal(signal.SIGTERM)
            assert running.end() == 143
            assert marked(running.mark) == []

    def test_a_kill_ends_the_container(self, service: Server, url: str, worker: str, tmp_path: Path) -> None:
        """As pid 1, a kill ends it with 75."""
        options = ("--run", "y-pod-killed", "--cleanup", CLEANUP)
        with supervised(
            tmp_path / "pod", url, worker, "sh", "-c", TREE, options=options, before=self.BEFORE
        ) as running:
            running.wait_for(*EVERYBODY)
            service.kill("run:y-pod-killed")
            assert running.end() == 75
            assert cleaned(running) == ["cleaned-killed-143"]
            assert marked(running.mark) == []


def test_the_outcome_is_told(service: Server, url: str, worker: str, tmp_path: Path) -> None:
    """The service is told how the run ended that a kill stopped, the cleanup included."""
    options = ("--run", "y-told", "--cleanup", "exit 9")
    with supervised(tmp_path / "told", url, worker, "sh", "-c", TICK.format(who="main"), options=options) as running:
        running.wait_for("main")
        seq = service.kill("run:y-told").members["seq"]
        assert running.end() == 75
    reply = service.call("GET", f"/v1/outcomes?flip={seq}")
    assert reply.status == 200, reply.body
    (outcome,) = json.loads(reply.body)["outcomes"]
    assert (outcome["run"], outcome["ended"]) == ("y-told", "cleanup")
    assert [(each["name"], each["outcome"], each["detail"]) for each in outcome["cleanups"]] == [
        ("cleanup", "failed", "exit status 9")
    ]
