"""A TCP proxy between a client and a real server that breaks connections in every way a network does.

One thread and one selector, whatever it carries. A mode is set at run time, for both directions or for one, and is in
force when :meth:`FaultProxy.set` returns: what the client reads later was forwarded before, or under the new mode.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from queue import SimpleQueue
from types import TracebackType
from typing import Final, Self

from tests.support.fault_modes import ANSWERING, ONE_WAY, PASS, Fault, Mode
from tests.support.fault_pipes import Pair, Pipe, drawer
from tests.support.fault_records import Tape, answer, take_request
from tests.support.ports import LOOPBACK, free_port

LIFE_S: Final = 600.0
"""After so long the proxy ends by itself, whoever forgot it."""

_CHUNK: Final = 65_536


class FaultProxy:
    """The proxy; use it as a context manager.

    Args:
        target: where the server listens: a port of this machine, or the path of a unix socket.

    Attributes:
        port: where it listens itself.
        counts: ``connections``, ``up`` and ``down`` (bytes that were forwarded), ``swallowed`` (bytes), ``answered``
            (requests that it answered by itself), ``resets``.
    """

    def __init__(self, target: int | str) -> None:
        self._target = target
        self.counts: Counter[str] = Counter()
        self._up = self._down = PASS
        self._tape = Tape()
        self._pairs: list[Pair] = []
        self._orders: SimpleQueue[tuple[Callable[[], None], threading.Event]] = SimpleQueue()
        self._woken, self._wake = socket.socketpair()
        self._woken.settimeout(0)
        self._closing = False
        self._draw = drawer()
        self._listener: socket.socket | None = self._listening(None)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, name="fault-proxy", daemon=True)

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{LOOPBACK}:{self.port}"

    def __enter__(self) -> Self:
        """Start."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection."""
        self._closing = True
        self._wake.send(b"x")
        self._thread.join(5)
        self._wake.close()
        self._woken.close()

    def set(self, fault: Fault | Mode, *, up: bool = True, down: bool = True) -> int:
        """Put a fault in force, and return the lease clock once it is, nanoseconds.

        Args:
            fault: what to do from now on.
            up: whether to do it to what the client sends.
            down: whether to do it to what the server sends.
        """
        chosen = fault if isinstance(fault, Fault) else Fault(fault)
        if chosen.mode not in ONE_WAY and not (up and down):
            raise ValueError(f"{chosen.mode.name} is not for one direction")
        self._order(lambda: self._change(chosen, up=up, down=down))
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def heal(self) -> int:
        """End every fault, and return the lease clock just before, nanoseconds."""
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._order(lambda: self._change(PASS, up=True, down=True))
        return before

    def _order(self, what: Callable[[], None]) -> None:
        done = threading.Event()
        self._orders.put((what, done))
        self._wake.send(b"x")
        if not done.wait(5):
            raise RuntimeError("the fault proxy has ended")

    # -- from here on, in the proxy's thread ------------------------------------------------------------------------

    def _listening(self, port: int | None) -> socket.socket:
        for _ in range(50):
            with contextlib.suppress(OSError):
                listener = socket.create_server((LOOPBACK, port or free_port()), backlog=512)
                listener.settimeout(0)
                return listener
            time.sleep(0.02 if port else 0)
        raise RuntimeError("no port to listen on")

    def _change(self, fault: Fault, *, up: bool, down: bool) -> None:
        now = time.monotonic()
        self._up, self._down = (fault if up else self._up), (fault if down else self._down)
        mode = fault.mode
        if mode is Mode.REFUSE:
            if self._listener is not None:
                self._listener.close()
                self._listener = None
        elif self._listener is None:
            self._listener = self._listening(self.port)
        for pair in self._pairs:
            if mode is not Mode.STALL:
                pair.up.heal(now)
                pair.down.heal(now)
            pair.budget = fault.after if mode is Mode.RESET_AFTER else None
            if mode in (Mode.RESET, Mode.REFUSE):
                self._reset(pair)
            elif mode in ANSWERING or pair.answering:
                pair.end(reset=False)
            elif mode is Mode.HALF_CLOSE:
                self._half_close(pair)
            elif mode is Mode.SPLICE:
                self._splice(pair, now)

    def _reset(self, pair: Pair) -> None:
        self.counts["resets"] += 1
        pair.end(reset=True)

    def _half_close(self, pair: Pair) -> None:
        pair.down.lose()
        with contextlib.suppress(OSError):
            pair.client.shutdown(socket.SHUT_WR)

    def _splice(self, pair: Pair, now: float) -> None:
        for delay, data in self._tape.first().pieces[1:]:
            pair.down.take(data, Fault(Mode.LATENCY, seconds=delay), now)
        pair.record = None
        pair.down.source = None  # what the server goes on sending stays in its own buffers

    def _serve(self) -> None:
        end = time.monotonic() + LIFE_S
        try:
            while not self._closing and time.monotonic() < end:
                self._turn()
        finally:
            for pair in self._pairs:
                pair.end(reset=False)
            if self._listener is not None:
                self._listener.close()

    def _turn(self) -> None:
        """Wait for something to do, and do it."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            if self._listener is not None:
                selector.register(self._listener, selectors.EVENT_READ)
            wanted: dict[socket.socket, int] = {}
            for pair in self._pairs:
                for pipe in (pair.up, pair.down):
                    if pipe.reading and pipe.source is not None:
                        wanted[pipe.source] = wanted.get(pipe.source, 0) | selectors.EVENT_READ
                    if pipe.full and pipe.sink is not None:
                        wanted[pipe.sink] = wanted.get(pipe.sink, 0) | selectors.EVENT_WRITE
            for each, events in wanted.items():
                selector.register(each, events)
            due = min((pipe.due() for pair in self._pairs for pipe in (pair.up, pair.down)), default=1e9)
            left = max(0.0, min(due - time.monotonic(), 1.0))
            ready: dict[object, int] = {key.fileobj: events for key, events in selector.select(left)}
        if self._woken in ready:
            self._obey()
        if self._listener is not None and self._listener in ready:
            self._accept(self._listener)
        now = time.monotonic()
        for pair in self._pairs:
            try:
                self._carry(pair, ready, now)
            except OSError:
                pair.end(reset=True)
        self._pairs = [pair for pair in self._pairs if not pair.gone]

    def _obey(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)
        while not self._orders.empty():
            what, done = self._orders.get()
            what()
            done.set()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            client, _ = listener.accept()
            self.counts["connections"] += 1
            mode = self._up.mode
            if mode is Mode.RESET:
                self._reset(Pair(client, None, draw=self._draw))
                return
            client.settimeout(0)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            lose = Mode.LOSE in (mode, self._down.mode)
            alone = lose or mode in ANSWERING or mode is Mode.HALF_CLOSE
            try:
                server = None if alone else self._connected()
            except OSError:
                self._reset(Pair(client, None, draw=self._draw))
                return
            pair = Pair(client, server, draw=self._draw)
            pair.answering = mode in ANSWERING
            pair.up.lost = pair.down.lost = lose  # also once the fault is over: half-open for ever
            pair.budget = self._down.after if self._down.mode is Mode.RESET_AFTER else None
            if mode is Mode.HALF_CLOSE:
                self._half_close(pair)
            self._pairs.append(pair)

    def _connected(self) -> socket.socket:
        if isinstance(self._target, str):
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            server.settimeout(2)
            server.connect(self._target)
        else:
            server = socket.create_connection((LOOPBACK, self._target), timeout=2)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.settimeout(0)
        return server

    def _carry(self, pair: Pair, ready: dict[object, int], now: float) -> None:
        """Read what has come on a pair, and send what is due."""
        for pipe, other in ((pair.up, pair.client), (pair.down, pair.server)):
            if other is None or pair.gone or pipe.source is None:
                continue
            if ready.get(other, 0) & selectors.EVENT_READ:
                data = other.recv(_CHUNK)
                if not data:
                    pipe.source = None
                self._taken(pair, pipe, data, now)
        for pipe in (pair.up, pair.down):
            if not pair.gone:
                if pipe.sink is not None and ready.get(pipe.sink, 0) & selectors.EVENT_WRITE:
                    pipe.full = False
                self.counts["up" if pipe is pair.up else "down"] += pipe.flush(now)
        if pair.up.source is None and (pair.server is None or pair.down.source is None) and pair.down.due() > now + 60:
            pair.end(reset=False)  # both have ended, and nothing is on its way

    def _taken(self, pair: Pair, pipe: Pipe, data: bytes, now: float) -> None:
        if pipe is pair.up:
            if pair.answering:
                self._answer(pair, data, now)
                return
            if data.startswith(b"POST /v1/lease"):
                pair.record = self._tape.begin()
            self.counts["swallowed"] += pipe.take(data, self._up, now)
            return
        if pair.record is not None and data and self._down.mode in ONE_WAY:
            pair.record.add(data)
        if self._down.mode is Mode.SPLICE and pair.record is not None:
            pipe.take(data, PASS, now)  # the head and the first frame are genuine
            self._splice(pair, now)
            return
        if self._down.mode is Mode.CUT and data:
            pipe.take(data[: -min(20, len(data))], PASS, now)
            pipe.take(b"", PASS, now)
            pipe.lost = True
            return
        if pair.budget is not None:
            if len(data) > pair.budget:
                pipe.take(data[: pair.budget], PASS, now)
                pipe.flush(now)
                self._reset(pair)
                return
            pair.budget -= len(data)
        self.counts["swallowed"] += pipe.take(data, self._down, now)

    def _answer(self, pair: Pair, data: bytes, now: float) -> None:
        if not data:
            pair.end(reset=False)
            return
        pair.asked += data
        while (rest := take_request(pair.asked)) is not None:
            pair.asked = rest
            self.counts["answered"] += 1
            for delay, piece in answer(self._up.mode, self._tape, url=self.url):
                pair.down.take(piece, Fault(Mode.LATENCY, seconds=delay), now)
