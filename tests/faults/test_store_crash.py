"""Crashes in the middle of flips: what was acknowledged is there, and the chain goes on without a gap."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from app.service.store import OutcomeUnknown, Store, StoreUnavailable
from app.storage import migrate
from haltline.flips import Position, follow
from tests.support.orders import committed, kill_order
from tests.support.places import Place
from tests.support.postgres import PostgresServer

ROOT: Final = Path(__file__).parents[2]


@pytest.fixture
def crashing_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server that a test may crash."""
    server = PostgresServer()
    try:
        yield server
    finally:
        server.close()


def _flipper(address: str, count: int, prefix: str, *wrapper: str | Path) -> subprocess.Popen[str]:
    command = [*wrapper, sys.executable, "-m", "tests.support.flipper", address, str(count), prefix]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _shot_after(process: subprocess.Popen[str], acks: int) -> dict[int, str]:
    """Kill the flipper with SIGKILL after its ``acks``-th acknowledgement; return every one that it had written."""
    assert process.stdout is not None
    acked: dict[int, str] = {}
    with process:
        for line in process.stdout:
            word, *rest = line.split()
            if word == "ACK":
                acked[int(rest[0])] = rest[1]
                if len(acked) == acks:
                    process.kill()
    assert process.returncode == -9
    return acked


def _whole(store: Store) -> dict[int, str]:
    """Return seq and hash of every entry, proving that they are one gapless chain up to the head."""
    rows = store.export(after=0, up_to=2**53, limit=10_000)
    entries = list(follow((json.loads(row.body) for row in rows), after=Position()))
    found = store.load(remember_since="2020-01-01T00:00:00.000000Z")
    head, replica = found.head, found.replica
    assert entries[-1].position == head.position
    assert sum(len(holds) for holds in replica.holds.values()) == head.position.seq - 1
    return {entry.position.seq: entry.position.hash for entry in entries}


def test_kill_9_loses_no_acknowledged_flip(place: Place) -> None:
    """A service shot dead five times during 100 flips: all it acknowledged is there, and at most one more each."""
    place.opened().close()
    acked: dict[int, str] = {}
    for life, acks in enumerate((7, 13, 20, 29, 31)):
        mine = _shot_after(_flipper(place.url, 1000, f"life{life}"), acks)
        store = place.opened()
        try:
            there = _whole(store)
            acked |= mine
            assert acked.items() <= there.items()
            assert len(there) <= 1 + len(acked) + (life + 1)  # log_opened, and the one flip under way of each life
            again = committed(store.kill(kill_order("run:r-0", flip_id=f"life{life}-0")))
            assert again.replayed
        finally:
            store.close()
    assert len(acked) >= 100


def test_a_crash_of_the_server_loses_no_acknowledged_flip(crashing_server: PostgresServer) -> None:
    """Every process of PostgreSQL killed during flips: after its recovery all that was acknowledged is there."""
    name = crashing_server.create_database()
    migrate.upgrade(crashing_server.url(name))
    place = Place(crashing_server.url(name), crashing_server.url(name))
    store = place.opened()
    acked: dict[int, str] = {}
    unknown: list[str] = []
    try:
        for number in range(60):
            order = kill_order(f"run:r-{number}")
            if number in {15, 40}:
                process = _flipper(place.url, 1000, f"beside{number}")
                assert process.stdout is not None
                lines = [process.stdout.readline() for _ in range(8)]
                crashing_server.crash()
                lines += process.stdout.readlines()
                process.communicate()
                for line in lines:
                    if line.startswith("ACK"):
                        acked[int(line.split()[1])] = line.split()[2]
                with pytest.raises((StoreUnavailable, OutcomeUnknown)):
                    store.kill(order)
                unknown.append(order.flip_id)
                crashing_server.start()
            row = committed(store.kill(order)).row
            acked[row.position.seq] = row.position.hash
        there = _whole(store)
        assert acked.items() <= there.items()
        assert len(there) <= len(acked) + 1 + 2
    finally:
        store.close()


def test_no_acknowledgement_before_the_disk_has_it(tmp_path: Path) -> None:
    """Seen from the kernel: between the last write to the database and each ack there is an fdatasync of it."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed: apt install strace")
    trace, database = tmp_path / "trace", tmp_path / "haltline.db"
    calls = "trace=openat,close,write,pwrite64,ftruncate,fsync,fdatasync"
    process = _flipper(f"sqlite:///{database}", 20, "f", strace, "-f", "-y", "-e", calls, "-o", trace)
    shown, _ = process.communicate(timeout=50)
    text = trace.read_text(errors="replace")
    if process.returncode != 0 and "ptrace" in text:
        pytest.skip("this machine does not let a process be traced")
    assert shown.count("ACK") == 20, text[-2000:]

    unsynced: set[str] = set()
    acks = written = 0
    # 4242 pwrite64(7</tmp/x/haltline.db>, "..."..., 4096, 8192) = 4096
    for line in text.splitlines():
        found = re.match(r"\d+ +(\w+)\((\d+)<([^>]*)>(.*)", line)
        if found is None:
            continue
        call, descriptor, file, rest = found.groups()
        if file in {str(database), f"{database}-journal"}:
            if call in {"pwrite64", "write", "ftruncate"}:
                written += 1
                unsynced.add(file)
            elif call in {"fsync", "fdatasync"}:
                unsynced.discard(file)
        elif call == "write" and descriptor == "1" and '"ACK' in rest:
            acks += 1
            assert unsynced == set(), f"ack {acks} before the disk had {unsynced}"
    assert acks == 20
    assert written >= 40


def test_a_disk_that_is_full_at_the_commit_is_certain(tmp_path: Path) -> None:
    """No room at the commit: never a false success; what was said not to be done was not, whichever write failed."""
    script = f"""
import resource, signal
from app.service.store import Committed, OutcomeUnknown, StoreUnavailable
from tests.support.orders import kill_order
from tests.support.places import Place
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
url = "sqlite:///{tmp_path / "haltline.db"}"
store = Place(url, url).opened()
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
failed, seqs = set(), []
for number in range(60):
    order = kill_order(f"run:r-{{number}}", flip_id=f"f-{{number}}")
    refused = False
    if number % 3 == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096 * (number // 3 + 1), hard))
        try:
            seqs.append(store.kill(order).row.position.seq)
        except (OutcomeUnknown, StoreUnavailable) as error:
            refused = True
            failed.add(type(error).__name__)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
    done = store.kill(order)
    assert isinstance(done, Committed)
    assert not (refused and done.replayed)
    seqs.append(done.row.position.seq)
store.close()
assert sorted(set(seqs)) == list(range(2, 62)), seqs
print(sorted(failed))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['StoreUnavailable']\n"
    place = Place(f"sqlite:///{tmp_path / 'haltline.db'}", "")
    with closing(place.opened()) as store:
        assert len(_whole(store)) == 61
