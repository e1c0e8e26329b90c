"""Look-ups of tokens: few at once for those that nobody has proven, so that strangers hold up nobody.

Whoever shows a token that is not remembered costs a read of the database, over the connections that a kill's own token
is read with. A flood of made-up tokens therefore gets a few places; the others wait for one, and not for long. A token
that is known here has no need of a place: its holder goes on while strangers wait. Known are those whose secret was
proven here before, and those that may kill or revive, which a node learns from the log before anybody shows them (see
:mod:`app.service.upkeep`). What is left to wait with strangers is the token of a worker that this process has not seen,
and one that was made a moment ago on another node.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from typing import Final

from app.domain.lanes import Lane
from app.service.store import StoredToken, StoreUnavailable
from app.service.turns import Turns

AT_ONCE: Final[Mapping[Lane, int]] = {Lane.ALL: 6, Lane.CONTROL: 6, Lane.WORKER: 3}
"""How many unknown tokens are looked up at once: a node reads over eight connections, or over four to serve workers."""

WAITING: Final = 2_000
"""How many more may wait for a place."""

PATIENCE_S: Final = 0.5
"""For how long they wait, seconds."""


class LookUps:
    """Reads tokens, each of them once for all who ask for it at the same time."""

    def __init__(
        self,
        read: Callable[[str], StoredToken | None],
        *,
        places: int = AT_ONCE[Lane.ALL],
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Set up.

        Args:
            read: returns what is kept of a token, by its id; raises StoreUnavailable.
            places: how many unknown tokens are looked up at once.
            patience_s: for how long an unknown token waits for a place, seconds.
        """
        self._read = read
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._places = Turns(places, waiting=WAITING, newest_first=True)
        self._under_way: dict[tuple[str, bool], Future[StoredToken | None]] = {}

    def find(self, token_id: str, *, proven: bool) -> StoredToken | None:
        """Return what is kept of a token; whoever asks while it is being read waits for that one read.

        A whole fleet may show one token: each time its memory ends, all of them would ask the database at once.

        Args:
            token_id: its id.
            proven: whether the secret that was shown is known to be right. Such a look-up never waits for others.

        Raises:
            StoreUnavailable: it could not be read, or there was no place for it in time.
        """
        key = token_id, proven
        with self._lock:
            under_way = self._under_way.get(key)
            mine: Future[StoredToken | None] = Future()
            if under_way is None:
                self._under_way[key] = mine
        if under_way is not None:
            return under_way.result()
        try:
            with nullcontext() if proven else self._placed():
                stored = self._read(token_id)
        except Exception as error:
            mine.set_exception(error)
            raise
        else:
            mine.set_result(stored)
            return stored
        finally:
            with self._lock:
                if self._under_way.get(key) is mine:
                    del self._under_way[key]
            if not mine.done():  # this very thread of work was ended; those who wait are told so
                mine.set_exception(StoreUnavailable("a look-up was broken off"))

    def part_from(self, token_id: str) -> None:
        """Have nobody who asks from now on join a look-up of this token that has begun already."""
        with self._lock:
            for proven in (True, False):
                self._under_way.pop((token_id, proven), None)

    @contextmanager
    def _placed(self) -> Iterator[None]:
        if not self._places.take(self._patience_s):
            raise StoreUnavailable("too many unknown tokens are being looked up; nothing was changed")
        try:
            yield
        finally:
            self._places.give()
