"""One haltline-server process: started, waited for, told to end, frozen or killed; its output kept without tokens."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final

from sample.api import is_ready
from sample.children import Child
from sample.ports import LOOPBACK, is_free
from sample.troubles import Trouble

READY_S: Final = 60.0
"""How long a server may take to be ready, seconds."""

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


class Server:
    """One ``haltline-server serve``, which can be started again after it ended.

    Args:
        name: what it is called in messages: "the service", "control lane 1".
        environment: all of its environment; where it listens is ``port`` and is added here.
        port: where it listens, on 127.0.0.1.
        log: the file that its output is added to.

    Attributes:
        name: what it is called in messages.
        port: where it listens, on 127.0.0.1.
        printed_token: the admin token that it printed, if it did.
    """

    def __init__(self, name: str, environment: Mapping[str, str], *, port: int, log: Path) -> None:
        self.name = name
        self.port = port
        self.printed_token = ""
        self._environment = {**environment, "HALTLINE_BIND": f"{LOOPBACK}:{port}"}
        self._path = log
        self._file: IO[str] | None = None
        self._child: Child | None = None
        self._tail: deque[str] = deque(maxlen=5)
        self._printed = threading.Event()

    @property
    def url(self) -> str:
        """Return its address."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int:
        """Return its process id; 0 while it does not run."""
        return 0 if self._child is None else self._child.pid

    @property
    def gone(self) -> str:
        """Return why the process is no more, in one line; an empty text while it runs."""
        if self._child is None:
            return f"{self.name} is stopped"
        status = self._child.status
        if status is None:
            return ""
        if status > 0:
            return f"{self.name} ended with status {status}: {self.last_words()}"
        return f"{self.name} was ended by signal {-status}" if status else f"{self.name} was told to end"

    def begin(self) -> None:
        """Start it, and do not wait. From the main thread only: see :class:`sample.children.Child`.

        Raises:
            Trouble: the port is in use.
        """
        if not is_free(self.port):
            raise Trouble(
                f"port {self.port} of {LOOPBACK} is in use: end what listens there, or choose another with --port"
            )
        self._tail.clear()
        self._file = self._path.open("a", encoding="utf-8", buffering=1)
        self._child = Child(
            [tool("haltline-server"), "serve"],
            environment=self._environment,
            on_output=self._hear,
            on_errors=self._hear,
            on_end=lambda: None,
        )

    def wait_until_ready(self) -> None:
        """Wait until it is ready.

        Raises:
            Trouble: it ended, or was not ready in time.
        """
        until = time.monotonic() + READY_S
        while not is_ready(self.port):
            if self._child is None or self._child.wait(_LOOK_S) is not None:
                raise Trouble(f"{self.name} did not start: {self.last_words()} (all of it: {self._path})")
            if time.monotonic() > until:
                raise Trouble(f"{self.name} was not ready within {READY_S:g} s: {self.last_words()}")

    def token(self) -> str:
        """Return the admin token that it printed; it may still be on its way through the pipe.

        Raises:
            Trouble: it printed none.
        """
        if not self._printed.wait(READY_S):
            raise Trouble(f"{self.name} printed no admin token at its first start: {self.last_words()}")
        return self.printed_token

    def tell(self) -> None:
        """Tell it to end (SIGTERM), and do not wait."""
        if self._child is not None:
            self._child.tell()
            self._signal(signal.SIGCONT)  # one that is frozen would not hear it

    def stop(self) -> None:
        """Tell it to end, and wait until it has."""
        self.tell()
        if self._child is not None:
            self._child.end()
            self._child = None
        if self._file is not None:
            self._file.close()
            self._file = None

    def freeze(self) -> None:
        """Stop all of its processes with SIGSTOP: connections to it are made by the kernel, and nobody answers."""
        self._signal(signal.SIGSTOP)

    def kill(self) -> None:
        """Kill all of its processes with SIGKILL, and do not wait."""
        self._signal(signal.SIGKILL)

    def last_words(self) -> str:
        """Return the last line that it said."""
        return next((line.strip() for line in reversed(self._tail) if line.strip()), "it said nothing")

    def _signal(self, number: int) -> None:
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child.pid, number)  # it leads a session of its own, its worker process among it

    def _hear(self, line: str) -> None:
        shown = _TOKEN.search(line)
        if shown and not self.printed_token:
            self.printed_token = shown.group()
            self._printed.set()
        clean = _TOKEN.sub("hlt_(blotted out)", line)
        self._tail.append(clean)
        if self._file is not None and not self._file.closed:
            self._file.write(clean)
