"""The tasks of the tests with a live worker: ``celery -A tests.support.celery_tasks worker``.

The broker, which keeps the results as well, comes from SHOP_BROKER, and the sink's port from SHOP_SINK; the service's
address and token as usual. Effects are lines to the sink: ``<run> <kind>``.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from celery import Celery

from haltline import current_run
from haltline.integrations.celery import HaltTask, install
from tests.support.sinks import effect

BROKER = os.environ.get("SHOP_BROKER", "memory://")
SINK = int(os.environ.get("SHOP_SINK", "0"))


def task(app: Celery, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return the decorator of an app's task, for type checkers; no other app of this process shares the task."""
    decorate: Callable[[Callable[..., Any]], Any] = app.task(shared=False, **options)
    return decorate


def make(broker: str) -> Celery:
    """Return the app on a broker; workers and publishers make the same."""
    app = Celery("shop", broker=broker, backend=broker.replace("memory://", "cache+memory://"), task_cls=HaltTask)
    app.conf.update(
        task_acks_late=True,
        task_default_queue="shop",
        worker_prefetch_multiplier=4,
        broker_connection_retry_on_startup=True,
        broker_transport_options={"visibility_timeout": 120},
        result_backend_transport_options={"visibility_timeout": 120},
    )
    install(app)

    @task(app, name="mail", capability="send_email")
    def mail(kind: str) -> int:
        run = current_run()
        with run.effect("send_email"):
            effect(SINK, f"{run.id} {kind}")
        return os.getpid()

    @task(app, name="failing", capability="send_email", bind=True)
    def failing(this: Any, pause: float) -> None:
        run = current_run()
        if this.request.retries == 0:
            effect(SINK, f"{run.id} failed")
            raise this.retry(countdown=pause)
        with run.effect("send_email"):
            effect(SINK, f"{run.id} retry")

    @task(app, name="slow", capability="send_email", bind=True)
    def slow(this: Any) -> None:
        run = current_run()
        hung_up = threading.Event()
        this.on_abort(hung_up.set)
        effect(SINK, f"{run.id} begun")
        try:
            if hung_up.wait(60):
                raise ConnectionError("hung up in mid-call")
            effect(SINK, f"{run.id} ended")
        finally:
            effect(SINK, f"{run.id} finally")

    @task(app, name="broken")
    def broken(seconds: float) -> None:
        time.sleep(seconds)
        raise ValueError("broken")

    @task(app, name="told")
    def told(request: Any, error: Exception, traceback: Any) -> None:
        effect(SINK, f"{current_run().id} told")

    return app


app = make(BROKER)
