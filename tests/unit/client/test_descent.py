"""Processes and what is below them: who is found, and that only who was meant is sent a signal."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from haltline.descent import descendants, end_all, group_left, process, send, send_group
from tests.support.supervised import wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """Yield a process that leads a group and sleeps."""
    with subprocess.Popen(["/bin/sleep", "300"], process_group=0) as started:
        yield started
        started.kill()


def test_what_is_below(tmp_path: Path) -> None:
    """Children and grandchildren are found, in whatever session, and whatever they are called; the ended are not."""
    odd = tmp_path / "a) R 1 (b"
    odd.symlink_to("/bin/sleep")
    script = """setsid sh -c '"$0" 300; :' "$1"; :"""
    with subprocess.Popen(["/bin/sh", "-c", script, "sh", str(odd)], start_new_session=True) as started:
        try:
            wait_for(lambda: len(descendants(started.pid)) == 2)
            shell, sleep = descendants(started.pid)
            assert (shell.parent, sleep.parent) == (started.pid, shell.pid)
            assert shell.group != started.pid
            assert not shell.over
            assert [each.pid for each in descendants(os.getpid(), but=frozenset({shell}))].count(sleep.pid) == 0
        finally:
            for each in descendants(started.pid):
                send(each, signal.SIGKILL)
            started.kill()


def test_only_who_was_meant(sleeper: subprocess.Popen[bytes]) -> None:
    """A process that has the id of another one that has ended is not sent its signal."""
    seen = process(sleeper.pid)
    assert seen is not None
    former = dataclasses.replace(seen, began=seen.began - 1)
    assert not send(former, signal.SIGKILL)
    assert sleeper.poll() is None
    assert send(seen, signal.SIGKILL)
    assert sleeper.wait(30) == -signal.SIGKILL
    assert not send(seen, signal.SIGKILL)


def test_a_group_outlives_its_leader() -> None:
    """The group of a leader that has ended is there while a member is; members that only wait to be reaped are none."""
    with subprocess.Popen(["/bin/sh", "-c", "sleep 300 & exit 0"], process_group=0) as started:
        assert started.wait(30) == 0
        assert group_left(started.pid)
        assert send_group(started.pid, signal.SIGKILL)
        wait_for(lambda: not group_left(started.pid))


def test_a_leader_that_is_there_is_somebody_else(sleeper: subprocess.Popen[bytes]) -> None:
    """Where a process bears the id of a leader that was reaped, its group is another one."""
    assert not group_left(sleeper.pid)


def test_what_cannot_be_ended() -> None:
    """Ending goes on for as long as it is said, and says then that something is left."""
    began = time.monotonic()
    assert end_all(lambda: {1}, lambda: False, patience_s=0.1) == ({1}, False)
    assert time.monotonic() - began >= 0.1
    assert end_all(lambda: {1}, lambda: True, patience_s=0.1) == (set(), True)
