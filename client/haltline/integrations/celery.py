"""Celery: a task is planned when it is published, and redeemed by the worker that is about to carry it out.

Celery swallows what a signal handler raises, so the refusing is done where nothing swallows it: ``apply_async`` of
:class:`HaltTask` before the message leaves, and its ``__call__`` before the body begins. The stamp is a header of the
message. Celery copies headers into each retry and keeps them in each re-delivery, so all of these are one piece of
planned work, as old as its first message.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn

from celery import Celery, Task
from celery.app.task import get_actual_ignore_result
from celery.exceptions import Ignore, Reject
from celery.result import EagerResult
from celery.utils import uuid

from haltline.aborting import Callback
from haltline.context import here
from haltline.current import check, current_run
from haltline.draining import discarded
from haltline.errors import CapabilityFrozen, Halt, StampRefused, Unverified
from haltline.integrations.celery_setting import (
    STAMP,
    STOPPED,
    Unstamped,
    Work,
    ended_work,
    install,
    payload_hash,
    prepare,
    serves,
    setting_of,
    stamp,
    switch_of,
    work_of,
)
from haltline.propagation import extract
from haltline.run import Run
from haltline.verdict import Reason, Refusal, Stop

__all__ = ["STAMP", "STOPPED", "HaltTask", "Stopped", "Unstamped", "install", "switch_of"]

_WAITS: Final = "haltline-waits"
"""The header that counts how often a task was put back because nothing was proven."""
_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 60.0

_OWN: Final = "celery."
"""How the names of Celery's own tasks begin; they may come without a stamp, and then run without a run."""

_NO_STAMP: Final = Stop(
    Reason.NO_RUN, detail="the task has no stamp: publish it inside a run, or set unstamped='run' for it"
)

_log = logging.getLogger("haltline")


class Stopped(Ignore):  # type: ignore[misc]  # Celery has no types
    """How a stopped task leaves the worker's tracer: the message is acknowledged, and nothing else is done.

    Attributes:
        meta: what is stored as the task's result.
    """

    def __init__(self, meta: dict[str, Any]) -> None:
        super().__init__(meta)
        self.meta = meta


