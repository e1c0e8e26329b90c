"""The one native thread: order, deadlines, and what is certain when time runs out."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.storage.serial import Closed, NotStarted, SerialThread, StillRunning


@pytest.fixture
def serial() -> Iterator[SerialThread]:
    """A thread, closed at the end."""
    thread = SerialThread("test")
    yield thread
    thread.close()


def test_every_job_runs_on_one_other_thread(serial: SerialThread) -> None:
    """All jobs see the same thread, which is not the caller's."""
    seen = {serial.run(threading.get_native_id, timeout=5) for _ in range(20)}
    assert len(seen) == 1
    assert seen != {threading.get_native_id()}


def test_what_a_job_raises_reaches_the_caller(serial: SerialThread) -> None:
    """An error of the job is the caller's, also one that looks like a time-out."""

    def fail() -> None:
        raise TimeoutError("the job's own")

    with pytest.raises(TimeoutError, match="the job's own"):
        serial.run(fail, timeout=5)
    assert serial.run(lambda: 7, timeout=5) == 7


def _blocked(serial: SerialThread) -> tuple[threading.Event, threading.Thread]:
    """Keep the thread busy until the event is set."""
    running, go = threading.Event(), threading.Event()

    def job() -> None:
        running.set()
        go.wait(10)

    caller = threading.Thread(target=lambda: serial.run(job, timeout=10))
    caller.start()
    assert running.wait(5)
    return go, caller


def test_a_job_given_up_in_the_queue_never_runs(serial: SerialThread) -> None:
    """NotStarted is a promise: nothing of the job happens later."""
    go, caller = _blocked(serial)
    ran: list[int] = []
    with pytest.raises(NotStarted):
        serial.run(lambda: ran.append(1), timeout=0.05)
    go.set()
    caller.join()
    serial.run(lambda: None, timeout=5)
    assert ran == []


def test_a_job_that_began_is_still_running(serial: SerialThread) -> None:
    """StillRunning says that the job may yet end."""
    go = threading.Event()
    ended: list[bool] = []
    with pytest.raises(StillRunning):
        serial.run(lambda: ended.append(go.wait(10)), timeout=0.05)
    go.set()
    serial.run(lambda: None, timeout=5)
    assert ended == [True]


def test_after_close_nothing_runs() -> None:
    """Closing waits for jobs already handed over, and refuses later ones."""
    serial = SerialThread("test")
    serial.close()
    with pytest.raises(Closed):
        serial.run(lambda: None, timeout=5)
    serial.close()


GEVENT = """
from gevent import monkey
monkey.patch_all()
import threading, time
import gevent
from app.storage.serial import Closed, NotStarted, SerialThread, StillRunning
block = monkey.get_original("time", "sleep")  # what an fdatasync is to gevent: a call that yields to nobody
native = monkey.get_original("threading", "get_native_id")
serial = SerialThread("test")

# another native thread, always the same
assert len({serial.run(native, timeout=5) for _ in range(5)} - {native()}) == 1

# other greenlets run while a job blocks
ticks = []
def tick():
    while True:
        ticks.append(time.monotonic())
        gevent.sleep(0.01)
ticking = gevent.spawn(tick)
serial.run(lambda: block(0.3), timeout=5)
assert max(b - a for a, b in zip(ticks, ticks[1:])) < 0.2, ticks

# the two certainties
began = gevent.spawn(lambda: serial.run(lambda: block(0.5), timeout=5))
gevent.sleep(0.05)
ran = []
for timeout in (0.05, 0.1):
    try:
        serial.run(lambda: ran.append(1), timeout=timeout)
    except NotStarted:
        pass
    else:
        raise AssertionError("it should not have begun")
began.get()
try:
    serial.run(lambda: block(0.3), timeout=0.05)
except StillRunning:
    pass
else:
    raise AssertionError("it should still be running")
serial.run(lambda: None, timeout=5)
assert ran == []

# a time-out of the caller's own is the caller's
try:
    with gevent.Timeout(0.05):
        serial.run(lambda: block(0.2), timeout=5)
except gevent.Timeout:
    pass
else:
    raise AssertionError("the caller's time-out was swallowed")

def fail():
    raise ValueError("the job's own")
try:
    serial.run(fail, timeout=5)
except ValueError:
    pass
serial.close()
try:
    serial.run(lambda: None, timeout=5)
except Closed:
    print("done")
"""


SILENT = """
from gevent import monkey
monkey.patch_all()
import gevent, sys
from sqlalchemy import make_url, text
from app.service.store import StoreUnavailable
from app.storage.database import Done
from app.storage.serial import NotStarted, SerialThread
from app.storage.sqlite import SqliteDatabase
database = SqliteDatabase(make_url("sqlite:///" + sys.argv[1]))
def work(connection):
    connection.execute(text("INSERT INTO nowhere VALUES (:value)"), {"value": "the secret reason"})
try:
    database.write(work)
except StoreUnavailable as error:
    assert "secret" not in str(error) + str(error.__cause__), error.__cause__
database.close()
serial = SerialThread("test")
block = monkey.get_original("time", "sleep")
busy = gevent.spawn(lambda: serial.run(lambda: block(0.3), timeout=5))
gevent.sleep(0.05)
try:
    serial.run(lambda: None, timeout=0.05)
except NotStarted:
    print("done")
busy.get()
serial.run(lambda: None, timeout=5)
serial.close()
"""


def test_under_gevent_what_fails_is_raised_and_not_printed(tmp_path: Path) -> None:
    """A write that fails writes nothing to the journal by itself: a statement's values may be anybody's secret."""
    command = [sys.executable, "-c", SILENT, str(tmp_path / "haltline.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)


def test_under_gevent_it_is_a_native_thread_and_blocks_nobody() -> None:
    """Where gevent replaced threading, a job that blocks stops no other greenlet, and every promise above holds."""
    done = subprocess.run([sys.executable, "-c", GEVENT], capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr
