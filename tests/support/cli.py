"""Both command lines as a user has them: a real service on SQLite, and ``haltline`` in a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

from tests.support.ports import LOOPBACK, free_port

BIN: Final = Path(sys.executable).parent
_TOKEN: Final = re.compile(r"HALTLINE_TOKEN=(hlt_\S+)")
_PATIENCE_S: Final = 20.0


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment without any setting of Haltline, and with ``more``."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("HALTLINE_")}
    return {**plain, "HOME": "/nonexistent", "NO_COLOR": "1", **more}


@dataclass(frozen=True)
class Service:
    """A running service.

    Attributes:
        port: where it listens, on 127.0.0.1.
        token: the admin token that its first start printed.
    """

    port: int
    token: str

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{LOOPBACK}:{self.port}"

    def issue(self, **members: object) -> str:
        """Return a new token."""
        connection = HTTPConnection(LOOPBACK, self.port, timeout=10)
        try:
            headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
            connection.request("POST", "/v1/tokens", json.dumps(members), headers)
            token = json.loads(connection.getresponse().read())["token"]
        finally:
            connection.close()
        assert isinstance(token, str)
        return token


@contextmanager
def serving(folder: Path, *, ttl_ms: int = 300) -> Iterator[Service]:
    """Run a service on a fresh SQLite database in ``folder``."""
    port = free_port()
    said = folder / "serve.out"
    settings = environment(
        HALTLINE_DATABASE_URL=f"sqlite:///{folder / 'log.db'}",
        HALTLINE_BIND=f"{LOOPBACK}:{port}",
        HALTLINE_TTL_MS=str(ttl_ms),
    )
    with said.open("wb") as out:
        process = subprocess.Popen(
            [BIN / "haltline-server", "serve"], env=settings, cwd=folder, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        _wait_ready(process, port, said)
        token = _TOKEN.search(said.read_text(encoding="utf-8"))
        assert token is not None, said.read_text(encoding="utf-8")
        yield Service(port, token[1])
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(process: subprocess.Popen[bytes], port: int, said: Path) -> None:
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        assert process.poll() is None, said.read_text(encoding="utf-8")
        connection = HTTPConnection(LOOPBACK, port, timeout=2)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    raise AssertionError(f"the service was not ready in {_PATIENCE_S:g} s:\n{said.read_text(encoding='utf-8')}")


@dataclass(frozen=True)
class Ran:
    """How ``haltline`` ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on standard output."""
        members = json.loads(self.out)
        assert isinstance(members, dict)
        return members


def haltline(*words: str, settings: Mapping[str, str]) -> Ran:
    """Run ``haltline words...`` with these variables and no others of Haltline."""
    done = subprocess.run(
        [BIN / "haltline", *words], env=environment(**settings), capture_output=True, text=True, timeout=30, check=False
    )
    return Ran(done.returncode, done.stdout, done.stderr)
