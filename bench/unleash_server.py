"""A real Unleash server from its npm package, on a PostgreSQL of its own, and one flag switched through its API."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from bench.layouts import NoPostgres, postgres
from bench.peers import VENV, NotInstalled
from bench.service import answers
from tests.support.ports import LOOPBACK, free_port
from tests.support.postgres import SUPERUSER

VERSION: Final = "6.6.0"
"""Of those that run on Node.js 18 and 20. What is compared is how a client hears of a switch: it asks."""

PLACE: Final = VENV / "unleash-server"
INSTALL_S: Final = 150.0
START_S: Final = 60.0
STOP_S: Final = 10.0
REPLY_S: Final = 10.0

FLAG: Final = "kill-send-email"
_FEATURES: Final = "/api/admin/projects/default/features"
_HERE: Final = f"{_FEATURES}/{FLAG}/environments/development"

_START: Final = """
require("unleash-server").start({}).catch((error) => { console.error(error.message); process.exit(1); });
"""


class Unleash:
    """A running server.

    Attributes:
        port: where it listens on the loopback address.
        client: the secret of its clients.
    """

    def __init__(self, port: int, *, admin: str, client: str) -> None:
        self.port = port
        self.client = client
        self._admin = admin

    @property
    def url(self) -> str:
        """The address that clients are given."""
        return f"http://{LOOPBACK}:{self.port}/api"

    def make_flag(self) -> None:
        """Make the flag, switched off, that everybody gets when it is on."""
        self._post(_FEATURES, {"name": FLAG, "type": "kill-switch"})
        self._post(f"{_HERE}/strategies", {"name": "default", "parameters": {}})
        self.switch(on=False)

    def switch(self, *, on: bool) -> tuple[int, int]:
        """Switch the flag; return when that was sent and when acknowledged, nanoseconds of the monotonic clock."""
        return self._post(f"{_HERE}/{'on' if on else 'off'}", {})

    def _post(self, path: str, body: dict[str, object]) -> tuple[int, int]:
        headers = {"Authorization": self._admin, "Content-Type": "application/json"}
        with closing(http.client.HTTPConnection(LOOPBACK, self.port, timeout=REPLY_S)) as connection:
            connection.connect()
            sent = time.monotonic_ns()
            connection.request("POST", path, body=json.dumps(body), headers=headers)
            reply = connection.getresponse()
            told = reply.read()
            acked = time.monotonic_ns()
        if reply.status >= 300:
            raise RuntimeError(f"Unleash answered {reply.status} to {path}: {told!r:.300}")
        return sent, acked


@contextmanager
def unleash() -> Iterator[Unleash]:
    """Start a server with the flag in it, and stop it.

    Raises:
        NotInstalled: it cannot be had here.
    """
    node = installed()
    port = free_port()
    admin, client = (f"{scope}.{secrets.token_hex(28)}" for scope in ("*:*", "default:development"))
    try:
        with postgres() as database:
            settings = {
                "DATABASE_HOST": str(database.folder / "socket"),
                "DATABASE_NAME": database.create_database(),
                "DATABASE_USERNAME": SUPERUSER,
                "DATABASE_PASSWORD": "",
                "DATABASE_SSL": "false",
                "HTTP_HOST": LOOPBACK,
                "HTTP_PORT": str(port),
                "INIT_ADMIN_API_TOKENS": admin,
                "INIT_CLIENT_API_TOKENS": client,
                "LOG_LEVEL": "fatal",
                "CHECK_VERSION": "false",
                "SEND_TELEMETRY": "false",
                "NODE_ENV": "production",
            }
            with _running([node, "-e", _START], port, settings):
                server = Unleash(port, admin=admin, client=client)
                server.make_flag()
                yield server
    except NoPostgres as error:
        raise NotInstalled(str(error)) from error


@contextmanager
def _running(command: list[str], port: int, settings: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(
        command, cwd=PLACE, env={**os.environ, **settings}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + START_S
        while not answers(port, "/health"):
            if process.poll() is not None or time.monotonic() > until:
                raise NotInstalled(f"unleash-server {VERSION} did not start here")
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def installed() -> str:
    """Return the node that runs the server, which is installed if it is not there yet.

    Raises:
        NotInstalled: there is no Node.js, or the package cannot be had.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise NotInstalled("there is no Node.js with npm here")
    if _version(PLACE / "node_modules" / "unleash-server") == VERSION:
        return node
    print(f"installing unleash-server {VERSION} into {VENV.name} (once)", file=sys.stderr)
    PLACE.mkdir(parents=True, exist_ok=True)
    quietly = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    command = [npm, "install", "--prefix", str(PLACE), *quietly, f"unleash-server@{VERSION}"]
    try:
        subprocess.run(command, check=True, timeout=INSTALL_S, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError) as error:
        raise NotInstalled(f"unleash-server {VERSION} could not be installed with npm here") from error
    return node


def _version(package: Path) -> str | None:
    try:
        return str(json.loads((package / "package.json").read_text(encoding="utf-8"))["version"])
    except (OSError, ValueError, KeyError):
        return None
