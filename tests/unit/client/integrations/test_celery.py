"""Celery tasks on a broker and a result backend in memory: what is published, and what the tracer makes of it."""

from __future__ import annotations

import base64
import itertools
import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from celery import Celery, chain
from celery.app.trace import build_tracer
from celery.result import AsyncResult

from haltline import CapabilityFrozen, Killed, Unverified, check, current_run
from haltline.integrations.celery import STAMP, STOPPED, HaltTask, install, switch_of
from haltline.propagation import extract
from haltline.testing import FakeService
from tests.support.celery_tasks import task

_names = itertools.count()


@dataclass
class Shop:
    """An app, its service, and what its tasks have done."""

    service: FakeService = field(default_factory=FakeService)
    done: list[Any] = field(default_factory=list)
    unstamped: Any = "refuse"

    def __post_init__(self) -> None:
        self.switch = self.service.switch()
        # Brokers in memory are shared by all connections of a process: each shop has a queue of its own.
        self.queue = f"q{next(_names)}"
        self.app = Celery(
            "shop", broker="memory://", backend="cache+memory://", task_cls=HaltTask, set_as_current=False
        )
        self.app.conf.update(task_default_queue=self.queue, task_publish_retry=False)
        install(self.app, switch=lambda: self.switch, unstamped=self.unstamped, patience=0.05)

        @task(self.app, name="send", capability="send_email", bind=True)
        def send(this: Any, what: Any = None) -> Any:
            self.done.append((what, current_run().id))
            return what

        self.send = send

    def messages(self) -> list[Any]:
        """Take what is in the queue."""
        taken = []
        with self.app.connection_for_read() as connection, connection.SimpleQueue(self.queue) as queue:
            for _ in range(queue.qsize()):
                message = queue.get_nowait()
                message.ack()
                taken.append(message)
        return taken

    def deliver(self, message: Any, **changed: Any) -> str:
        """Carry a message out as a worker's pool does, and return the state that it is left in."""
        carried_out = self.app.tasks[message.headers["task"]]
        args, kwargs, embed = message.payload
        request = {**message.headers, **embed, "args": args, "kwargs": kwargs, "is_eager": False, **changed}
        request |= {"delivery_info": {"exchange": "", "routing_key": self.queue}}
        traced = build_tracer(carried_out.name, carried_out, app=self.app)(request["id"], args, kwargs, request)
        return "SUCCESS" if traced.info is None else str(traced.info.state)

    def result(self, message: Any) -> AsyncResult:
        """Return what is known of a message's task."""
        return AsyncResult(message.headers["id"], app=self.app)


@pytest.fixture
def shop() -> Shop:
    """Return an app that refuses what has no stamp."""
    return Shop()


def published(shop: Shop, act: Callable[[], Any] | None = None) -> Any:
    """Publish in a run, and return the one message that came of it."""
    with shop.switch.run("r-1", tenant="acme"):
        (act or (lambda: shop.send.delay("mail")))()
    (message,) = shop.messages()
    return message


def seq_of(message: Any) -> int:
    """Return the log position at which a message was planned."""
    payload = message.headers[STAMP].split(".")[1]
    members = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return int(members["seq"])


def test_a_task_is_carried_out_as_the_run_that_planned_it(shop: Shop) -> None:
    """Stamp and lineage travel in the headers, and the body's current run is the planner's."""
    message = published(shop)
    carried = extract({"baggage": message.headers["baggage"]})
    assert carried is not None
    assert carried.lineage.id == "r-1"
    assert shop.deliver(message) == "SUCCESS"
    assert shop.done == [("mail", "r-1")]
    assert shop.result(message).state == "SUCCESS"


def test_a_stopped_run_publishes_nothing(shop: Shop) -> None:
    """A kill refuses at apply_async, before any message; so does a frozen capability, as an ordinary error."""
    with shop.switch.run("r-1", tenant="acme"):
        shop.service.kill("capability:send_email")
        with pytest.raises(CapabilityFrozen):
            shop.send.delay("mail")
        shop.service.kill("tenant:acme")
        with pytest.raises(Killed):
            shop.send.delay("mail")
        with pytest.raises(Killed):
            shop.app.send_task("send", ("mail",))
    assert shop.messages() == []