class HaltTask(Task):  # type: ignore[misc]  # Celery has no types
    """The base of tasks that a kill stops: ``Celery("mail", task_cls=HaltTask)`` or ``@app.task(base=HaltTask)``.

    Inside the body the task's work is the current run, planned when the task was published.

    Attributes:
        capability: the capability that the task uses; by default its name in lower case. Freezing it stops the task.
        unstamped: what becomes of it without a stamp; by default as :func:`install` says.
    """

    abstract = True
    dont_autoretry_for = (Halt, CapabilityFrozen, StampRefused)
    capability: str | None = None
    unstamped: Unstamped | None = None

    @classmethod
    def on_bound(cls, app: Celery) -> None:
        """Celery calls this when the class gets its app."""
        prepare()
        super().on_bound(app)

    @property
    def halt_capability(self) -> str:
        """The capability that the task is planned for."""
        name: str = self.capability or self.name
        return name.lower() if self.capability is None else name

    def on_abort(self, callback: Callback) -> Callback:
        """Have ``callback`` called if a kill ends this task; see :meth:`haltline.abortable.Abortable.on_abort`.

        Raises:
            RuntimeError: this is not a task's body in a worker.
        """
        work = work_of(self.request_stack.top)
        if work is None:
            raise RuntimeError("on_abort() belongs into the body of a task that a worker carries out")
        return work.call.on_abort(callback)

    def retry(self, *args: Any, **kwargs: Any) -> Any:
        """Retry the task as ever, with the stamp that it has.

        Raises:
            Killed: a kill has ended its call, and what failed because of that is not tried again.
        """
        work = work_of(self.request_stack.top)
        if work is not None and work.call.stop is not None:
            raise work.run.stopped_by(work.call.stop, self.halt_capability)
        return super().retry(*args, **kwargs)

    # -- publishing -----------------------------------------------------------------------------------------------

    def apply_async(
        self, args: Any = None, kwargs: Any = None, task_id: str | None = None, *more: Any, **options: Any
    ) -> Any:
        """Plan the task and publish it.

        Raises:
            Killed: the current run is stopped; likewise Unverified (also where no run is current, unless the task may
                come without a stamp) and CapabilityFrozen.
        """
        task_id = task_id or uuid()
        options["headers"] = self._stamped(options.get("headers"), task_id)
        return super().apply_async(args, kwargs, task_id, *more, **options)

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Plan the task and carry it out here and now, as ``task_always_eager`` does. A stopped one ends as STOPPED."""
        options["task_id"] = options.get("task_id") or uuid()
        options["headers"] = self._stamped(options.get("headers"), options["task_id"])
        result = super().apply(args, kwargs, **options)
        if isinstance(result.result, Stopped):
            return EagerResult(result.id, result.result.meta, STOPPED, name=self.name)
        return result

    def _stamped(self, headers: dict[str, Any] | None, task_id: str) -> dict[str, Any]:
        headers = dict(headers or {})
        if STAMP not in headers:  # a retry has that of its first message
            stamp(headers, self.name, self.halt_capability, task_id)
        if STAMP not in headers and self._unstamped() == "refuse" and not serves():
            current_run()  # raises: there is none
        return headers

    def _unstamped(self) -> Unstamped:
        if self.name.startswith(_OWN):
            return "run"
        return self.unstamped or setting_of(self.app).unstamped

    # -- carrying out ---------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Carry out the body, if it may be; Celery's tracer calls this, in whatever pool."""
        request = self.request_stack.top
        if request is None or request.called_directly or work_of(request) is not None:
            return self._called(*args, **kwargs)
        try:
            if self.name.startswith(_OWN) and STAMP not in (request.headers or {}):
                return self.run(*args, **kwargs)
            with self._entered(request) as run, run.abortable(self.halt_capability) as call:
                request.haltline = Work(run, call)
                return self.run(*args, **kwargs)
        except (Halt, CapabilityFrozen, StampRefused, BaseExceptionGroup) as error:
            self._end(error, request)

    def _called(self, *args: Any, **kwargs: Any) -> Any:
        """Run the body as the function that it is: a task that is called is part of its caller's run."""
        if here() is None:
            if self.name.startswith(_OWN):
                return super().__call__(*args, **kwargs)  # Celery's housekeeping
            if serves() and (ended_work() is not None or self._unstamped() == "refuse"):
                return self._called_back(*args, **kwargs)
            if self._unstamped() == "run":
                setting = setting_of(self.app)
                with setting.switch().run(f"celery.{uuid()}", timeout=setting.patience) as run:
                    run.check(self.halt_capability)
                    return super().__call__(*args, **kwargs)
        check(self.halt_capability)
        return super().__call__(*args, **kwargs)

    def _called_back(self, *args: Any, **kwargs: Any) -> Any:
        """Run an errback, which Celery calls once the body has failed, as part of that work; or refuse it.

        Celery logs an ordinary error of an errback. A Halt would pass on, and end its loop.
        """
        try:
            work = ended_work()
            if work is None:
                check(self.halt_capability)
            else:
                with work.run:
                    check(self.halt_capability)
                    return super().__call__(*args, **kwargs)
        except Halt as halt:
            raise Stopped(self._meta(halt.verdict.reason.value, str(halt))) from halt

    @contextmanager
    def _entered(self, request: Any) -> Iterator[Run]:
        """Enter the run that the task is carried out in.

        Raises:
            StampRefused: it must not be carried out; likewise Killed.
            Unverified: nothing proves that it may be.
        """
        setting = setting_of(self.app)
        headers = request.headers or {}
        planned = headers.get(STAMP)
        run: Run
        if planned is not None:
            run = self._redeemed(planned, request)
        elif self._unstamped() == "refuse":
            raise Unverified(f"stopped: {_NO_STAMP.detail}", verdict=_NO_STAMP)
        else:
            carried = extract({name: value for name, value in headers.items() if isinstance(value, str)})
            if carried is not None:
                run = setting.switch().join(carried, timeout=setting.patience)
            else:
                run = setting.switch().run(f"celery.{request.id}", timeout=setting.patience)
        with run:
            yield run

    def _redeemed(self, planned: str, request: Any) -> Run:
        """Return the work of a stamp; what was published by name was planned for another capability than this one."""
        setting = setting_of(self.app)
        whose = payload_hash(self.name, request.id)
        work = setting.switch().redeem(planned, payload_hash=whose, timeout=setting.patience)
        if discarded(work.replica, work.lineage.path(), work.stamp.seq, self.halt_capability):
            raise StampRefused(
                f"the stamp of run {work.id} is refused (discarded): {self.halt_capability} was killed since",
                reason=Refusal.DISCARDED,
            )
        return work

    def _end(self, error: BaseException, request: Any) -> NoReturn:
        """End a task that was stopped, or have it come again where nothing is proven yet."""
        began = work_of(request) is not None
        if isinstance(error, BaseExceptionGroup):
            halts = error.subgroup(Halt)
            if halts is None:
                raise error
            error = _first(halts)
        if isinstance(error, StampRefused):
            if began:
                raise error  # the body has redeemed something else: an error like any other
            reason, detail, final = error.reason.value, str(error), error.final
        elif isinstance(error, Halt | CapabilityFrozen):
            reason, detail = error.verdict.reason.value, str(error)
            final = began or error.verdict.reason in (Reason.KILLED, Reason.NO_RUN, Reason.FOREIGN)
        else:
            raise error
        if not final and not request.is_eager:
            self._put_back(request, reason, detail)
        meta = self._meta(reason, detail)
        self._store(request, meta)
        _log.warning("task %s[%s] is stopped (%s): %s", self.name, request.id, reason, detail)
        raise Stopped(meta) from None

    def _meta(self, reason: str, detail: str) -> dict[str, Any]:
        return {"status": "stopped", "reason": reason, "detail": detail, "capability": self.halt_capability}

    def _store(self, request: Any, meta: dict[str, Any]) -> None:
        """Store the outcome, also for the rest of its chain, which nothing will publish."""
        if request.is_eager and not self.store_eager_result:
            return
        if not get_actual_ignore_result(self, request):
            self.backend.store_result(request.id, meta, STOPPED, request=request)
        for each in request.chain or ():
            task_id = each.get("options", {}).get("task_id")
            if task_id is not None:
                self.backend.store_result(task_id, meta, STOPPED)

    def _put_back(self, request: Any, reason: str, detail: str) -> NoReturn:
        """Publish the same task for later. It is no retry: its count stays, and so does its stamp."""
        headers = dict(request.headers or {})
        waits = headers.get(_WAITS)
        waits = waits if isinstance(waits, int) and 0 <= waits < 30 else 0
        headers[_WAITS] = waits + 1
        pause = min(_FIRST_WAIT_S * 2**waits, _LONGEST_WAIT_S)
        again = self.signature_from_request(request, retries=request.retries, countdown=pause, headers=headers)
        try:
            again.apply_async()
        except Exception as error:
            raise Reject(error, requeue=True) from error
        _log.info("task %s[%s] comes again in %g s (%s): %s", self.name, request.id, pause, reason, detail)
        raise Ignore(reason)


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group
