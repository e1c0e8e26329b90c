"""A real `haltline-server serve` process on a port of this machine, and a plain HTTP connection to it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psutil

from tests.support.ports import LOOPBACK, free_port

SERVER: Final = Path(sys.executable).with_name("haltline-server")
TOKEN: Final = re.compile(r"hlt_[a-z0-9-]+_[a-z0-9]{12}_[0-9A-Za-z]{49}")


@dataclass(frozen=True)
class Reply:
    """What was answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def members(self) -> dict[str, Any]:
        """Return the members of a JSON body."""
        loaded = json.loads(self.body)
        assert isinstance(loaded, dict)
        return loaded


def environment(folder: Path, port: int, **more: str) -> dict[str, str]:
    """Return the environment of a server whose data is in ``folder``."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("HALTLINE_")}
    return {
        **mine,
        "HALTLINE_DATABASE_URL": f"sqlite:///{folder}/haltline.db",
        "HALTLINE_BIND": f"{LOOPBACK}:{port}",
        **more,
    }


def command(folder: Path, *arguments: str, port: int = 1, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a haltline-server command to its end."""
    return subprocess.run(
        [SERVER, *arguments],
        cwd=folder,
        env=environment(folder, port, **more),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@dataclass
class Server:
    """A running server; a context manager that leaves nothing behind."""

    folder: Path
    more: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    token: str = field(default="", repr=False)

    def __enter__(self) -> Self:
        """Start it and wait until it is ready."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it, whatever state it is in."""
        self.end()

    def start(self) -> None:
        """Start it and wait until it is ready."""
        with (self.folder / "out").open("a") as out, (self.folder / "err").open("a") as err:
            self.process = subprocess.Popen(
                [SERVER, "serve", *self.options],
                cwd=self.folder,
                env=environment(self.folder, self.port, **self.more),
                stdout=out,
                stderr=err,
            )
        self.wait_ready()
        printed = TOKEN.findall(self.out)
        self.token = printed[0] if printed else self.token

    def end(self) -> int:
        """End it with SIGTERM, or without asking after ten seconds; return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                for child in psutil.Process(self.process.pid).children(recursive=True):
                    child.kill()
                self.process.kill()
                self.process.wait(5)
        return self.process.returncode

    @property
    def out(self) -> str:
        """Return what it printed."""
        return (self.folder / "out").read_text("utf-8")

    @property
    def err(self) -> str:
        """Return its journal."""
        return (self.folder / "err").read_text("utf-8")

    @property
    def worker(self) -> psutil.Process:
        """Return the process that serves."""
        (worker,) = psutil.Process(self.process.pid).children()
        return worker

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection."""
        return http.client.HTTPConnection(LOOPBACK, self.port, timeout=15)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        over: http.client.HTTPConnection | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """Ask, over a connection that is kept, or over one of its own."""
        connection = self.connect() if over is None else over
        sent = {"Authorization": f"Bearer {self.token}", **(headers or {})}
        if body is not None:
            sent["Content-Type"] = "application/json"
        try:
            connection.request(method, path, None if body is None else json.dumps(body), sent)
            response = connection.getresponse()
            return Reply(response.status, dict(response.getheaders()), response.read())
        finally:
            if over is None:
                connection.close()

    def kill(self, target: str, **members: Any) -> Reply:
        """Kill."""
        return self.call("POST", "/v1/kills", {"target": target, "reason": "why", **members})

    def wait_ready(self, seconds: float = 20) -> None:
        """Wait until it is ready; the only waiting there is, since another process cannot be told the time."""
        until = time.monotonic() + seconds
        while True:
            assert self.process.poll() is None, self.err
            try:
                if self.call("GET", "/readyz").status == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass
            assert time.monotonic() < until, self.err
            time.sleep(0.02)
