"""Celery: what an app says of stopping, its switch in each process of a worker, and the stamps in its messages."""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from celery import Celery, current_task, signals, states
from celery.backends.base import Backend

from haltline.abortable import Abortable
from haltline.context import here
from haltline.propagation import inject
from haltline.run import Run
from haltline.switch import KillSwitch

STAMP: Final = "haltline-stamp"
"""The header that has a task's stamp."""

STOPPED: Final = "STOPPED"
"""The state of a task that was stopped: neither success nor failure, and never retried."""

Unstamped = Literal["refuse", "run"]


@dataclass
class Setting:
    """What one app says, and its switch in this process."""

    make: Callable[[], KillSwitch] = KillSwitch
    unstamped: Unstamped = "refuse"
    patience: float = 2.0
    _switch: KillSwitch | None = None
    _making: threading.Lock = field(default_factory=threading.Lock)

    def switch(self) -> KillSwitch:
        """Return the switch of this process."""
        with self._making:
            if self._switch is None:
                self._switch = self.make()
            return self._switch

    def begin_anew(self) -> None:
        """Become a child of the pool: whatever the parent had, this process has a switch and a lease of its own."""
        self._making = threading.Lock()
        self._switch = None
        self.switch().ensure(0)  # the lease is asked for; the first task waits for it

    def close(self) -> None:
        """Close the switch, if one was made."""
        switch, self._switch = self._switch, None
        if switch is not None:
            switch.close()


_settings: Final[weakref.WeakKeyDictionary[Celery, Setting]] = weakref.WeakKeyDictionary()


def install(
    app: Celery,
    *,
    switch: Callable[[], KillSwitch] = KillSwitch,
    unstamped: Unstamped = "refuse",
    patience: float = 2.0,
) -> None:
    """Say how an app's tasks are stopped, where its module makes it; publishers and workers alike.

    Args:
        app: the app, whose tasks are of :class:`haltline.integrations.celery.HaltTask`: ``Celery(...,
            task_cls=HaltTask)`` or ``base=HaltTask``.
        switch: makes the switch of a worker's process, once in each: after the fork, in the prefork pool. By default
            from the environment variables HALTLINE_URL and HALTLINE_TOKEN.
        unstamped: what becomes of a task that was published outside any run: ``refuse`` it, or ``run`` it in a run of
            its own, which is armed when it begins. A task may say otherwise: ``@app.task(unstamped="run")``.
        patience: how long a worker waits for a live lease before it puts a task back, seconds.
    """
    _settings[app] = Setting(switch, unstamped, patience)
    prepare()


def switch_of(app: Celery) -> KillSwitch:
    """Return the switch of an app in this process, for its ``discarded()`` and ``trouble``."""
    return setting_of(app).switch()


def setting_of(app: Any) -> Setting:
    """Return what an app, or the proxy of one, says."""
    plain: Celery = app._get_current_object() if hasattr(app, "_get_current_object") else app  # noqa: SLF001 - a proxy's
    return _settings.setdefault(plain, Setting())


# -- stamps --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Work:
    """What a request is carried out as."""

    run: Run
    call: Abortable


def work_of(request: Any) -> Work | None:
    """Return what a request is carried out as; None where its body has not begun."""
    work = getattr(request, "haltline", None)
    return work if isinstance(work, Work) else None


def ended_work() -> Work | None:
    """Return the work whose body has ended in this thread, while Celery deals with what came of it; None elsewhere."""
    return work_of(getattr(current_task, "request", None))


def payload_hash(name: str, task_id: str) -> str:
    """Return what binds a stamp to its task: no other message can use it."""
    return f"celery:{hashlib.sha256(f'{name} {task_id}'.encode()).hexdigest()}"


def stamp(headers: dict[str, Any], name: str, capability: str, task_id: str) -> None:
    """Put the stamp of a task, and the run that plans it, into its headers; nothing where there is no run.

    What Celery publishes for a task once its body has ended, callbacks and the rest of its chain, follows that work: it
    has its position, and is refused where that work would be.

    Raises:
        Killed: the current run is stopped; likewise Unverified and CapabilityFrozen.
    """
    whose = payload_hash(name, task_id)
    entered = here()
    if entered is not None:
        headers[STAMP] = entered.run.plan(capability, payload_hash=whose)
        inject(headers, run=entered.run)
        return
    work = ended_work()
    if work is not None:
        headers[STAMP] = work.run.plan_after(capability, payload_hash=whose)
        inject(headers, run=work.run)


# -- signals -------------------------------------------------------------------------------------------------------


class _Process:
    """What this process is."""

    serves = False


def serves() -> bool:
    """Return whether this is a process of a worker, or of a beat: a Halt that is raised in its main loop would end it.

    There, what has no run is published without a stamp, and refused by the worker that takes it.
    """
    return _Process.serves


def _before_publish(sender: str, headers: dict[str, Any], **_: Any) -> None:
    """Stamp what is published by name, as ``app.send_task`` does it.

    A Halt passes through Celery's signals and refuses; an ordinary error would be logged and the message sent, so that
    such a message is given a stamp that no worker takes.
    """
    if STAMP in headers or "id" not in headers:
        return
    try:
        stamp(headers, sender, sender.lower(), headers["id"])
    except Exception as error:
        headers[STAMP] = f"refused when this was published: {type(error).__name__}"
        raise


def _begin_serving(**_: Any) -> None:
    _Process.serves = True


def _begin_child(**_: Any) -> None:
    _Process.serves = True
    for setting in tuple(_settings.values()):
        setting.begin_anew()


def _close(**_: Any) -> None:
    for setting in tuple(_settings.values()):
        setting.close()


def prepare() -> None:
    """Connect the signals, and have Celery know STOPPED for a state in which a task has ended: ``get()`` returns."""
    if STOPPED not in states.READY_STATES:
        states.READY_STATES = states.READY_STATES | {STOPPED}
        Backend.READY_STATES = states.READY_STATES
    signals.before_task_publish.connect(_before_publish, dispatch_uid="haltline")
    for begun in (signals.worker_init, signals.beat_init):
        begun.connect(_begin_serving, dispatch_uid="haltline")
    signals.worker_process_init.connect(_begin_child, dispatch_uid="haltline")
    for ended in (signals.worker_process_shutdown, signals.worker_shutdown):
        ended.connect(_close, dispatch_uid="haltline")
