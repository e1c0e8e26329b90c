"""A herd: hundreds of clients in one process, each with a lease stream, that come back as the product's client does.

What they ask, how they judge an answer and when they ask again are the product's: haltline.renewal and
haltline.following. Only what carries it is another: one loop over sockets that never wait, since a machine cannot run
a thousand threads as it runs a thousand machines. Run as ``python -m tests.support.herd``; the first line of standard
input says how, and it ends with that input. What it tells is in tests/support/herding.py.
"""

from __future__ import annotations

import gc
import heapq
import itertools
import json
import os
import random
import selectors
import socket
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from haltline.asks import Ask
from haltline.clocks import LEASE_CLOCK, Clocks
from haltline.exchanges import LEASE_PATH
from haltline.following import Following
from haltline.frames import STREAM_TYPE, Reply
from haltline.renewal import Identity, Renewal, Then
from tests.support.herding import TICK_S
from tests.support.ports import LOOPBACK

CHUNK: Final = 1 << 16
BEGIN_A_SECOND: Final = 200
"""How many clients start a second, as when a fleet is rolled out: this is not the herd yet."""


class Broken(Exception):
    """The connection broke off, or what came is not HTTP."""


class Inbox:
    """What has come of one reply: its head, then the lines of its body, one a chunk, or a body of a known length."""

    def __init__(self) -> None:
        self._data = bytearray()
        self.status = 0
        self.headers: dict[str, str] = {}

    def add(self, data: bytes) -> None:
        """Take what came."""
        self._data += data

    def head(self) -> bool:
        """Return whether the head has come whole, and take it off."""
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return False
        first, *lines = self._data[:end].decode("latin-1").split("\r\n")
        if not first.startswith("HTTP/1.1 "):
            raise Broken("not HTTP")
        del self._data[: end + 4]
        self.status = int(first.split(" ")[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return True

    def whole(self) -> bytes | None:
        """Return a body of a known length, once it is there."""
        length = int(self.headers.get("content-length", "0"))
        return bytes(self._data[:length]) if len(self._data) >= length else None

    def line(self) -> bytes | None:
        """Return the next chunk, empty at the end of the body; None while it is not whole."""
        end = self._data.find(b"\r\n")
        if end < 0:
            return None
        size = int(self._data[:end], 16)
        if len(self._data) < end + size + 4:
            return None
        line = bytes(self._data[end + 2 : end + 2 + size])
        del self._data[: end + size + 4]
        return line


class Client:
    """One client: the product's renewal, and one connection."""

    def __init__(self, herd: Herd, number: int) -> None:
        self.herd = herd
        identity = Identity(f"herd-{number}", os.urandom(8).hex(), herd.namespace)
        self.renewal = Renewal(identity, random=random.random)
        self.wakes = 0
        """When it has to be looked at, lease clock, nanoseconds: something is due, or did not come in time."""
        self._connection: Any = None
        self._ready = False
        self._kept = False
        self._ask: Ask | None = None
        self._following: Following | None = None
        self._inbox = Inbox()
        self._headed = False

    def wake(self) -> None:
        """Do what is due."""
        if self._ask is None:
            self._begin()
        elif self._following is not None:
            self._failed("no whole reply in time")

    def _begin(self) -> None:
        herd, clocks = self.herd, self.herd.clocks
        self._ask = ask = self.renewal.begin(clocks.read(), nonce=os.urandom(16).hex(), stream=True)
        self._following = Following(self.renewal, ask)
        self.wakes = ask.t0.boot + int(self.renewal.deadline_s * 1e9)
        herd.asked += 1
        self._inbox, self._headed = Inbox(), False
        self._kept = self._connection is not None
        if self._kept:
            self._send()
        else:
            self._connect()

    def _connect(self) -> None:
        self._connection = made = socket.socket()
        self._ready = False
        made.setblocking(False)  # noqa: FBT003 - its signature
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.herd.opened += 1
        with suppress(BlockingIOError):
            try:
                made.connect((LOOPBACK, self.herd.port))
            except OSError as error:
                if isinstance(error, BlockingIOError):
                    raise
                self._failed(f"not connected: {error}")
                return
        self.herd.watch(made, selectors.EVENT_WRITE, self)

    def _send(self) -> None:
        assert self._ask is not None
        request = self.herd.head + b"%d\r\n\r\n%s" % (len(self._ask.body), self._ask.body)
        try:
            if self._connection.send(request) != len(request):
                raise BlockingIOError
        except OSError as error:
            self._lost(f"not sent: {error}")

    def ready(self) -> None:
        """Go on: the connection can be read or written."""
        try:
            if not self._ready:
                self._connected()
                return
            while data := self._connection.recv(CHUNK):
                self._inbox.add(data)
                self._read()
                if self._connection is None or not getattr(self._connection, "pending", int)():
                    return
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
            return
        except (OSError, Broken, ValueError) as error:
            self._lost(str(error))
            return
        self._lost("the connection ended")

    def _connected(self) -> None:
        made = self._connection
        if not isinstance(made, ssl.SSLSocket):
            code = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
            context = self.herd.context
            if context is not None:
                self.herd.forget(made)
                made = context.wrap_socket(made, server_hostname=LOOPBACK, do_handshake_on_connect=False)
                self._connection = made
                self.herd.watch(made, selectors.EVENT_READ, self)
        if isinstance(made, ssl.SSLSocket):
            made.do_handshake()
        self._ready = True
        self.herd.change(made, selectors.EVENT_READ, self)
        self._send()

    def _read(self) -> None:
        inbox, following, clocks = self._inbox, self._following, self.herd.clocks
        if following is None or self._ask is None:
            raise Broken("a reply that nobody asked for")
        if not self._headed:
            self._headed = inbox.head()
            if not self._headed:
                return
        if (inbox.status, inbox.headers.get("content-type")) != (200, STREAM_TYPE):
            body = inbox.whole()
            if body is not None:
                self.herd.refused[inbox.status] = self.herd.refused.get(inbox.status, 0) + 1
                kind, later = inbox.headers.get("content-type", ""), inbox.headers.get("retry-after", "")
                reply = Reply(inbox.status, kind, encoded=False, body=body, later=later)
                now = clocks.read()
                self.renewal.answered(self._ask, reply, now)
                self.renewal.spare(self.renewal.later_s, now)
                self._over()
            return
        while (line := inbox.line()) is not None:
            if not line:
                following.ended(clocks.read())
                self._over()
                return
            now = clocks.read()
            then = following.heard(line, now)
            if then is not Then.READ:
                self._over(whole=False)
                return
            self.wakes = now.boot + int(following.left_s(now) * 1e9)
            self.herd.wake_at(self)

    def _lost(self, why: str) -> None:
        """The connection is there no more: where it was kept, and closed meanwhile, the request is sent once more."""
        if self._kept and not self._headed and self._ask is not None:
            self._kept = False
            self._close()
            self._connect()
        elif self._ask is not None:
            self._failed(why)
        else:
            self._close()  # while nothing was asked: the next request makes another

    def _failed(self, why: str) -> None:
        now = self.herd.clocks.read()
        if self._headed and self._following is not None:
            self._following.failed(why, now)
        else:
            self.renewal.unanswered(why, now)
        self._over(whole=False)

    def _over(self, *, whole: bool = True) -> None:
        """Note that the exchange is over: the next is due when the renewal says."""
        if self.renewal.then is Then.LEAVE or not whole:
            self._close()
        self._ask = self._following = None
        self.wakes = self.renewal.due
        self.herd.wake_at(self)

    def _close(self) -> None:
        if self._connection is not None:
            self.herd.forget(self._connection)
            self._connection.close()
            self._connection = None


class Herd:
    """The loop that all clients share.

    Attributes:
        asked: how many requests were begun.
        opened: how many connections were tried.
        refused: how many replies were no stream, by status.
    """

    def __init__(self, *, port: int, token: str, size: int, ca: str | None = None) -> None:
        self.port = port
        self.namespace = token.split("_")[1]
        self.clocks = Clocks()
        self.context = ssl.create_default_context(cafile=ca) if ca is not None else None
        self.head = (
            f"POST {LEASE_PATH} HTTP/1.1\r\nHost: {LOOPBACK}:{port}\r\nAuthorization: Bearer {token}\r\n"
            f"User-Agent: haltline-herd\r\nAccept: application/json, application/jsonl\r\n"
            f"Content-Type: application/json\r\nContent-Length: "
        ).encode()
        self.asked = self.opened = 0
        self.refused: dict[int, int] = {}
        self._selector = selectors.DefaultSelector()
        self._order = itertools.count()
        self._wakes: list[tuple[int, int, Client]] = []
        self._planned: dict[Client, int] = {}
        self._clients = [Client(self, number) for number in range(size)]
        begin = self.now()
        for number, each in enumerate(self._clients):
            each.wakes = begin + number * 1_000_000_000 // BEGIN_A_SECOND
            self.wake_at(each)

    def now(self) -> int:
        """Return the lease clock, nanoseconds."""
        return self.clocks.gettime_ns(LEASE_CLOCK)

    def watch(self, connection: Any, events: int, client: Client) -> None:
        """Have a client go on when its connection can be read or written."""
        self._selector.register(connection, events, client)

    def change(self, connection: Any, events: int, client: Client) -> None:
        """Watch a connection for something else."""
        self._selector.modify(connection, events, client)

    def forget(self, connection: Any) -> None:
        """Watch a connection no more."""
        with suppress(KeyError, ValueError):
            self._selector.unregister(connection)

    def wake_at(self, client: Client) -> None:
        """Have a client looked at by ``client.wakes``, unless it is looked at sooner anyway."""
        if client.wakes < self._planned.get(client, sys.maxsize):
            self._planned[client] = client.wakes
            heapq.heappush(self._wakes, (client.wakes, next(self._order), client))

    def run(self, tell: Callable[[dict[str, Any]], None]) -> None:
        """Keep the herd until standard input ends, and tell how it is at each tick."""
        gc.freeze()
        self._selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        tick = self.now()
        while True:
            until = min(tick, self._wakes[0][0] if self._wakes else tick)
            for key, _ in self._selector.select(max((until - self.now()) / 1e9, 0)):
                if key.data is None:
                    return
                key.data.ready()
            now = self.now()
            while self._wakes and self._wakes[0][0] <= now:
                at, _, client = heapq.heappop(self._wakes)
                if self._planned.get(client) == at:
                    del self._planned[client]
                if client.wakes <= now:
                    client.wake()
                self.wake_at(client)
            if now >= tick:
                tell(self._state(late_ns=now - tick))
                tick = now + int(TICK_S * 1e9)

    def _state(self, *, late_ns: int) -> dict[str, Any]:
        # The clock first, as a check's own time before its decision: what is live then, was live at `at`.
        at = self.now()
        live = sum(1 for each in self._clients if at / 1e9 < each.renewal.lease.until)
        until = max((each.renewal.lease.until for each in self._clients), default=0.0)
        return {
            "at": at,
            "live": live,
            "until": max(until, 0.0),
            "asked": self.asked,
            "opened": self.opened,
            "refused": sum(self.refused.values()),
            "late_ms": late_ns // 1_000_000,
        }


def say(told: dict[str, Any]) -> None:
    """Print one report as a line."""
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Be the herd that the first line of standard input describes."""
    with open(0, "rb", buffering=0, closefd=False) as given:
        words = json.loads(given.readline())
    Herd(**words).run(say)


if __name__ == "__main__":
    main()
