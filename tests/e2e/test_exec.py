"""``haltline exec`` against a real service: what a kill ends, how it ends, and what is left: nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path
from typing import Final, Protocol

import pytest

from tests.e2e.server import Server
from tests.support.ports import LOOPBACK, free_port
from tests.support.supervised import TICK, Supervised, supervised, wait_for

_numbers: Final = count(1)

TREE: Final = f"""
sh -c '{TICK.format(who="child")}' &
setsid sh -c '{TICK.format(who="session")}' &
(setsid sh -c '{TICK.format(who="daemon")}' &)
{TICK.format(who="main")}
"""
"""A program with a child in the background, one in a session of its own, and one that is nobody's child any more."""

EVERYBODY: Final = ("main", "child", "session", "daemon")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service, shared by this module: every test has a run of its own."""
    with Server(tmp_path_factory.mktemp("service"), {"HALTLINE_TTL_MS": "500"}) as server:
        yield server


@pytest.fixture(scope="module")
def worker(service: Server) -> str:
    """A worker token."""
    return str(service.call("POST", "/v1/tokens", {"subject": "agent", "role": "worker"}).members["token"])


class Starts(Protocol):
    """Starts a command under a run."""

    def __call__(
        self, run: str, *command: str, options: tuple[str, ...] = (), before: tuple[str, ...] = (), **more: str
    ) -> AbstractContextManager[Supervised]:
        """Start it."""


@pytest.fixture
def start(service: Server, worker: str, tmp_path: Path) -> Starts:
    """Return what starts a command under a run of this service."""

    def starting(
        run: str, *command: str, options: tuple[str, ...] = (), before: tuple[str, ...] = (), **more: str
    ) -> AbstractContextManager[Supervised]:
        folder = tmp_path / f"exec-{next(_numbers)}"
        url = f"http://{LOOPBACK}:{service.port}"
        return supervised(folder, url, worker, *command, options=("--run", run, *options), before=before, **more)

    return starting


def test_a_kill_ends_the_whole_tree(service: Server, start: Starts) -> None:
    """A kill ends the program, its children and its daemons; the exit code is 75, and nothing has an effect after."""
    with start("x-tree", "sh", "-c", TREE) as running:
        running.wait_for(*EVERYBODY)
        assert service.kill("run:x-tree").status == 201
        assert running.end() == 75, running.err
        assert running.below() == []
        assert running.is_still()
        assert "run x-tree was stopped" in running.err
        told = running.told
        assert (told["ok"], told["outcome"], told["exit"], told["escalated"]) == (False, "stopped", 75, 0)
        flag = service.call("GET", "/v1/flags/run/x-tree").members
        assert told["flip"] == flag["holds"][0]["seq"]


def test_what_ignores_sigterm_is_killed(service: Server, start: Starts) -> None:
    """Who has not ended within the grace is killed, and counted; not before."""
    stubborn = f"trap '' TERM; sh -c '{TICK.format(who='child')}' & {TICK.format(who='main')}"
    with start("x-stubborn", "sh", "-c", stubborn, options=("--grace", "1500ms")) as running:
        running.wait_for("main", "child")
        service.kill("run:x-stubborn")
        wait_for(lambda: "stopping the command" in running.err)
        began = time.monotonic()
        assert running.end() == 75
        assert time.monotonic() - began >= 1.2
        assert running.told["escalated"] >= 2
        assert running.below() == []
        assert running.is_still()


def test_who_ends_within_the_grace_is_waited_for(service: Server, start: Starts) -> None:
    """A program that cleans up behind itself on SIGTERM has the time to, and so has a daemon that it has started."""
    polite = """trap 'sleep 0.5; echo WHO-clean >> "$SINK"; exit 0' TERM; echo WHO >> "$SINK"
        while :; do sleep 0.02; done"""
    daemon = polite.replace("WHO", "daemon").replace('"$SINK"', "$SINK").replace("'", '"')
    main = polite.replace("WHO", "main")
    with start("x-polite", "sh", "-c", f"(setsid sh -c '{daemon}' &); {main}") as running:
        running.wait_for("main", "daemon")
        service.kill("run:x-polite")
        assert running.end() == 75
        assert sorted(running.effects()[-2:]) == ["daemon-clean", "main-clean"]
        assert (running.told["escalated"], running.told["command_exit"]) == (0, 0)


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
)
def test_the_command_ends_by_itself(start: Starts, script: str, code: int) -> None:
    """The exit code is the command's, 128 + n for its death by signal n."""
    with start("x-own", "sh", "-c", f"echo said; {script}") as running:
        assert running.end() == code
        assert running.out == "said\n"
        assert running.told["outcome"] == "ended"
        assert running.told["flip"] is None


