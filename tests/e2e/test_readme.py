"""What README and docs show is true: their examples run and stop, their commands and links exist."""

from __future__ import annotations

import os
import re
import select
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import click
import pytest

from app.cli.commands import main as server_cli
from haltline.cli.commands import haltline as client_cli
from tests.e2e.server import Server
from tests.support.ports import LOOPBACK

ROOT: Final = Path(__file__).resolve().parents[2]
README: Final = ROOT / "README.md"
PAGES: Final = (README, *sorted((ROOT / "docs").rglob("*.md")))
REASON: Final = "sends the same mail twice"
FIRST_SCREEN: Final = 20
"""Lines of the README that are seen without scrolling."""

PYTHON: Final = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
CONSOLE: Final = re.compile(r"^\$ (.*)$", re.MULTILINE)
VARIABLE: Final = re.compile(r"\bHALTLINE_[A-Z][A-Z_]*[A-Z]\b")

# What the example leaves to the reader: somebody to send to, and a way to send. A mail every 5 ms.
PRELUDE: Final = """
import itertools, time

def everybody():
    for number in itertools.count():
        time.sleep(0.005)
        yield number

recipients = everybody()

def send(recipient):
    print("sent", recipient, flush=True)
"""


def python_block(page: Path) -> str:
    """Return the first Python example of a page."""
    found = PYTHON.search(page.read_text(encoding="utf-8"))
    assert found is not None, page
    return found[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield a server, which every test leaves as it was; its admin token may do everything, as on any SQLite."""
    with Server(tmp_path_factory.mktemp("readme")) as shared:
        yield shared


@contextmanager
def killed(server: Server, target: str) -> Iterator[None]:
    """Kill a target for as long as the block lasts."""
    reply = server.kill(target, reason=REASON)
    assert reply.status == 201
    try:
        yield
    finally:
        flag = server.call("GET", f"/v1/flags/{target.replace(':', '/', 1)}")
        order = {"target": target, "holds": [reply.members["seq"]], "reason": "mended"}
        assert server.call("POST", "/v1/revives", order, headers={"If-Match": flag.headers["ETag"]}).status == 201


@contextmanager
def running(program: str, server: Server) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program as a user would: its own process, the address and the token in the environment."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("HALTLINE_")}
    told = {"HALTLINE_URL": f"http://{LOOPBACK}:{server.port}", "HALTLINE_TOKEN": server.token}
    with subprocess.Popen(
        [sys.executable, "-u", "-c", program],
        env={**mine, **told},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,  # what was read ahead would be older than it seems
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def out_of(process: subprocess.Popen[bytes]) -> IO[bytes]:
    """Return what a process prints."""
    assert process.stdout is not None
    return process.stdout


def sent(process: subprocess.Popen[bytes], count: int) -> None:
    """Wait until so many more mails were sent."""
    for _ in range(count):
        line = out_of(process).readline()
        assert line.startswith(b"sent "), line


def ended(process: subprocess.Popen[bytes]) -> tuple[str, str]:
    """Return what a process printed until it ended by itself."""
    out, err = process.communicate(timeout=20)
    return out.decode("utf-8"), err.decode("utf-8")


def frozen(process: subprocess.Popen[bytes]) -> None:
    """Wait until nothing was sent for a whole ttl."""
    out = out_of(process)
    while select.select([out], [], [], 1.0)[0]:
        assert os.read(out.fileno(), 65_536)


def test_the_example_of_the_readme_stops_on_a_kill(server: Server) -> None:
    """The ten lines of the README send, stop when their run is killed, and say who did it and why."""
    with running(PRELUDE + python_block(README), server) as process:
        sent(process, 3)
        with killed(server, "run:r-42"):
            out, err = ended(process)
    assert process.returncode == 1
    # At most one ttl of mails, 5 ms apart, after the kill was acknowledged; far fewer while the service is healthy.
    assert len(out.splitlines()) <= 200
    assert "haltline.errors.Killed: run r-42 is stopped: run:r-42 killed by admin" in err
    assert REASON in err


@pytest.mark.parametrize("target", ["tenant:acme", "feature:outreach", "global"])
def test_the_example_of_the_readme_stops_on_every_rung(server: Server, target: str) -> None:
    """A kill of the cohort or of everything reaches the same ten lines."""
    with running(PRELUDE + python_block(README), server) as process:
        sent(process, 1)
        with killed(server, target):
            _, err = ended(process)
    assert process.returncode == 1
    assert f"{target} killed by admin" in err


def test_the_example_of_the_readme_goes_on_without_a_frozen_tool(server: Server) -> None:
    """A killed capability stops the sending only; revived, the same run sends again."""
    with running(PRELUDE + python_block(README), server) as process:
        sent(process, 1)
        with killed(server, "capability:send_email"):
            frozen(process)
        sent(process, 3)
        assert process.poll() is None


def test_the_loop_of_the_quickstart_stops_on_a_kill(server: Server) -> None:
    """The loop that a newcomer saves ends with one line that says why."""
    with running(python_block(ROOT / "docs/quickstart.md"), server) as process:
        sent(process, 1)
        with killed(server, "run:r-42"):
            _, err = ended(process)
    assert process.returncode == 1
    assert err.startswith("stopped: run r-42 is stopped: run:r-42 killed by admin at ")
    assert err.endswith(f"{REASON}\n")


def test_the_first_screen_shows_both_commands() -> None:
    """Whoever opens the README sees `make demo` and `make test` without scrolling."""
    top = "\n".join(README.read_text(encoding="utf-8").splitlines()[:FIRST_SCREEN])
    assert "$ make demo" in top
    assert "$ make test" in top


def test_every_make_target_that_is_named_exists() -> None:
    """No page tells to make something that the Makefile cannot."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"(?:`|\$ )make ([a-z]+)", page.read_text(encoding="utf-8")))
        assert named <= targets, page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_resolves(page: Path) -> None:
    """A link to a file of the project leads to one."""
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    local = [each.partition("#")[0] for each in targets if not re.match(r"[a-z]+:|#", each)]
    assert [each for each in local if not (page.parent / each).exists()] == []


def test_every_variable_that_is_named_can_be_set() -> None:
    """Each HALTLINE_ variable of the pages stands in config/example.env."""
    known = set(VARIABLE.findall((ROOT / "config/example.env").read_text(encoding="utf-8")))
    named = {name for page in PAGES for name in VARIABLE.findall(page.read_text(encoding="utf-8"))}
    assert named <= known


def shown_commands() -> list[list[str]]:
    """Return every `$ haltline ...` and `$ haltline-server ...` of the pages, as words."""
    lines = (line for page in PAGES for line in CONSOLE.findall(page.read_text(encoding="utf-8")))
    parts = (part for line in lines for part in re.split(r"\s(?:&&|\|)\s", line))
    return [shlex.split(part, comments=True) for part in parts if re.match(r"haltline(-server)?\s", part)]


@pytest.mark.parametrize("words", shown_commands(), ids=" ".join)
def test_every_command_that_is_shown_exists(words: list[str]) -> None:
    """Commands and options are typed as the programs know them."""
    command: click.Command = client_cli if words[0] == "haltline" else server_cli
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in words[1:]:
        if word.startswith("--"):
            assert word.partition("=")[0] in known, word
        elif isinstance(command, click.Group) and not word.startswith("-"):
            assert word in command.commands, word
            command = command.commands[word]
            known |= {option for parameter in command.params for option in parameter.opts}
