"""Hand-overs: a worker whose stream has ended asks for the next one on the same connection, and gets it here.

It asks with the very head of the request before, so that only the body is looked at; whose token it is and what it may
see is known, and the log says at every moment whether that still holds. All who have asked are answered together, from
one read of the log that began later. Done by each connection's own greenlet that costs six times as much, and with ten
thousand streams there are 1,300 a second (docs/decisions/0016).

Whatever is not just such a request, and whatever has to be refused, is left to the connection's own greenlet.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from app.serving.carried import Carried

if TYPE_CHECKING:
    from app.service.published import Published
    from app.service.streams import Streams

PATIENCE_S: Final = 5.0
"""How long a worker may take to ask for its next stream, seconds; then its connection's own greenlet waits for it."""

REQUEST_MAX: Final = 4_096
"""How much of a request is read at once, bytes. Those of workers are a quarter of that."""

_READ: Final = 1
"""libev's name for "can be read"."""


class HandOvers:
    """The connections between two streams."""

    def __init__(
        self,
        streams: Streams,
        *,
        loop: Any,
        wake: Callable[[], object],
        give_back: Callable[[Carried, bytes | OSError], object],
    ) -> None:
        """Set up.

        Args:
            streams: the open streams.
            loop: the event loop, to watch sockets.
            wake: has :meth:`due` called soon.
            give_back: gives a connection back to its own greenlet.
        """
        self._streams = streams
        self._loop = loop
        self._wake = wake
        self._give_back = give_back
        self._silent: dict[Carried, None] = {}
        self._asked: dict[Carried, None] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._silent) + len(self._asked)

    def wait(self, each: Carried) -> None:
        """Wait for a worker's next request: the end of its stream was sent."""
        if each.watcher is None:
            each.watcher = self._loop.io(each.descriptor, _READ)
        each.until = self._streams.now() + PATIENCE_S
        self._silent[each] = None
        each.watcher.start(self._readable, each)

    def leave(self, each: Carried) -> None:
        """Forget a connection: its greenlet goes on with it, or ends."""
        self._silent.pop(each, None)
        self._asked.pop(each, None)
        if each.watcher is not None:
            each.watcher.stop()
            each.watcher.close()
            each.watcher = None

    def due(self, published: Published) -> list[Carried]:
        """Return those who have asked before ``published`` was read; who is silent for long is given back.

        They are here until they are :meth:`taken <take>`. Those who have asked since are not kept waiting: either the
        log is read again, or within half a ttl every stream ends, and they are given back.

        Args:
            published: the newest published state.
        """
        now = self._streams.now()
        while self._silent:
            first = next(iter(self._silent))  # who has waited longest
            if now < first.until:
                break
            self._give_back(first, b"")
        due = [each for each in self._asked if published.read_at_us > each.received_at_us]
        if len(due) < len(self._asked):
            self._streams.ask()
        return due

    def take(self, each: Carried) -> None:
        """Have one no longer here: it is answered now."""
        del self._asked[each]
        each.data = each.body = b""

    def give_all_back(self) -> None:
        """Give every connection back: there are no streams now."""
        for each in [*self._silent, *self._asked]:
            self._give_back(each, b"")

    def _readable(self, each: Carried) -> None:
        # Called by the event loop itself: nothing here may wait.
        try:
            data = os.read(each.descriptor, REQUEST_MAX)
        except BlockingIOError:
            return
        except OSError as error:
            self._give_back(each, error)
            return
        each.watcher.stop()
        body_of = each.line.body_of
        body = body_of(data) if body_of is not None else None
        each.data = data
        if body is None:
            self._give_back(each, b"")
            return
        each.body, each.received_at_us = body, self._streams.raw_us_ceil()
        del self._silent[each]
        if not self._asked:
            self._wake()
        self._asked[each] = None
