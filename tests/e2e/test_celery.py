"""Celery with live workers on Valkey and a real service; the effects of the tasks are counted here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from celery.result import AsyncResult

from haltline import KillSwitch
from haltline.integrations.celery import STOPPED
from tests.e2e.server import Server
from tests.support.celery_tasks import make
from tests.support.counts import NIGHTLY
from tests.support.ports import LOOPBACK
from tests.support.sinks import Sink
from tests.support.valkey import Valkey

ROOT: Final = Path(__file__).parents[2]
COUNT: Final = 100 if NIGHTLY else 10
DUE_S: Final = 45.0 if NIGHTLY else 12.0
"""When what is published for later falls due, seconds: by then the kill is effective."""

POOLS: Final = ("prefork", "threads")

pytestmark = [
    pytest.mark.timeout(240),
    # Of redis-py and kombu, when an app goes that has published from this process.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


class Shop:
    """A service, a broker and a sink, and the app with which this process publishes."""

    def __init__(self, server: Server, valkey: Valkey, sink: Sink, folder: Path) -> None:
        made = server.call("POST", "/v1/tokens", {"subject": "shop", "role": "worker"})
        assert made.status == 201, made
        self.server = server
        self.sink = sink
        self._folder = folder
        self._token = str(made.members["token"])
        self._url = f"http://{LOOPBACK}:{server.port}"
        self._broker = valkey.url
        self.app = make(valkey.url)
        self.switch = KillSwitch(self._url, token=self._token)

    @contextmanager
    def worker(self, pool: str, processes: int = 4) -> Iterator[subprocess.Popen[bytes]]:
        """Run a worker; it has been told to end on leaving."""
        mine = {name: value for name, value in os.environ.items() if not name.startswith("HALTLINE_")}
        told = {"HALTLINE_URL": self._url, "HALTLINE_TOKEN": self._token}
        told |= {"SHOP_BROKER": self._broker, "SHOP_SINK": str(self.sink.port)}
        arguments = ["-A", "tests.support.celery_tasks", "worker", "--pool", pool, "-c", str(processes), "-l", "INFO"]
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        with (
            (self._folder / "worker").open("ab") as said,
            subprocess.Popen(
                [sys.executable, "-m", "celery", *arguments, *quiet],
                cwd=ROOT,
                env={**mine, **told},
                stdout=said,
                stderr=said,
                start_new_session=True,
            ) as process,
        ):
            try:
                yield process
            finally:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)

    @property
    def said(self) -> str:
        """Return what the workers have logged."""
        return (self._folder / "worker").read_text("utf-8")

    def publish(self, name: str, *arguments: Any, count: int = COUNT, **options: Any) -> list[AsyncResult]:
        """Publish a task so many times for the current run."""
        task = self.app.tasks[name]
        return [task.apply_async(arguments, **options) for _ in range(count)]

    def kill(self, target: str, **members: Any) -> int:
        """Kill, wait until that is effective everywhere, and return the hold."""
        killed = self.server.kill(target, **members)
        assert killed.status == 201, killed
        time.sleep(killed.members["effective_in_ms"] / 1000)
        return int(killed.members["seq"])

    def revive(self, target: str, hold: int) -> None:
        """Release one hold."""
        flag = self.server.call("GET", f"/v1/flags/{target.replace(':', '/')}")
        order = {"target": target, "holds": [hold], "reason": "mended"}
        revived = self.server.call("POST", "/v1/revives", order, headers={"If-Match": flag.headers["ETag"]})
        assert revived.status == 201, revived

    def until(self, holds: Callable[[], bool], what: str, within_s: float = 90) -> None:
        """Wait until something holds."""
        end = time.monotonic() + within_s
        while not holds():
            assert time.monotonic() < end, f"not within {within_s} s: {what}\n{self.sink.seen}\n{self.said[-3000:]}"
            time.sleep(0.1)


@pytest.fixture
def shop(tmp_path: Path, valkey: Valkey) -> Iterator[Shop]:
    """Yield everything but a worker."""
    with Server(tmp_path) as server, Sink() as sink:
        made = Shop(server, valkey, sink, tmp_path)
        try:
            yield made
        finally:
            made.switch.close()
            made.app.close()


def are(results: list[AsyncResult], state: str) -> bool:
    """Return whether all tasks are in a state."""
    return all(each.state == state for each in results)


@pytest.mark.parametrize("queued", ["discard", "drain"])
@pytest.mark.parametrize("pool", POOLS)
def test_what_was_queued_before_a_kill(shop: Shop, pool: str, queued: str) -> None:
    """ETA tasks, retries, and tasks that wait for a worker: none after a kill that discards, nor after its revive.

    All if it drains; and those of a run beside it are carried out either way.
    """
    tasks: dict[str, list[AsyncResult]] = {}
    late: dict[str, list[AsyncResult]] = {}
    with shop.worker(pool):
        begun = time.monotonic()
        for name, tenant in (("r-1", "acme"), ("r-2", "umbrella")):
            with shop.switch.run(name, tenant=tenant, timeout=10):
                tasks[name] = shop.publish("mail", "eta", countdown=DUE_S) + shop.publish("failing", DUE_S)
                late[name] = shop.publish("mail", "late", queue="late")
        first = Counter({"r-1 failed": COUNT, "r-2 failed": COUNT})
        shop.until(lambda: shop.sink.seen == first, "all that fail have failed once")

        hold = shop.kill("tenant:acme", queued=queued)
        assert time.monotonic() < begun + DUE_S, "the machine is too slow: what should be late was due before the kill"
        assert shop.sink.seen == first
        ours = "SUCCESS" if queued == "drain" else STOPPED
        shop.until(lambda: are(tasks["r-2"], "SUCCESS"), "the run beside it goes on")
        shop.until(lambda: are(tasks["r-1"], ours), f"all of the killed run are {ours}")

        shop.revive("tenant:acme", hold)
        shop.app.control.add_consumer("late", reply=False)
        shop.until(lambda: are(late["r-2"], "SUCCESS"), "the run beside it goes on")
        shop.until(lambda: are(late["r-1"], ours), f"all of the killed run are {ours}")
    done = first + Counter({f"r-2 {kind}": COUNT for kind in ("eta", "retry", "late")})
    if queued == "drain":
        done += Counter({f"r-1 {kind}": COUNT for kind in ("eta", "retry", "late")})
    assert shop.sink.seen == done
    assert " ERROR" not in shop.said
    assert shop.said.count("is stopped (discarded)") == (3 * COUNT if queued == "discard" else 0)


@pytest.mark.parametrize("pool", POOLS)
def test_a_task_that_runs_is_ended_and_its_worker_goes_on(shop: Shop, pool: str) -> None:
    """A kill that aborts ends it within moments: its ``finally`` runs, it is STOPPED, its process does the next one."""
    with shop.worker(pool, processes=1):
        with shop.switch.run("r-1", timeout=10):
            (before,) = shop.publish("mail", "before", count=1)
            (running,) = shop.publish("slow", count=1)
            shop.until(lambda: shop.sink.seen["r-1 begun"] == 1, "it runs")
            killed = time.monotonic()
            shop.kill("run:r-1")
            shop.until(lambda: shop.sink.seen["r-1 finally"] == 1, "its finally has run", 30)
            assert time.monotonic() < killed + 30  # 60 s if nobody had told it
            shop.until(lambda: are([running], STOPPED), "it is stopped")
        with shop.switch.run("r-2", timeout=10):
            (after,) = shop.publish("mail", "after", count=1)
        assert after.get(timeout=60) == before.get(timeout=60)  # the very same process
        assert running.get(timeout=10)["reason"] == "killed"
    assert shop.sink.seen == Counter({"r-1 before": 1, "r-1 begun": 1, "r-1 finally": 1, "r-2 after": 1})
    assert " ERROR" not in shop.said


@pytest.mark.parametrize("pool", POOLS)
def test_without_a_service_a_task_waits(shop: Shop, pool: str) -> None:
    """Nothing is proven, so it is neither run nor refused; it is carried out, once, when the service is back."""
    with shop.switch.run("r-1", timeout=10):
        (task,) = shop.publish("mail", "waited", count=1)
    shop.server.end()
    with shop.worker(pool, processes=1):
        shop.until(lambda: "comes again in 2 s" in shop.said, "it was put back twice")
        assert shop.sink.seen == Counter()
        assert task.state == "PENDING"
        shop.server.start()
        shop.until(lambda: are([task], "SUCCESS"), "it is carried out")
    assert shop.sink.seen == Counter({"r-1 waited": 1})


def test_a_delivery_after_the_death_of_a_worker_is_judged_by_the_same_stamp(shop: Shop) -> None:
    """The broker delivers anew what a dead worker has not acknowledged; a kill in between discards it."""
    with shop.switch.run("r-1", timeout=10):
        (task,) = shop.publish("slow", count=1)
    with shop.worker("prefork", processes=1) as dying:
        shop.until(lambda: shop.sink.seen["r-1 begun"] == 1, "it runs")
        os.killpg(dying.pid, signal.SIGKILL)
        dying.wait(20)
    hold = shop.kill("run:r-1")
    shop.revive("run:r-1", hold)
    with shop.app.connection_for_read() as connection:
        channel = connection.default_channel
        channel.qos.restore_visible(interval=1)  # what a worker does in its turns; the time-out is not over
        assert channel.client.llen("shop") == 0
        channel.qos.visibility_timeout = 0
        channel.qos.restore_visible(interval=1)
        assert channel.client.llen("shop") == 1
    with shop.worker("prefork", processes=1):
        shop.until(lambda: are([task], STOPPED), "it is stopped")
    assert shop.sink.seen == Counter({"r-1 begun": 1})


def test_an_errback_is_part_of_the_work_that_failed(shop: Shop) -> None:
    """Where Celery calls it outside of that, in the worker's own loop, it is refused, and the worker goes on."""
    with shop.worker("prefork", processes=1), shop.switch.run("r-1", timeout=10):
        told = shop.app.tasks["told"].s()
        shop.publish("broken", 0, count=1, link_error=told)
        shop.until(lambda: shop.sink.seen["r-1 told"] == 1, "the errback was called")
        (late,) = shop.publish("broken", 60, count=1, link_error=told, time_limit=2)
        shop.until(lambda: "Errback 'told' raised an exception" in shop.said, "the other was refused")
        (after,) = shop.publish("mail", "after", count=1)
        shop.until(lambda: are([after], "SUCCESS"), "the worker goes on")
        assert late.state == "FAILURE"
    assert shop.sink.seen == Counter({"r-1 told": 1, "r-1 after": 1})
