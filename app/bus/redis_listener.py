"""The listener: a thread that stays subscribed to a channel, and turns what it hears into rings.

Whatever comes there is at most a reason to read the log, and read it often the node never does because of it: messages
that come together ring once, and somebody who floods the channel is hung up on.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import structlog
from redis.exceptions import RedisError

from app.bus.allowance import Allowance
from app.bus.backoff import Backoff
from app.service.doorbell import MAYBE_MISSED, DoorbellUnavailable

if TYPE_CHECKING:
    from redis.connection import Connection, ConnectionPool

FAILURES: Final = (RedisError, OSError, ValueError)
"""What redis-py raises where Redis is away, unwilling, or something else altogether; names may fail to be encoded."""

LOOK_S: Final = 0.1
"""How often the thread looks whether it is to end, seconds."""

PAUSE_S: Final = 0.002
"""How long it hears nothing after it has rung, seconds: what comes meanwhile is one more ring, not many."""

BATCH: Final = 64
"""How many messages it reads before it lets others of this process run."""

QUIET_S: Final = 1.0
"""After how long without a message it asks whether Redis is still there, and how long that may take, seconds."""

STEADY_S: Final = 1.0
"""How long a subscription must have stood to count as one, seconds."""

_POSITION: Final = re.compile(rb"[1-9][0-9]{0,18}")
_log: Final[Any] = structlog.get_logger(__name__)


def position(message: object) -> int | None:
    """Return the position that a message on the channel rings for; None if it is anything else."""
    match message:
        case [b"message", _, bytes(data)] if _POSITION.fullmatch(data):
            return int(data)
        case _:
            return None


class Listener:
    """Hears one channel, for as long as it is not closed."""

    def __init__(self, pool: ConnectionPool, channel: str, backoff: Backoff, closed: threading.Event) -> None:
        self._pool = pool
        self._channel = channel
        self._backoff = backoff
        self._closed = closed
        self._listeners: tuple[Callable[[int], None], ...] = ()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._steady: bool | None = None

    def add(self, heard: Callable[[int], None]) -> None:
        """Call ``heard`` with the newest position of what came together."""
        self._listeners = (*self._listeners, heard)

    def ensure_running(self) -> None:
        """Start the thread, unless it runs or is to end."""
        with self._starting:
            if self._closed.is_set() or (self._thread is not None and self._thread.is_alive()):
                return
            self._thread = threading.Thread(target=self._run, name="haltline-doorbell", daemon=True)
            self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread, which was told to end."""
        with self._starting:
            thread = self._thread
        if thread is not None:
            thread.join(timeout_s)

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._subscription()
            except (*FAILURES, DoorbellUnavailable) as error:
                self._tell(steady=False, detail=str(error))
            self._closed.wait(self._backoff.next_s())

    def _subscription(self) -> None:
        """Stay subscribed until something breaks."""
        connection: Connection = self._pool.get_connection()
        try:
            connection.send_command("SUBSCRIBE", self._channel)
            answer = connection.read_response()
            if not isinstance(answer, list) or answer[:1] != [b"subscribe"]:
                raise DoorbellUnavailable(f"Redis did not subscribe: it said {str(answer)[:100]}")
            self._ring(MAYBE_MISSED)
            self._hear(connection)
        finally:
            connection.disconnect()
            self._pool.release(connection)
            if self._closed.is_set():
                self._pool.disconnect(inuse_connections=False)

    def _hear(self, connection: Connection) -> None:
        since = spoke = time.monotonic()
        allowance = Allowance(since)
        asked = False
        while not self._closed.is_set():
            if connection.can_read(timeout=LOOK_S):
                newest = self._newest(connection, allowance)
                if newest is not None:
                    self._ring(newest)
                self._closed.wait(PAUSE_S)
                spoke, asked = time.monotonic(), False
            now = time.monotonic()
            if now - since >= STEADY_S and not self._steady:
                self._tell(steady=True)
                self._backoff.reset()
            if now - spoke >= 2 * QUIET_S:
                raise DoorbellUnavailable("Redis does not answer")
            if now - spoke >= QUIET_S and not asked:
                # A peer that vanished says nothing for ever, and so does a channel on which nothing happens.
                connection.send_command("PING", check_health=False)
                asked = True

    def _newest(self, connection: Connection, allowance: Allowance) -> int | None:
        """Read what has come, up to a batch, and return the newest position in it; None if there is none."""
        newest = None
        for _ in range(BATCH):
            message = connection.read_response()
            size = len(message[-1]) if isinstance(message, list) and isinstance(message[-1], bytes) else 0
            if allowance.exceeded(size, time.monotonic()):
                raise DoorbellUnavailable(f"the channel {self._channel} is flooded: find out who may publish there")
            found = position(message)
            if found is not None and (newest is None or found > newest):
                newest = found
            if not connection.can_read(timeout=0):
                break
        return newest

    def _ring(self, seq: int) -> None:
        for heard in self._listeners:
            heard(seq)

    def _tell(self, *, steady: bool, detail: str = "") -> None:
        """Log a change, and nothing while it stays as it is."""
        if steady == self._steady:
            return
        before, self._steady = self._steady, steady
        if not steady:
            _log.warning("doorbell_deaf", detail=detail, action="this node reads at its next turn instead")
        elif before is False:
            _log.info("doorbell_heard_again")
