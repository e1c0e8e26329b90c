"""One connection through a fault proxy: its two directions, and what is on its way in each."""

from __future__ import annotations

import contextlib
import math
import random
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Final

from tests.support.fault_modes import Fault, Mode
from tests.support.fault_records import Record

BACKLOG_MAX: Final = 4 * 1024 * 1024
"""How many bytes one direction holds back before the proxy stops reading: memory is bounded."""


class Pipe:
    """One direction of one connection: what has come in, and when each piece may leave.

    Attributes:
        source: where bytes come from; None once nothing more comes.
        sink: where they go.
        lost: whether a byte or an end was swallowed: nothing more passes then, ever.
        full: whether the sink takes no more at present.
    """

    def __init__(self, source: socket.socket | None, sink: socket.socket | None, *, draw: Callable[[], float]) -> None:
        self.source = source
        self.sink = sink
        self.lost = False
        self.full = False
        self._draw = draw
        self._queue: deque[tuple[float, bytes, float]] = deque()  # due, bytes (empty: the end), seconds a byte
        self._held = 0
        self._last_due = 0.0

    @property
    def reading(self) -> bool:
        """Whether more should be read from the source."""
        return self.source is not None and self._held < BACKLOG_MAX

    def due(self) -> float:
        """Return when the next piece may leave; infinity if there is none."""
        return self._queue[0][0] if self._queue and not self.full else math.inf

    def take(self, data: bytes, fault: Fault, now: float) -> int:
        """Take what came in (nothing: the end), and return how many bytes of it were swallowed."""
        if fault.mode is Mode.LOSE or self.lost:
            self.lost = True
            return len(data)
        due, drip = now, 0.0
        if fault.mode is Mode.LATENCY:
            due += fault.seconds + fault.jitter * self._draw()
        elif fault.mode is Mode.DRIP:
            drip = fault.seconds
        elif fault.mode is Mode.STALL:
            due = math.inf
        self._last_due = due = max(due, self._last_due)
        self._queue.append((due, data, drip))
        self._held += len(data)
        return 0

    def heal(self, now: float) -> None:
        """Let leave what was held back until the fault ends."""
        self._queue = deque((now if due == math.inf else due, data, drip) for due, data, drip in self._queue)
        self._last_due = 0.0 if self._last_due == math.inf else self._last_due

    def lose(self) -> None:
        """Forget what is on its way, and let nothing more pass."""
        self.lost = True
        self._queue.clear()

    def flush(self, now: float) -> int:
        """Send what is due, and return how many bytes left.

        Raises:
            OSError: the sink is gone.
        """
        left = 0
        while self._queue and self.sink is not None and self._queue[0][0] <= now:
            due, data, drip = self._queue.popleft()
            if not data:
                self.sink.shutdown(socket.SHUT_WR)
                continue
            piece = data[:1] if drip else data
            try:
                count = self.sink.send(piece)
            except BlockingIOError:
                self.full, count = True, 0
            left += count
            self._held -= count
            if count < len(data):
                self._queue.appendleft((now + drip if drip else due, data[count:], drip))
            if self.full:
                break
        return left


class Pair:
    """One connection of a client, and the one to the server behind it.

    Attributes:
        up: from the client to the server.
        down: from the server to the client.
        budget: for RESET_AFTER, how many bytes may still go down.
        record: the reply that goes by.
        answering: whether the proxy answers by itself here.
        asked: what of a request has come, where it does.
    """

    def __init__(self, client: socket.socket, server: socket.socket | None, *, draw: Callable[[], float]) -> None:
        self.client = client
        self.server = server
        self.up = Pipe(client, server, draw=draw)
        self.down = Pipe(server, client, draw=draw)
        self.budget: int | None = None
        self.record: Record | None = None
        self.answering = False
        self.asked = b""
        self.gone = False

    def end(self, *, reset: bool) -> None:
        """Close both connections."""
        self.gone = True
        for each in (self.client, self.server):
            if each is not None:
                with contextlib.suppress(OSError):
                    if reset:
                        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.close()


def drawer() -> Callable[[], float]:
    """Return a source of jitter that is the same in every run."""
    return random.Random(7).random
