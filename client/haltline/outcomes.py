"""Outcomes: telling the service how the runs that a kill stopped have ended, and what became of their cleanups.

Information, never in the way: a thread and a connection of its own, made when there is something to tell. Told in
batches, again and again within bounds while the service cannot be reached, and in a hurry when the process ends.
"""

from __future__ import annotations

import atexit
import math
import os
import re
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from haltline.canonical import canonical
from haltline.errors import ServiceError
from haltline.native import Thread, make_condition, make_thread

if TYPE_CHECKING:
    from haltline.acks import AckTransport
    from haltline.asks import Identity
    from haltline.cleanup import Cleanup

OUTCOMES_PATH: Final = "/v1/outcomes"

BATCH_MAX: Final = 100
"""How many outcomes one request carries at most."""

BODY_MAX_BYTES: Final = 15 * 1024
"""The largest request; the service takes 16 KiB."""

WAITING_MAX: Final = 1_000
"""How many outcomes wait at most while the service cannot be reached; later ones are dropped, and counted."""

TRIES_MAX: Final = 10
"""How often in a row a request may fail before what it carries is dropped: about two minutes."""

LEAVE_S: Final = 1.5
"""How long closing a switch, or the end of the process, waits for what is still to be told, seconds."""

CLEANUPS_MAX: Final = 250
"""How many cleanups an outcome tells of at most."""

_TOKEN: Final = re.compile(r"hlt_[a-z0-9-]{1,32}_[a-z0-9]{12}_[0-9A-Za-z]+", re.ASCII)
_DAY_MS: Final = 86_400_000
_DEADLINE_S: Final = 5.0
_GATHER_S: Final = 0.1
_BACKOFF_S: Final = 0.5
_BACKOFF_MAX_S: Final = 30.0
_HURRY_S: Final = 0.1
_IDLE_S: Final = 5.0
_REPLY_MAX_BYTES: Final = 16 * 1024
_BUSY: Final = frozenset({408, 425, 429})
_TOO_MUCH: Final = frozenset({400, 413, 422})


@dataclass(frozen=True, slots=True)
class Ending:
    """How one run ended that a kill stopped.

    Attributes:
        run: the run's id.
        flip: the position of the kill in the log.
        at: when, seconds since 1970.
        ended: ``cleanup``, its block was left; ``killed``, it was not, and the process group was killed for it.
        cleanups: what became of its cleanups, the newest first.
    """

    run: str
    flip: int
    at: float
    ended: Literal["cleanup", "killed"]
    cleanups: tuple[Cleanup, ...]


def _random() -> float:
    return int.from_bytes(os.urandom(2), "big") / 2**16