@pytest.mark.parametrize(("command", "code"), [("no-such-command-anywhere", 127), ("/etc/passwd", 126)])
def test_a_command_that_cannot_be_started(start: Starts, command: str, code: int) -> None:
    """As in a shell: 127 if there is no such command, 126 if it cannot be run; no cleanup, as nothing was begun."""
    with start("x-none", command, options=("--cleanup", 'echo cleaned >> "$SINK"')) as running:
        assert running.end() == code
        assert running.told["outcome"] == "not_started"
        assert running.effects() == []


def test_what_is_left_behind_is_ended(start: Starts) -> None:
    """What the command leaves behind when it ends by itself is ended, with the grace: nobody could stop it later."""
    polite = """trap "echo child-clean >> $SINK; exit 0" TERM; echo child >> "$SINK"; while :; do sleep 0.02; done"""
    left = f"""(setsid sh -c '{TICK.format(who="daemon")}' &); sh -c '{polite}' &
        while ! grep -q child "$SINK" || ! grep -q daemon "$SINK"; do sleep 0.05; done 2> /dev/null; exit 4"""
    with start("x-left", "sh", "-c", left) as running:
        assert running.end() == 4
        assert "child-clean" in running.effects()
        assert running.told["escalated"] == 0
        assert running.below() == []
        assert running.is_still()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--run", "x y"), "run id 'x y' is not valid"),
        (("--run", "x", "--grace", "soon"), "--grace 'soon': write it as"),
        (("--run", "x", "--cleanup-timeout", "8d"), "--cleanup-timeout '8d'"),
        ((), "no run: name it with --run"),
        (("--child", "tool"), "--child needs a run to be a child of"),
        (("--rnu", "x"), "No such option"),
    ],
)
def test_what_is_not_understood(
    service: Server, worker: str, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    """Ids, times and options that cannot be understood start nothing, and it is said which."""
    url = f"http://{LOOPBACK}:{service.port}"
    with supervised(tmp_path / "usage", url, worker, "sh", "-c", 'echo ran >> "$SINK"', options=options) as running:
        assert running.end() == 2
        assert said in running.err
        assert running.effects() == []


@pytest.mark.parametrize("given", ["malformed", "1/0123456789abcdef/1///a/a~"])
def test_a_malformed_run_in_the_environment(start: Starts, given: str) -> None:
    """A HALTLINE_RUN that is malformed, or a run above itself, starts nothing."""
    with start("x-carried", "sh", "-c", 'echo ran >> "$SINK"', HALTLINE_RUN=given) as running:
        assert running.end() == 2
        assert "carried run" in running.err
        assert running.effects() == []


def test_an_operators_token_starts_nothing(service: Server, tmp_path: Path) -> None:
    """A token that is no worker's gets no lease, and so is handed to no program."""
    token = str(service.call("POST", "/v1/tokens", {"subject": "alice", "role": "operator"}).members["token"])
    url = f"http://{LOOPBACK}:{service.port}"
    options = ("--run", "x-operator", "--timeout", "1")
    with supervised(tmp_path / "operator", url, token, "sh", "-c", 'echo ran >> "$SINK"', options=options) as running:
        assert running.end() == 69
        assert running.effects() == []


def test_not_started_without_a_lease(worker: str, tmp_path: Path) -> None:
    """Where no lease is to be had the command is not started, and the exit code is 69."""
    url = f"http://{LOOPBACK}:{free_port()}"
    options = ("--run", "x-none", "--timeout", "0.6")
    with supervised(tmp_path / "none", url, worker, "sh", "-c", 'echo ran >> "$SINK"', options=options) as running:
        assert running.end() == 69
        assert running.effects() == []
        assert running.told["outcome"] == "not_started"


def test_not_started_where_the_run_is_killed(service: Server, start: Starts) -> None:
    """Under a kill nothing is started anew, also under one that lets calls finish."""
    service.kill("run:x-dead", in_flight="finish")
    with start("x-dead", "sh", "-c", 'echo ran >> "$SINK"') as running:
        assert running.end() == 75
        assert running.effects() == []
        assert running.told["outcome"] == "stopped"


def test_what_may_finish_does(service: Server, start: Starts) -> None:
    """A kill that says finish lets the command end by itself, with its own exit code."""
    work = 'echo begun >> "$SINK"; while [ ! -e go ]; do sleep 0.05; done; echo done >> "$SINK"; exit 5'
    with start("x-finish", "sh", "-c", work) as running:
        running.wait_for("begun")
        service.kill("run:x-finish", in_flight="finish")
        wait_for(lambda: "its command may finish" in running.err)
        (running.folder / "go").touch()
        assert running.end() == 5
        assert running.effects() == ["begun", "done"]
        assert running.told["outcome"] == "ended"
        assert running.told["flip"] is not None


def test_finishing_may_be_bounded(service: Server, start: Starts) -> None:
    """--finish-waits ends a command that does not finish; a later kill that aborts ends it as well."""
    with start("x-late", "sh", "-c", TICK.format(who="main"), options=("--finish-waits", "300ms")) as running:
        running.wait_for("main")
        service.kill("run:x-late", in_flight="finish")
        assert running.end() == 75
        assert running.is_still()
    with start("x-later", "sh", "-c", TICK.format(who="main")) as running:
        running.wait_for("main")
        service.kill("run:x-later", in_flight="finish")
        wait_for(lambda: "its command may finish" in running.err)
        service.kill("run:x-later")
        assert running.end() == 75
        assert running.is_still()


def test_killed_through_its_tenant(service: Server, start: Starts) -> None:
    """The run's tenant and feature are on its path; a sibling goes on."""
    tenant = ("--tenant", "x-acme", "--feature", "x-mail")
    with (
        start("x-acme-1", "sh", "-c", TICK.format(who="main"), options=tenant) as running,
        start("x-other", "sh", "-c", TICK.format(who="main")) as other,
    ):
        running.wait_for("main")
        other.wait_for("main")
        service.kill("tenant:x-acme")
        assert running.end() == 75
        before = len(other.effects())
        wait_for(lambda: len(other.effects()) > before)
        assert other.process.poll() is None


def test_a_program_that_asks_itself(service: Server, worker: str, start: Starts, tmp_path: Path) -> None:
    """The command finds its run, the address and the token in its environment, and may join the run and check."""
    program = (
        "import os\n"
        "from haltline import KillSwitch\n"
        "with KillSwitch() as switch, switch.join(os.environ) as run:\n"
        "    run.check('send_email')\n"
        "    print(run.id, run.tenant)\n"
    )
    (tmp_path / "token").write_text(worker, encoding="utf-8")
    (tmp_path / "token").chmod(0o600)
    options = ("--tenant", "acme", "--url", f"http://{LOOPBACK}:{service.port}", "--token-file", f"{tmp_path}/token")
    command = ("sh", "-c", f'"$PYTHON" -c "{program}"')
    with start("x-joins", *command, options=options, HALTLINE_TOKEN="", HALTLINE_URL="") as running:
        assert running.end() == 0, running.err
        assert running.out == "x-joins acme\n"


def test_runs_below_runs(service: Server, start: Starts) -> None:
    """A nested ``haltline exec`` is the same run or a child of it, never another run; one kill ends all."""
    inner = (
        'haltline exec -- sh -c \'echo "${HALTLINE_RUN##*/}" >> "$SINK"\'; '
        'haltline exec --run x-elsewhere -- sh -c \'echo ran >> "$SINK"\'; echo "code-$?" >> "$SINK"; '
        f"haltline exec --child tool -- sh -c '{TICK.format(who='tool')}'"
    )
    with start("x-nest", "sh", "-c", f'PATH="$(dirname "$PYTHON"):$PATH"; {inner}') as running:
        running.wait_for("tool")
        assert running.effects()[:2] == ["x-nest~", "code-2"]
        service.kill("run:x-nest.tool")
        assert running.end() == 75, running.err
        assert running.below() == []
