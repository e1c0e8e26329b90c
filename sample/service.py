"""The service as a child process: started on SQLite, waited for, stopped, started again on the same log."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from sample.api import is_ready
from sample.children import Child
from sample.fleet import clean_environment
from sample.folder import Folder
from sample.ports import LOOPBACK, is_free
from sample.troubles import Trouble

READY_S: Final = 30.0
"""How long the service may take to be ready, seconds."""

_TOKEN: Final = re.compile(r"hlt_[a-z0-9][a-z0-9-]{0,31}_[a-z0-9]{12}_[A-Za-z0-9]{49}", re.ASCII)
_LOOK_S: Final = 0.05


def tool(name: str) -> str:
    """Return the path of a command that is installed beside this Python.

    Raises:
        Trouble: it is not.
    """
    path = Path(sys.executable).with_name(name)
    if not os.access(path, os.X_OK):
        raise Trouble(f"{name} is not installed beside {sys.executable}: `make run` and `make demo` install it")
    return str(path)


class Service:
    """The service of a data folder, a context manager: ready when entered, ended when left.

    Args:
        folder: where its database is; its output goes to service.log there, tokens blotted out.
        port: where it listens, on 127.0.0.1.
        ttl_ms: the lease ttl of a fresh log, milliseconds.

    Attributes:
        ttl_ms: the lease ttl.
        admin_token: the admin token: of an earlier start, or printed by this first one.
    """

    def __init__(self, folder: Folder, *, port: int, ttl_ms: int = 1_000) -> None:
        self._folder = folder
        self._port = port
        self.ttl_ms = ttl_ms
        self._child: Child | None = None
        self._log: IO[str] | None = None
        self._tail: deque[str] = deque(maxlen=5)
        self._printed = threading.Event()
        self.admin_token = folder.admin_token()

    @property
    def url(self) -> str:
        """Return its address."""
        return f"http://{LOOPBACK}:{self._port}"

    @property
    def pid(self) -> int:
        """Return its process id; 0 while it does not run."""
        return 0 if self._child is None else self._child.pid

    @property
    def gone(self) -> str:
        """Return why the process is no more, in one line; an empty text while it runs."""
        if self._child is None:
            return "the service is stopped"
        status = self._child.status
        if status is None:
            return ""
        if status > 0:
            return f"the service ended with status {status}: {self._last_words()}"
        return f"the service was ended by signal {-status}" if status else "the service was told to end"

    def __enter__(self) -> Self:
        """Start it and wait until it is ready."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self.stop()

    def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            Trouble: the port is in use, it did not start, or it printed no admin token on a fresh log.
        """
        if not is_free(self._port):
            raise Trouble(
                f"port {self._port} of {LOOPBACK} is in use: end what listens there, or choose another with --port"
            )
        self._tail.clear()
        self._log = (self._folder.path / "service.log").open("a", encoding="utf-8", buffering=1)
        self._child = Child(
            [tool("haltline-server"), "serve"],
            environment={
                **clean_environment(),
                "HALTLINE_DATABASE_URL": f"sqlite:///{self._folder.database}",
                "HALTLINE_BIND": f"{LOOPBACK}:{self._port}",
                "HALTLINE_TTL_MS": str(self.ttl_ms),
            },
            on_output=self._hear,
            on_errors=self._hear,
            on_end=lambda: None,
        )
        try:
            self._wait_until_ready(self._child)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> int:
        """Stop it with SIGTERM and return when it was gone, monotonic nanoseconds."""
        if self._child is not None:
            self._child.end()
            self._child = None
        gone_ns = time.monotonic_ns()
        if self._log is not None:
            self._log.close()
            self._log = None
        return gone_ns

    def _wait_until_ready(self, child: Child) -> None:
        until = time.monotonic() + READY_S
        while not is_ready(self._port):
            if child.wait(_LOOK_S) is not None:
                raise Trouble(
                    f"the service did not start: {self._last_words()} (all of it: {self._folder.path}/service.log)"
                )
            if time.monotonic() > until:
                raise Trouble(f"the service was not ready within {READY_S:g} s: {self._last_words()}")

        # The token is printed before the service is ready, but it may still be on its way through the pipe.
        if not self.admin_token and not self._printed.wait(READY_S):
            raise Trouble(f"the service printed no admin token at its first start: {self._last_words()}")

    def _last_words(self) -> str:
        return next((line.strip() for line in reversed(self._tail) if line.strip()), "it said nothing")

    def _hear(self, line: str) -> None:
        shown = _TOKEN.search(line)
        if shown and not self.admin_token:
            self.admin_token = shown.group()
            self._printed.set()
        clean = _TOKEN.sub("hlt_(blotted out)", line)
        self._tail.append(clean)
        if self._log is not None and not self._log.closed:
            self._log.write(clean)
