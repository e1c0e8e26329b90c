"""Thousands of connections in one process: one epoll loop that reads them and notes when each has been told a number.

Only the clock and the fewest possible steps stand between a socket that can be read and its time, so that what is
measured is whoever writes to the sockets. The same loop reads lease streams (bench.streams_client) and subscriptions
to Redis (bench.subscribers): what they are compared by costs both the same.
"""

from __future__ import annotations

import gc
import heapq
import itertools
import json
import os
import resource
import select
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

LOOPBACK: Final = "127.0.0.1"
CHUNK: Final = 1 << 16
EVENTS: Final = 4_096
COMMAND: Final = 4_096
"""The longest line of the command input: whoever writes one waits for its answer."""

SPARE: Final = 64
"""Descriptors that a process needs beside its connections."""

IN_FLIGHT: Final = 128
"""Connections that are being opened at once: a service does not keep many that have not shown a token yet."""

ENDED: Final = -1
"""Instead of a number: the connection is there no more."""

AGAIN_S: Final = 0.2
"""How long to wait before a connection that broke is opened anew, seconds."""


class Unexpected(Exception):
    """Somebody said what they should not have; the measurement would be worth nothing."""


@dataclass(slots=True)
class Counts:
    """What a crowd has seen since it was last asked.

    Attributes:
        messages: frames or messages read, whole ones.
        asked: requests sent on connections that were open already.
        refused: requests that were answered "busy".
        broken: connections that ended when they should not have.
    """

    messages: int = 0
    asked: int = 0
    refused: int = 0
    broken: int = 0