def test_what_is_published_by_name_while_it_is_frozen_is_dead(shop: Shop) -> None:
    """Celery swallows an ordinary error of a signal: the message goes out, and no worker takes it."""
    with shop.switch.run("r-1"):
        shop.service.kill("capability:send")
        shop.app.send_task("send", ("mail",))
    shop.service.revive("capability:send")
    (message,) = shop.messages()
    assert shop.deliver(message) == "IGNORED"
    assert shop.result(message).result["reason"] == "forged"
    assert shop.done == []


@pytest.mark.parametrize("then", ["killed", "revived"])
def test_a_task_that_a_kill_discards_is_stopped(shop: Shop, then: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is neither error nor success, ``get()`` returns, it is kept for planning anew, and a revive is no help."""
    message = published(shop)
    shop.service.kill("tenant:acme")
    if then == "revived":
        shop.service.revive("tenant:acme")
    with caplog.at_level(logging.WARNING, "haltline"):
        assert shop.deliver(message) == "IGNORED"
        assert shop.deliver(message) == "IGNORED"
    assert shop.done == []
    result = shop.result(message)
    assert result.state == STOPPED
    assert (result.ready(), result.successful(), result.failed()) == (True, False, False)
    assert result.get(timeout=5)["reason"] == "discarded"
    (discarded,) = switch_of(shop.app).discarded()
    assert (discarded.run, discarded.capability, discarded.stamp) == ("r-1", "send_email", message.headers[STAMP])
    assert f"task send[{message.headers['id']}] is stopped (discarded)" in caplog.text


def test_a_task_that_a_kill_drains_is_carried_out(shop: Shop) -> None:
    """Under the kill, and after the revive."""
    message = published(shop)
    shop.service.kill("tenant:acme", queued="drain")
    assert shop.deliver(message) == "SUCCESS"
    shop.service.revive("tenant:acme")
    assert shop.deliver(message) == "SUCCESS"
    assert shop.done == [("mail", "r-1")] * 2


@pytest.mark.parametrize(
    ("headers", "reason"),
    [({STAMP: "hs1.e30.AAAA"}, "forged"), ({"id": "another"}, "mismatch"), ({STAMP: 7}, "forged")],
)
def test_a_stamp_that_is_not_the_tasks_own(shop: Shop, headers: dict[str, Any], reason: str) -> None:
    """Forged, or taken from another message: the task is stopped for good."""
    message = published(shop)
    message.headers.update(headers)
    assert shop.deliver(message) == "IGNORED"
    assert shop.result(message).result["reason"] == reason
    assert shop.done == []


def test_a_task_without_a_stamp_is_refused(shop: Shop) -> None:
    """By the publisher, and by the worker if somebody else has published it."""
    with pytest.raises(Unverified, match="no run"):
        shop.send.delay("mail")
    shop.app.send_task("send", ("mail",))
    (message,) = shop.messages()
    assert STAMP not in message.headers
    assert shop.deliver(message) == "IGNORED"
    assert shop.result(message).result["reason"] == "no_run"
    assert shop.done == []


def test_a_task_without_a_stamp_runs_where_that_is_said() -> None:
    """In a run of its own, which is armed when it begins: a kill stops it as any other."""
    shop = Shop(unstamped="run")
    shop.send.delay("mail")
    shop.send.delay("mail")
    message, another = shop.messages()
    assert shop.deliver(message) == "SUCCESS"
    assert shop.done == [("mail", f"celery.{message.headers['id']}")]
    shop.service.kill("global")
    assert shop.deliver(another) == "IGNORED"
    assert shop.result(another).result["reason"] == "killed"
    assert len(shop.done) == 1


def test_without_a_lease_a_task_comes_again_later(shop: Shop) -> None:
    """It is not run and not refused; it keeps its stamp, its id and its count of retries, and the pauses grow."""
    message = published(shop)
    shop.service.down()
    shop.service.clock.advance(2)
    pauses = []
    again = message
    for _ in range(3):
        assert shop.deliver(again, retries=2) == "IGNORED"
        assert shop.done == []
        (again,) = shop.messages()
        assert again.headers[STAMP] == message.headers[STAMP]
        assert (again.headers["id"], again.headers["retries"]) == (message.headers["id"], 2)
        pauses.append(again.headers["haltline-waits"])
        assert again.headers["eta"] is not None
    assert pauses == [1, 2, 3]
    assert shop.result(message).state == "PENDING"
    shop.service.up()
    shop.switch.renew()
    assert shop.deliver(again) == "SUCCESS"


def test_a_capability_that_was_frozen_before_holds_a_task_back(shop: Shop) -> None:
    """Published by name it is planned for another one; its own counts, and the revive makes the stamp good."""

    def by_name() -> None:
        shop.service.kill("capability:send_email")
        shop.app.send_task("send", ("mail",))

    message = published(shop, by_name)
    assert shop.deliver(message) == "IGNORED"
    (again,) = shop.messages()
    assert again.headers[STAMP] == message.headers[STAMP]
    assert shop.done == []
    shop.service.revive("capability:send_email")
    assert shop.deliver(again) == "SUCCESS"


def test_a_capability_that_is_frozen_since_discards_a_task(shop: Shop) -> None:
    """Also where its stamp is for another one, since it was published by name: it does not come again for ever."""

    def by_name() -> None:
        shop.app.send_task("send", ("mail",))

    message = published(shop, by_name)
    shop.service.kill("capability:send_email")
    shop.service.revive("capability:send_email")
    assert shop.deliver(message) == "IGNORED"
    assert shop.messages() == []
    assert shop.result(message).result["reason"] == "discarded"


def test_a_halt_in_the_body_is_no_error(shop: Shop) -> None:
    """The task is STOPPED, nothing is retried whatever autoretry says, and the worker goes on."""

    @task(shop.app, name="killed", autoretry_for=(Exception,))
    def killed() -> None:
        shop.service.kill("run:r-1")
        try:
            check()
        finally:
            shop.done.append("cleaned up")

    message = published(shop, killed.delay)
    assert shop.deliver(message) == "IGNORED"
    assert shop.done == ["cleaned up"]
    assert shop.messages() == []
    assert shop.result(message).state == STOPPED
    assert shop.result(message).result["reason"] == "killed"


def test_a_capability_that_is_frozen_in_mid_body_is_not_retried(shop: Shop) -> None:
    """Though it is an ordinary error; a body that answers it itself goes on."""

    @task(shop.app, name="frozen", autoretry_for=(Exception,))
    def frozen(answers: str) -> str:
        shop.service.kill("capability:charge_card")
        try:
            check("charge_card")
        except CapabilityFrozen:
            if answers != "yes":
                raise
        return "went on"

    assert shop.deliver(published(shop, lambda: frozen.delay("yes"))) == "SUCCESS"
    message = published(shop, lambda: frozen.delay("no"))
    assert shop.deliver(message) == "IGNORED"
    assert shop.result(message).result["reason"] == "frozen"
    assert shop.messages() == []


def test_a_group_of_halts_in_the_body(shop: Shop) -> None:
    """What a task group raises is a stop as well; a group of errors stays an error."""

    @task(shop.app, name="grouped")
    def grouped(what: str) -> None:
        if what == "fail":
            raise ExceptionGroup("two", [ValueError("one")])
        shop.service.kill("run:r-1")
        try:
            check()
        except Killed as error:
            raise BaseExceptionGroup("two", [error]) from None

    failing = published(shop, lambda: grouped.delay("fail"))
    assert shop.deliver(failing) == "FAILURE"
    assert shop.deliver(published(shop, lambda: grouped.delay("halt"))) == "IGNORED"


def test_an_error_that_an_abort_causes_is_the_stop(shop: Shop) -> None:
    """A callback of the task ends its call; that the call then breaks is no error of the task."""
    switch = shop.service.switch(background=True)
    install(shop.app, switch=lambda: switch, patience=10)

    @task(shop.app, name="calling", bind=True, autoretry_for=(ConnectionError,))
    def calling(this: Any) -> None:
        closed = threading.Event()
        this.on_abort(closed.set)
        shop.service.kill("run:r-1")
        assert closed.wait(30)
        raise ConnectionError("hung up")

    with switch:
        message = published(shop, calling.delay)
        assert shop.deliver(message) == "IGNORED"
    assert shop.result(message).result["reason"] == "killed"
    assert shop.messages() == []  # nor is it retried


def test_a_retry_has_the_stamp_of_its_first_message(shop: Shop) -> None:
    """However late it is published, it is as old as that, and discarded by whatever has come since."""

    @task(shop.app, name="again", bind=True, max_retries=5)
    def again(this: Any) -> None:
        shop.done.append("tried")
        shop.service.kill("tenant:another")  # the log has gone on: planned anew, it would be younger
        raise this.retry(countdown=0)

    message = published(shop, again.delay)
    assert shop.deliver(message) == "RETRY"
    (retry,) = shop.messages()
    assert retry.headers[STAMP] == message.headers[STAMP]
    assert retry.headers["retries"] == 1
    shop.service.kill("tenant:acme")
    shop.service.revive("tenant:acme")
    assert shop.deliver(retry) == "IGNORED"
    assert shop.done == ["tried"]


def test_the_rest_of_a_chain_follows_the_work_before_it(shop: Shop) -> None:
    """It has that work's position, so what discards the one discards the other; a stop ends the whole chain."""
    ids = []

    def chained() -> None:
        last = chain(shop.send.s("one"), shop.send.si("two"), shop.send.si("three")).apply_async()
        ids.extend([last.parent.id, last.id])

    first = published(shop, chained)
    assert shop.deliver(first) == "SUCCESS"
    (second,) = shop.messages()
    assert second.headers["id"] == ids[0]
    assert seq_of(second) == seq_of(first)
    assert extract({"baggage": second.headers["baggage"]}) == extract({"baggage": first.headers["baggage"]})
    shop.service.kill("run:r-1")
    assert shop.deliver(second) == "IGNORED"
    assert [AsyncResult(each, app=shop.app).state for each in ids] == [STOPPED, STOPPED]
    assert shop.done == [("one", "r-1")]


def test_what_a_killed_body_leaves_to_be_published_is_refused(shop: Shop) -> None:
    """A body that never asked ends well after the kill; its callback is published, and stopped by the worker."""

    @task(shop.app, name="deaf")
    def deaf() -> None:
        shop.service.kill("run:r-1")

    message = published(shop, lambda: deaf.apply_async(link=shop.send.si("after")))
    assert shop.deliver(message) == "SUCCESS"
    (after,) = shop.messages()
    assert shop.deliver(after) == "IGNORED"
    assert shop.done == []


def test_eagerly_the_stamp_is_redeemed_at_once(shop: Shop) -> None:
    """In this process and with the same rules, retries included."""
    shop.app.conf.task_always_eager = True

    @task(shop.app, name="twice", bind=True)
    def twice(this: Any) -> int:
        if this.request.retries == 0:
            raise this.retry(countdown=0)
        return int(this.request.retries)

    @task(shop.app, name="late")
    def late() -> None:
        shop.service.kill("run:r-1")
        check()

    with shop.switch.run("r-1"):
        assert shop.send.delay("mail").get() == "mail"
        assert twice.delay().get() == 1
        stopped = late.delay()
        assert stopped.state == STOPPED
        assert stopped.result["reason"] == "killed"
        with pytest.raises(Killed):
            shop.send.delay("mail")
    assert shop.done == [("mail", "r-1")]


def test_a_task_that_is_called_is_part_of_its_caller(shop: Shop) -> None:
    """A plain call is no planned work: it asks the current run, and is stopped where there is none."""
    with shop.switch.run("r-9") as run:
        assert shop.send("called") == "called"
        shop.service.kill("run:r-9")
        with pytest.raises(Killed):
            shop.send("called")
        assert run.halted is not None
    with pytest.raises(Unverified):
        shop.send("called")
    assert shop.done == [("called", "r-9")]