class Outcomes:
    """Tells the service how runs ended, from a thread of its own.

    Args:
        transport: makes the transport, each time there is something to tell after a quiet time.
        identity: returns who tells.
    """

    def __init__(self, transport: Callable[[], AckTransport], identity: Callable[[], Identity]) -> None:
        self._make_transport = transport
        self._identity = identity
        self._transport: AckTransport | None = None
        self._closed = False
        self.begin_anew()

    def begin_anew(self) -> None:
        """Set up what belongs to one process; what still waits is the parent's to tell."""
        if self._transport is not None:
            self._transport.close()  # this process's end of it: the parent goes on using its own
        self._changed = make_condition()
        self._thread: Thread | None = None
        self._transport = None
        self._waiting: deque[bytes] = deque()
        self._telling = 0
        self._dropped = 0
        self._failures = 0
        self._batch_max = BATCH_MAX
        self._due = 0.0
        self._hurry_until = 0.0

    @property
    def waiting(self) -> int:
        """How many are still to be told."""
        return len(self._waiting) + self._telling

    def tell(self, ending: Ending) -> None:
        """Have an ending told soon; return at once. Where too many wait already, it is dropped."""
        told = document(ending, self._identity())
        with self._changed:
            if self._closed or len(self._waiting) >= WAITING_MAX:
                self._dropped += 1
                return
            _leave_with(self)
            if not self._waiting and not self._failures:
                # Many runs end at one kill, and many workers: a batch, and not all of them in one moment.
                self._due = max(self._due, time.monotonic() + (0.5 + _random() / 2) * _GATHER_S)
            self._waiting.append(told)
            self._changed.notify_all()
            self._start()

    def flush(self, seconds: float = LEAVE_S) -> bool:
        """Have everything told now, waiting so many seconds at most, and return whether it was."""
        end = time.monotonic() + seconds
        with self._changed:
            self._hurry_until = max(self._hurry_until, end)
            self._changed.notify_all()
            if self.waiting and not self._start():
                # The interpreter is ending, and starts no thread any more.
                self._run(end)
            while self.waiting and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
            return not self.waiting

    def close(self, seconds: float = LEAVE_S) -> None:
        """Have everything told, waiting so many seconds at most, and end the thread."""
        self.flush(seconds)
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
            thread, transport = self._thread, self._transport
        if transport is not None:
            transport.interrupt()
        if thread is not None:
            with suppress(RuntimeError):  # it was never started, or it is this very thread
                thread.join(0.5)

    def _start(self) -> bool:
        """See to it that the thread runs, and return whether it does; the caller holds the lock."""
        if self._thread is not None and self._thread.is_alive():
            return True
        self._telling = 0
        self._thread = make_thread(self._run, name="haltline-outcomes")
        try:
            self._thread.start()
        except RuntimeError:  # no thread to be had: the next one that is told tries again
            self._thread = None
            return False
        return True

    def _run(self, until: float = math.inf) -> None:
        transport = self._make_transport()
        self._transport = transport
        try:
            while batch := self._next(until):
                status: int | None = None
                with suppress(ServiceError):
                    status = transport.post(
                        OUTCOMES_PATH, _body(batch), deadline_s=self._deadline_s(), limit=_REPLY_MAX_BYTES
                    ).status
                if status is None:
                    transport.rotate()
                self._told(batch, status)
        finally:
            transport.close()
            with self._changed:
                if self._transport is transport:
                    self._transport = None

    def _deadline_s(self) -> float:
        left = self._hurry_until - time.monotonic()
        return min(_DEADLINE_S, left) if left > 0 else _DEADLINE_S

    def _next(self, until: float) -> list[bytes]:
        """Return what to tell next, once it is due; nothing if the thread is to end."""
        with self._changed:
            idle = time.monotonic() + _IDLE_S
            while not self._closed and (now := time.monotonic()) < until:
                hurry = now < self._hurry_until
                if hurry:  # the first try is made at once, and a failure tried again soon
                    self._due = min(self._due, now + (_HURRY_S if self._failures else 0))
                if self._waiting and self._due <= now:
                    return self._taken()
                if not self._waiting and (hurry or now >= idle):
                    break
                self._changed.wait(min(self._due if self._waiting else idle, until) - now)
            # Under the lock: whoever has something to tell from here on starts another thread.
            self._thread = None
            return []

    def _taken(self) -> list[bytes]:
        batch: list[bytes] = []
        size = len(_body(batch))
        while self._waiting and len(batch) < self._batch_max:
            size += len(self._waiting[0]) + 1
            if batch and size > BODY_MAX_BYTES:
                break
            batch.append(self._waiting.popleft())
        self._telling = len(batch)
        return batch

    def _told(self, batch: Sequence[bytes], status: int | None) -> None:
        """Note what a request came to: its status, or None if it came to nothing."""
        with self._changed:
            self._telling = 0
            refused = 0
            if status is not None and 200 <= status < 300:
                self._failures, self._batch_max = 0, BATCH_MAX
            elif status in _TOO_MUCH and len(batch) > 1:
                self._batch_max = len(batch) // 2  # one that is not taken must not cost the others
                self._waiting.extendleft(reversed(batch))
            elif (status is None or status >= 500 or status in _BUSY) and self._failures + 1 < TRIES_MAX:
                self._failures += 1
                longest = min(_BACKOFF_S * 2 ** (self._failures - 1), _BACKOFF_MAX_S)
                self._due = time.monotonic() + (0.5 + _random() / 2) * longest
                self._waiting.extendleft(reversed(batch))
            else:
                self._failures, self._batch_max = 0, BATCH_MAX
                refused = len(batch)
            dropped, self._dropped = self._dropped, 0
            self._changed.notify_all()
        if refused or dropped:
            _say(refused, dropped, status)


def document(ending: Ending, identity: Identity) -> bytes:
    """Return an ending as the service takes it, no larger than a request may be.

    Args:
        ending: how a run ended.
        identity: who tells.
    """
    micros = round(ending.at * 1e6)
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(micros // 1_000_000)) + f".{micros % 1_000_000:06d}Z"
    members: dict[str, Any] = {
        "run": ending.run,
        "flip": ending.flip,
        "worker": identity.worker,
        "instance": identity.instance,
        "at": at,
        "ended": ending.ended,
    }
    # Where it is too much, those that did not end as they should are worth more.
    shown = sorted(ending.cleanups, key=lambda each: each.outcome == "done")[:CLEANUPS_MAX]
    while True:
        members["cleanups"] = [_cleanup(each) for each in shown]
        made = canonical(members)
        if len(made) <= BODY_MAX_BYTES - 64:
            return made
        shown = shown[: len(shown) // 2]


def _cleanup(cleanup: Cleanup) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": _plain(cleanup.name),
        "outcome": cleanup.outcome,
        "ms": min(round(cleanup.seconds * 1000), _DAY_MS),
    }
    if cleanup.detail:
        told["detail"] = _plain(cleanup.detail)
    return told


def _plain(text: str) -> str:
    """Return text in one line that every reader takes: no control characters, no lone surrogates, no token."""
    shown = "".join(each if each.isprintable() else " " for each in text)
    return _TOKEN.sub("hlt_...", shown)


def _body(batch: Sequence[bytes]) -> bytes:
    return b'{"outcomes":[' + b",".join(batch) + b"]}"


def _say(refused: int, dropped: int, status: int | None) -> None:
    import logging  # 5 ms that importing the client need not cost

    answered = "no answer" if status is None else f"status {status}"
    logging.getLogger("haltline").warning(
        "outcomes were not told: %d refused or never taken (%s), %d because too many waited",
        refused,
        answered,
        dropped,
    )


_leaving: Final[weakref.WeakSet[Outcomes]] = weakref.WeakSet()


def _leave_with(outcomes: Outcomes) -> None:
    """Have what waits told when the process ends."""
    if not _leaving:
        atexit.unregister(_leave)
        atexit.register(_leave)
    _leaving.add(outcomes)


def _leave() -> None:
    end = time.monotonic() + LEAVE_S
    for outcomes in list(_leaving):
        outcomes.flush(max(0.0, end - time.monotonic()))