class Crowd(ABC):
    """So many connections to one port.

    Attributes:
        counts: what was seen so far.
        seqs: per descriptor, the newest number that its connection was told.
        rests: per descriptor, the beginning of what has not come whole yet.
    """

    def __init__(self, port: int, size: int, *, tell: Callable[[dict[str, Any]], None]) -> None:
        """Set up, without connecting.

        Args:
            port: where the server listens on the loopback address.
            size: how many connections.
            tell: takes what there is to report.

        Raises:
            Unexpected: this process may not open so many.
        """
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if size + SPARE > hard:
            raise Unexpected(
                f"{size:,} connections need {size + SPARE:,} descriptors, a process here may have {hard:,}"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, size + SPARE), hard))
        self.counts = Counts()
        self._port = port
        self._size = size
        self._tell = tell
        self._epoll = select.epoll(size + SPARE)
        self._sockets: dict[int, socket.socket] = {}
        self.seqs = [0] * (size + SPARE + 1_000)
        self.rests: dict[int, bytes] = {}
        self._opening: set[int] = set()
        self._opened = 0
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._wanted = deque(range(size))
        self._stamps: dict[int, list[int]] = {}
        self._complete = 0
        self._settled = False

    @abstractmethod
    def first(self, fd: int, memory: bytes) -> bytes:
        """Return what is sent on a connection that has just been made.

        Args:
            fd: its descriptor.
            memory: what :meth:`gone` returned for the one that it replaces; empty for a new one.
        """

    @abstractmethod
    def gone(self, fd: int) -> bytes:
        """Forget a connection that is there no more, and return what the next one in its place should know."""

    @abstractmethod
    def read(self, fd: int, data: bytes) -> int:
        """Take what came, and return the newest number that it tells as a whole; 0 if none.

        Raises:
            ConnectionError: the connection is of no use any more.
        """

    def obey(self, command: dict[str, Any]) -> None:
        """Do what a line of the command input says beside asking for the counts."""
        if command:
            raise Unexpected(f"{command} means nothing here")

    def connected(self) -> list[int]:
        """Return the descriptors of the connections that are there."""
        return list(self._sockets)

    def send(self, fd: int, data: bytes) -> None:
        """Send something small."""
        if self._sockets[fd].send(data) != len(data):
            raise ConnectionError("a server does not read what it is sent")

    def send_later(self, fd: int, data: bytes, *, seconds: float) -> None:
        """Send something in so many seconds, if the connection is still there by then."""
        same = self._sockets[fd]
        self._in_time(seconds, lambda: self._send_if(fd, same, data))

    def _send_if(self, fd: int, same: socket.socket, data: bytes) -> None:
        if self._sockets.get(fd) is not same:
            return
        try:
            self.send(fd, data)
        except ConnectionError:
            self._broken(fd)

    def _in_time(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._order), act))

    def run(self, commands: int) -> None:
        """Open all connections, tell when they are there, and read them until the command input ends.

        A line on the command input is obeyed, and answered with the counts since the line before it.

        Args:
            commands: the descriptor of the command input.
        """
        self._epoll.register(commands, select.EPOLLIN)
        gc.disable()  # nothing here makes cycles, and a collection would look like a slow server
        try:
            while True:
                self._open_more()
                for fd, _ in self._epoll.poll(self._patience(), EVENTS):
                    if fd == commands:
                        line = os.read(commands, COMMAND)
                        if not line:
                            return
                        self.obey(json.loads(line))
                        self._report()
                    else:
                        self._readable(fd)
        finally:
            for each in self._sockets.values():
                each.close()

    def _patience(self) -> float:
        while self._later and self._later[0][0] <= time.monotonic():
            heapq.heappop(self._later)[2]()
        return min(self._later[0][0] - time.monotonic(), 1.0) if self._later else 1.0

    def _readable(self, fd: int) -> None:
        try:
            data = self._sockets[fd].recv(CHUNK)
            rest = self.rests.pop(fd, None)
            seq = self.read(fd, data if rest is None else rest + data) if data else ENDED
        except ConnectionError:
            seq = ENDED
        if seq == ENDED:
            self._broken(fd)
        elif seq > self.seqs[fd]:
            self._reached(fd, seq, time.monotonic_ns())

    def _reached(self, fd: int, seq: int, now: int) -> None:
        first = self.seqs[fd] + 1
        self.seqs[fd] = seq
        for each in range(max(first, self._complete + 1), seq + 1):
            stamps = self._stamps.setdefault(each, [])
            stamps.append(now)
            if len(stamps) == self._size:
                # In order: who has been told a number has been told all before it.
                self._complete = each
                del self._stamps[each]
                middle, late = stamps[self._size // 2], stamps[self._size * 99 // 100]
                self._tell({"seq": each, "first": stamps[0], "median": middle, "p99": late, "last": now})

    def ready(self, fd: int, seq: int) -> None:
        """Note that a connection has been answered for the first time since it was made.

        Args:
            fd: its descriptor.
            seq: what it has been told by being answered; that is not news that anybody waits for.
        """
        if fd not in self._opening:
            return
        self._opening.remove(fd)
        self._opened += 1
        if not self._settled:
            self.seqs[fd] = seq
            if self._opened == self._size:
                self._settle()

    def _settle(self) -> None:
        """Count from here: what was noted while not everybody was there is forgotten."""
        self._settled = True
        self._complete = max(self.seqs[fd] for fd in self._sockets)
        self._stamps.clear()
        self._tell({"open": self._size})

    def _report(self) -> None:
        counts, self.counts = self.counts, Counts()
        used = time.process_time()
        told = {"messages": counts.messages, "asked": counts.asked, "refused": counts.refused, "broken": counts.broken}
        self._tell({**told, "open": self._opened, "cpu_s": used})

    def _open_more(self) -> None:
        while self._wanted and len(self._opening) < IN_FLIGHT:
            self._wanted.popleft()
            self._connect(0, b"")

    def _connect(self, seq: int, memory: bytes) -> None:
        connection = socket.create_connection((LOOPBACK, self._port), timeout=10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        fd = connection.fileno()
        self._sockets[fd] = connection
        self._opening.add(fd)
        self.seqs[fd] = seq
        connection.sendall(self.first(fd, memory))
        connection.setblocking(False)  # noqa: FBT003 - its signature
        self._epoll.register(fd, select.EPOLLIN)

    def _broken(self, fd: int) -> None:
        self.counts.broken += 1
        self._sockets.pop(fd).close()
        self.rests.pop(fd, None)
        seq, memory = self.seqs[fd], self.gone(fd)
        if fd in self._opening:
            self._opening.remove(fd)
        else:
            self._opened -= 1
        self._in_time(AGAIN_S, lambda: self._connect(seq, memory))


def say(told: dict[str, Any]) -> None:
    """Print one report as a line."""
    print(json.dumps(told), flush=True)


def main(make: Callable[..., Crowd]) -> int:
    """Be the crowd that the first line of standard input describes, until that input ends."""
    with open(0, "rb", buffering=0, closefd=False) as commands:  # unbuffered: what follows the first line is polled
        given = json.loads(commands.readline())
    make(**given, tell=say).run(sys.stdin.fileno())
    return 0
