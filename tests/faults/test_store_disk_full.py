"""A full disk: a kill is refused as not done, reads go on, and with space again all goes on without a restart."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from app.service.store import Store, StoreUnavailable
from app.storage.migrate import upgrade
from haltline.flips import Position, follow
from tests.support.orders import committed, kill_order
from tests.support.places import Place
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.timeout(120)

ROOT: Final = Path(__file__).parents[2]
SEGMENT_BYTES: Final = 1024 * 1024
TINY: Final = 'mount -t tmpfs -o size=2m tmpfs "$0" && exec "$@"'
"""A file system of 2 MiB, in a mount namespace that ends with the process."""


def _told(folder: Path, how: str, *wrapper: str) -> dict[str, Any]:
    """Run :mod:`tests.support.full_disk` and return what it tells."""
    command = [*wrapper, sys.executable, "-m", "tests.support.full_disk", str(folder), how]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def _check(told: dict[str, Any]) -> None:
    assert (told["refused"], told["again"]) == ("StoreUnavailable", "StoreUnavailable")
    assert told["took_s"] < 5
    assert told["head_while_full"] == told["entries_while_full"] == told["acked"][-1]
    assert told["acked"] == list(range(2, told["acked"][-1] + 1))
    assert not told["replayed"]
    assert told["chain"] == list(range(1, told["acked"][-1] + 2))
    assert told["head"] == told["chain"][-1]


@pytest.mark.parametrize("how", ["limit", "journal"])
def test_sqlite_beyond_the_size_of_a_file(tmp_path: Path, how: str) -> None:
    """The database, or not even its journal, can be written: refused and certain; later the same flip is done."""
    _check(_told(tmp_path, how))


def _unshare() -> tuple[str, ...]:
    """Return a command that runs another with rights to mount, if there is one here."""
    command = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
    if shutil.which("unshare") is None:
        pytest.skip("no unshare(1) here")
    probe = subprocess.run([*command, "mount -t tmpfs tmpfs /mnt"], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {probe.stderr.strip()}")
    return command


def test_sqlite_on_a_full_file_system(tmp_path: Path) -> None:
    """A file system without a free block (ENOSPC): the same."""
    _check(_told(tmp_path, "ballast", *_unshare(), TINY, str(tmp_path)))


class _Small(PostgresServer):
    """A server with segments of 1 MiB, so that a limit beyond which no file may grow spares them."""

    def _run(self, program: str, *args: str) -> None:
        super()._run(program, *args, *(["--wal-segsize=1"] if program == "initdb" else []))

    @contextmanager
    def full(self) -> Iterator[None]:
        """Have no file of the server grow beyond 1 MiB for as long as the block lasts."""
        try:
            self._limit(str(SEGMENT_BYTES))
            yield
        finally:
            self._limit("unlimited")

    def _limit(self, size: str) -> None:
        # As the server's own user: root in a container may not limit the processes of others.
        for process in self._processes():
            command = ["prlimit", f"--pid={process.pid}", f"--fsize={size}:unlimited"]
            done = subprocess.run(command, check=False, cwd="/", capture_output=True, text=True, **self._user)
            # One of its workers may have ended between the look and the call.
            assert done.returncode == 0 or not process.is_running(), done.stderr


@pytest.fixture(scope="module")
def small_server() -> Iterator[_Small]:
    """That server."""
    with closing(_Small()) as server:
        yield server


def _until_refused(store: Store) -> tuple[list[int], str, StoreUnavailable]:
    acked: list[int] = []
    for number in range(10_000):
        flip_id = f"f-full-{number}"
        try:
            done = store.kill(kill_order(f"run:full-{number}", flip_id=flip_id, reason="x" * 500))
        except StoreUnavailable as error:
            return acked, flip_id, error
        acked.append(committed(done).row.position.seq)
    raise AssertionError("the disk was never full")


def test_postgresql_whose_tables_cannot_grow(small_server: _Small) -> None:
    """The server cannot extend a table: the kill is refused and certain, reads go on, and with space it is done."""
    if shutil.which("prlimit") is None:
        pytest.skip("no prlimit(1) here")
    name = small_server.create_database()
    upgrade(small_server.url(name))
    with closing(Place(url := small_server.url(name), url).opened()) as store:
        with small_server.full():
            acked, flip_id, error = _until_refused(store)
            assert "nothing was changed" in str(error)
            assert store.head().position.seq == acked[-1]
            assert len(store.export(after=acked[-1] - 1, up_to=acked[-1], limit=10)) == 1
            with pytest.raises(StoreUnavailable, match="nothing was changed"):
                store.kill(kill_order(f"run:{flip_id[2:]}", flip_id=flip_id, reason="x" * 500))
        began = time.monotonic()
        later = committed(store.kill(kill_order(f"run:{flip_id[2:]}", flip_id=flip_id, reason="x" * 500)))
        assert time.monotonic() - began < 3
        assert not later.replayed
        assert later.row.position.seq == acked[-1] + 1
        rows = store.export(after=0, up_to=2**53, limit=20_000)
        chain = [entry.position.seq for entry in follow((json.loads(row.body) for row in rows), after=Position())]
        assert chain == list(range(1, acked[-1] + 2))
