"""Two nodes, the network and the weather of a random timeline: anything may be late, lost, asleep or spliced.

True time runs in a world whose clocks run at different rates, within the drift that the lease arithmetic allows for.
The log and its frames are the fake service's. A node dates a read from before it, and answers with a read after the
request, but for some that break this rule.
"""

from __future__ import annotations

import copy
import heapq
import itertools
import random
from abc import abstractmethod
from collections.abc import Callable
from typing import Final

from haltline.testing.frames import answer, later
from haltline.testing.log import FakeLog
from tests.support.stream_parts import Node, Wire, named

MS: Final = 1_000_000
S: Final = 1_000 * MS


class StreamWorld:
    """The world of one timeline; the same seed makes the same one.

    Args:
        seed: the seed.
        blip: whether the kill is revived 1 to 50 ms later.
    """

    def __init__(self, seed: int, *, blip: bool) -> None:
        self._draw = draw = random.Random(seed)
        self._ttl_ms = draw.choice((200, 1000, 2000, 5000))
        self._log = FakeLog(namespace="default", ttl_ms=self._ttl_ms, moment=lambda: "2026-11-20T20:25:12.000000Z")
        self._prefixes = [self._log]  # the log as it was at each position
        self._keep()
        # Clocks that are not far apart are mixed up the most easily.
        apart = draw.choice((draw.randint(-500, 500), draw.randint(-5_000, 5_000)))
        self._nodes = [
            Node(name, draw.randint(-900, 900), 20_000_000 + offset * 1_000, ttl_ms=self._ttl_ms)
            for name, offset in (("a", 0), ("b", apart))
        ]
        self._careless = draw.random() < 0.4
        self._now = 0
        self._count = itertools.count()
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._wires: list[Wire] = []
        self._paused_until = 0
        self._lag = 0
        self._silent = self._healthy = False
        ttl = self._ttl_ms * MS
        self._changed_at, self._before_ms = -(10**12), self._ttl_ms
        commit = draw.randint(ttl, 3 * ttl)
        if draw.random() < 0.3:
            self._at(draw.randint(ttl // 2, commit), self._change_ttl)
        self._at(commit, self._kill)
        self._plot(commit, ttl)
        if blip:
            self._revive_after: int | None = draw.randint(1, 50) * MS
        else:
            self._revive_after = draw.randint(1, 2 * ttl) if draw.random() < 0.3 else None
        self._effective_at: int | None = None
        self._end = 2**62

    @abstractmethod
    def _ask(self) -> None:
        """Have the client ask for a stream."""

    @abstractmethod
    def _client(self, wire: Wire) -> None:
        """Have the client look at a stream."""

    @abstractmethod
    def _again(self) -> None:
        """Have the client ask, if it reads no stream."""

    # -- the world ------------------------------------------------------------------------------------------------

    def _at(self, moment: int, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (moment, next(self._count), happen))

    def _after(self, length: int, happen: Callable[[], None]) -> None:
        self._at(self._now + length, happen)

    def _raw(self, node: Node) -> int:
        """Return a node's clock, nanoseconds."""
        awake = min(self._now, node.fell if self._now < node.wakes else self._now) - node.asleep
        # A tick of a microsecond: two readings around a sleep may be equal.
        return (node.offset * 1_000 + awake + awake * node.ppm // 1_000_000) // 1_000 * 1_000

    def _delay(self) -> int:
        """Return how long something takes: mostly milliseconds; rarely seconds."""
        draw = self._draw.random()
        if self._healthy or draw < 0.8:
            return self._draw.randint(10_000, 15 * MS)
        if draw < 0.95:
            return self._draw.randint(0, self._ttl_ms * MS // 2)
        return self._draw.randint(0, 5 * S)

    def _weather(self) -> None:
        """Every now and then pause the client, put a node to sleep, or break, splice or double a stream."""
        if self._healthy:
            return
        draw = self._draw.random()
        if draw < 0.25:
            self._paused_until = self._now + self._draw.randint(0, 3 * self._ttl_ms * MS)
        elif draw < 0.4:
            self._sleep(self._draw.choice(self._nodes), self._now + self._draw.randint(0, 2 * self._ttl_ms * MS))
        elif self._wires:
            wire = self._draw.choice(self._wires)
            if draw < 0.55:
                wire.broken = True
            elif draw < 0.7 and wire.begun:
                wire.node = self._nodes[self._nodes[0] is wire.node]
            elif draw < 0.8:
                self._ask()
        self._after(self._draw.randint(self._ttl_ms * MS // 4, 2 * self._ttl_ms * MS), self._weather)

    def _plot(self, commit: int, ttl: int) -> None:
        """Have it matter, in some timelines, what the client believed in just around the kill: then comes silence."""
        draw, plot = self._draw, self._draw.random()
        silent = commit + draw.randint(0, 60 * MS)
        if plot < 0.3:
            self._at(commit - draw.randint(0, ttl // 8), self._anew)
        elif plot < 0.6:
            woken = commit + draw.randint(0, ttl)
            for node in self._nodes:
                self._at(commit - draw.randint(0, 20 * MS), lambda node=node: self._sleep(node, woken))  # type: ignore[misc]
            self._at(draw.randint(commit, woken), self._anew)
            silent = woken + draw.randint(0, 40 * MS)
        elif plot < 0.8:
            self._at(commit - draw.randint(0, ttl // 2), self._splice)
        if plot < 0.9:
            self._at(silent, self._hush)

    def _hush(self) -> None:
        self._silent, self._lag = not self._healthy, 0

    def _splice(self) -> None:
        """Have a proxy go on with the node whose clock is ahead, and be slow by about as much."""
        if self._healthy:
            return
        behind, ahead = sorted(self._nodes, key=lambda node: node.offset)
        self._lag = (ahead.offset - behind.offset) * 1_000 + self._draw.randint(0, 20 * MS)
        for wire in self._wires:
            wire.node = ahead if wire.begun else wire.node

    def _anew(self) -> None:
        """Have the client leave what it reads, and ask."""
        for wire in self._wires:
            wire.over = True
        self._wires.clear()
        self._again()

    def _commit(self, append: Callable[[], object]) -> None:
        append()
        self._keep()
        for node in self._nodes:
            if self._draw.random() < 0.8:  # else the doorbell is lost
                self._after(self._delay(), lambda node=node: self._read(node))  # type: ignore[misc]

    def _keep(self) -> None:
        prefix = copy.copy(self._log)
        prefix.entries = list(self._log.entries)
        self._prefixes.append(prefix)

    def _kill(self) -> None:
        target = self._draw.choice(("run:r-1", "tenant:acme", "global"))
        self._commit(lambda: self._log.kill(target, reason="r", actor="a"))
        acked_at = self._now + self._draw.randint(0, 20 * MS)
        self._effective_at = max(acked_at + self._ttl_ms * MS, self._changed_at + self._before_ms * MS)
        self._at(self._effective_at + 1, lambda: None)
        if self._revive_after is not None:
            self._after(
                self._revive_after,
                lambda: self._commit(lambda: self._log.revive(target, holds=None, reason="r", actor="b")),
            )
        self._at(self._effective_at + 2 * self._ttl_ms * MS, self._heal)

    def _heal(self) -> None:
        """Let everything be well for a while, and then end."""
        self._healthy, self._silent, self._lag = True, False, 0
        for node in self._nodes:
            if node.wakes > self._now:
                self._wake(node)
        self._end = max(self._now, self._paused_until) + 30 * S

    def _change_ttl(self) -> None:
        self._changed_at, self._before_ms = self._now, self._ttl_ms
        self._ttl_ms = self._draw.choice((200, 1000, 2000, 5000))
        self._commit(lambda: self._log.append({"kind": "note", "topic": "settings_changed"}, actor="a"))

    # -- a node ---------------------------------------------------------------------------------------------------

    def _sleep(self, node: Node, until: int) -> None:
        """Put a node to sleep, right after it has read the log: its clock stands still until it wakes."""
        if self._now >= node.wakes and until > self._now:
            self._read(node, lasts=0)
            node.fell, node.wakes = self._now, until
            self._at(until, lambda: self._wake(node))

    def _wake(self, node: Node) -> None:
        if node.wakes:
            node.asleep += self._now - node.fell
            node.fell = node.wakes = 0

    def _poll(self, node: Node) -> None:
        self._read(node)
        self._after(max(node.ttl_ms, 200) * MS // 8, lambda: self._poll(node))

    def _read(self, node: Node, *, lasts: int | None = None) -> None:
        """Read the log: dated before it begins, taken at some moment in between, published after it has ended."""
        if self._now < node.wakes:
            return
        stamped = self._raw(node) // 1_000
        whole = self._draw.randint(0, 4 * MS) if lasts is None else lasts
        if not self._healthy and lasts is None and self._draw.random() < 0.03:
            whole = self._draw.randint(0, 3 * S)

        def seen() -> None:
            seq, ttl_ms = self._log.replica.position.seq, self._ttl_ms

            def published() -> None:
                if seq >= node.seq:
                    node.seq, node.ttl_ms = seq, ttl_ms
                node.read_at = max(node.read_at, stamped)
                for wire in list(self._wires):
                    if wire.node is node and wire.begun and wire.cursor < node.seq:
                        self._send(wire)

            if whole:
                self._after(whole // 2, published)
            else:
                published()

        if whole:
            self._after(whole // 2, seen)
        else:
            seen()

    def _serve(self, wire: Wire) -> None:
        """Take a request, and answer it once the log was read after it."""
        node = wire.node
        if self._now < node.wakes:
            self._at(node.wakes, lambda: self._serve(wire))
            return
        received = -(-self._raw(node) // 1_000)
        wire.received_at = received
        if self._silent:
            return
        if self._careless and node.read_at <= received and not self._healthy:
            self._first(wire)  # a node that breaks the rules: what was read before it was asked
            return
        self._read(node)

        def answered() -> None:
            if wire.over:
                return
            if node.read_at > received:
                self._first(wire)
            else:
                self._after(5 * MS, answered)

        answered()

    def _first(self, wire: Wire) -> None:
        node = wire.node
        asked = wire.ask.position.seq
        if asked > node.seq:
            self._after(MS, lambda: None if wire.over else self._first(wire))
            return
        assert wire.received_at is not None
        reply = answer(
            self._prefixes[node.seq],
            wire.ask.body,
            received_at=wire.received_at,
            read_at=node.read_at,
            ttl_ms=node.ttl_ms,
        )
        assert reply.status == 200, reply.body
        wire.begun, wire.cursor = True, node.seq
        self._carry(wire, named(reply.body, node.name))
        self._beat(wire)

    def _beat(self, wire: Wire) -> None:
        def beat() -> None:
            if wire.over or wire.broken:
                return
            node = wire.node
            fresh = self._raw(node) // 1_000 - node.read_at < node.ttl_ms * 500
            if self._now >= wire.ends or not fresh:
                self._carry(wire, None)
                return
            if self._now >= node.wakes:
                self._send(wire)
            self._beat(wire)

        self._after(wire.node.ttl_ms * MS // 4, beat)

    def _frame(self, wire: Wire) -> tuple[int, bytes]:
        node = wire.node
        line = later(self._prefixes[node.seq], wire.cursor, read_at=node.read_at, ttl_ms=node.ttl_ms)
        return node.seq, named(line, node.name)

    def _send(self, wire: Wire) -> None:
        if wire.node.seq < wire.cursor:
            return  # a proxy went on with a node that is behind: nothing to say yet
        flipped = wire.cursor < wire.node.seq
        wire.cursor, line = self._frame(wire)
        if flipped and not self._healthy and self._draw.random() < 0.1:
            return  # lost on its way, and the stream goes on
        self._carry(wire, line)

    def _carry(self, wire: Wire, line: bytes | None) -> None:
        """Bring a frame, or the end, to the client, in the order of sending."""
        wire.cut = wire.cut or self._silent
        if wire.cut:
            return
        wire.arrives = max(wire.arrives, self._now + self._lag + self._delay())

        def arrive() -> None:
            if not wire.broken:
                wire.inbox.append(line)
                self._client(wire)

        self._at(wire.arrives, arrive)
