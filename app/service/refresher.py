"""The refresher: the one thread of a node that reads the log, and dates what it read.

It reads every ttl/8, on every doorbell and for every waiting request. ``read_at`` is stamped before the transaction
begins. Entries are applied first; then the greatest position and the newest ``read_at`` are published as one immutable
object. A page that is not the last moves the position but leaves ``read_at`` alone: it did not read the truth of now.

Nothing here fails open. Without a read the published object ages, and beyond half a ttl nobody is served from it.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Final

import structlog

from app.domain.moments import moment
from app.service.clocks import Clocks
from app.service.published import TAIL_LENGTH, Kept, Published, Tail, kept
from app.service.store import Head, LogDiverged, LogRow, OutcomeUnknown, Store, StoreUnavailable
from haltline.canonical import parse
from haltline.errors import HaltlineError, InvalidEntry
from haltline.flips import Entry, Note, Position, parse_entry

PAGE: Final = 2_000
"""How many entries one refresh reads at most."""

MEMORY_S: Final = 30 * 86_400.0
"""For how long a target remembers a kill that was released: the age beyond which planned work is refused anyway."""

SHARED: Final = 64
"""How many reads a ttl has at most for waiting requests, which share them: a flip is read at once all the same."""

REMEMBERED: Final = 1_000
"""How many positions before the tail are remembered, so that a fleet that comes back from a lapse asks for one once."""

_log: Final[Any] = structlog.get_logger(__name__)


class Unready(Enum):
    """Why the node cannot say how the log stands now."""

    STALE = "stale"
    """It could not read the log recently enough; that may pass."""
    HALTED = "halted"
    """The log is not the one that it read before, or has entries that it does not understand; that does not pass."""


class Refresher:
    """Reads the log for all requests of this process."""

    def __init__(
        self,
        store: Store,
        clocks: Clocks,
        *,
        open_log: Callable[[], Head],
        forget_token: Callable[[str], None],
        use_ttl: Callable[[int], None],
        opened: Head | None = None,
        leisure_s: float = 0.0,
    ) -> None:
        """Set up, without starting.

        Args:
            store: where the log is kept.
            clocks: the raw clock dates reads.
            open_log: opens the log and returns its head, making the log if there is none.
            forget_token: called with a token's id when the log says that it was revoked.
            use_ttl: called with the lease ttl, milliseconds, when it is known and when it changes.
            opened: the head of the log where it is open already; None to open it before the first read.
            leisure_s: how long to wait with a read that was rung for, seconds: where no worker waits for the news, it
                is read once, after those who have workers.
        """
        self.timebase: Final = secrets.token_hex(8)
        self._store = store
        self._clocks = clocks
        self._open_log = open_log
        self._forget_token = forget_token
        self._use_ttl = use_ttl
        self._identity = opened
        self._leisure_s = leisure_s
        self._published: Published | None = None
        self._halted: str | None = None
        self._failing = False
        self._past: dict[int, Position] = {}
        self._asked = threading.Event()
        self._rung = threading.Event()
        self._next = threading.Event()
        self._grown = threading.Event()
        self._listeners: tuple[Callable[[Published], None], ...] = ()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._running = 0
        self._closed = False

    @property
    def published(self) -> Published | None:
        """What was published last, however old; None before the first read."""
        return self._published

    @property
    def halted(self) -> str | None:
        """Why this node has stopped reading for good; None while it has not."""
        return self._halted

    @property
    def running(self) -> bool:
        """Whether the thread runs, in this very process."""
        # Not by asking the thread: under gevent that gives way to every other greenlet, at each request.
        return self._running == os.getpid()

    def ensure_running(self) -> None:
        """Start the thread if it is not running, be it for the first time or because it died."""
        if not self._wanted():
            return
        with self._starting:
            if not self._wanted():
                return
            self._thread = threading.Thread(target=self._run, name="haltline-refresher", daemon=True)
            self._running = os.getpid()
            try:
                self._thread.start()
            except BaseException:
                self._running = 0
                raise

    def _wanted(self) -> bool:
        return not self.running and not self._closed and self._halted is None

    def close(self) -> None:
        """End the thread; requests that wait are answered as stale."""
        with self._starting:  # no thread is between made and started now, and none is made any more
            self._closed = True
            thread = self._thread
        self.ring()
        if thread is not None:
            thread.join(timeout=2.0)
        self._next.set()
        self._grown.set()

    def ring(self, seq: int = 0) -> None:
        """Have the log read now instead of at the next turn.

        Args:
            seq: how far the log is said to have grown; 0 if nothing is said. What has been read already is no news.
        """
        published = self._published
        if seq > 0 and published is not None and published.replica.position.seq >= seq:
            return
        self._rung.set()
        self._asked.set()

    def ask(self) -> None:
        """Have the log read at the next turn that whoever waits for a read gets; it does not wait."""
        self.ensure_running()
        self._asked.set()

    def read_after(self, received_at_us: int) -> Published | Unready:
        """Return what a read that began after a request was received has published; wait for it.

        Waiting requests share one read.

        Args:
            received_at_us: when the request was received: raw clock of this process, microseconds, rounded up.
        """
        self.ensure_running()
        published = self._published
        ttl_ms = published.ttl.ttl_ms if published is not None else 1_000
        deadline = self._clocks.monotonic() + ttl_ms / 2_000
        while True:
            # Taken before the look at what is published: a read that ends after the look ends this very round.
            ended = self._next
            published = self._published
            if self._halted is not None:
                return Unready.HALTED
            # Strictly: equal readings of a stopped clock would prove nothing.
            if published is not None and published.read_at_us > received_at_us:
                break
            left = deadline - self._clocks.monotonic()
            if left <= 0 or self._closed:
                return Unready.STALE
            self._asked.set()
            ended.wait(left)
        return published if published.fresh(self._clocks.raw_us_ceil()) else Unready.STALE

    def wait_beyond(self, seq: int, timeout_s: float) -> Published | None:
        """Wait until the log has grown beyond ``seq``, and return what is published then.

        Args:
            seq: the position that the caller has reached.
            timeout_s: for how long at most, seconds.

        Returns:
            the newest published state, whether it has grown or not; None before the first read.
        """
        self.ensure_running()
        deadline = self._clocks.monotonic() + timeout_s
        while True:
            # Taken before the look at what is published, as in read_after.
            grown = self._grown
            published = self._published
            if (published is not None and published.replica.position.seq > seq) or self._closed:
                return published
            left = deadline - self._clocks.monotonic()
            if left <= 0 or not grown.wait(left):
                return self._published

    def subscribe(self, listener: Callable[[Published], None]) -> Callable[[], None]:
        """Have ``listener`` called with each published state from the refresher's thread; return what ends that.

        Args:
            listener: it must return at once, and must not raise.
        """
        with self._starting:
            self._listeners = (*self._listeners, listener)

        def forget() -> None:
            with self._starting:
                self._listeners = tuple(each for each in self._listeners if each is not listener)

        return forget

    def position(self, seq: int) -> Position | None:
        """Return the position at ``seq`` of the log, however old; None if there is no such entry.

        Raises:
            StoreUnavailable: it is not remembered and could not be looked up.
        """
        known = self._past.get(seq)
        if known is None:
            row = self._store.entry(seq)
            if row is None:
                return None
            known = row.position
            # The log is append-only, and each read proves that it is still the same: what stood there stands there.
            if len(self._past) >= REMEMBERED:
                self._past = {}
            self._past[seq] = known
        return known

    def _run(self) -> None:
        try:
            while not self._closed and self._halted is None:
                self._asked.clear()
                self._rung.clear()
                began = self._clocks.monotonic()
                if self.refresh() and not self._closed:
                    self._rest(began)
        except Exception:  # noqa: BLE001 - it decides nothing: the thread ends, what it published ages, requests get 503
            _log.exception("refresher_died", detail="it is started anew by the next request that needs it")
        finally:
            self._running = 0

    def _rest(self, began: float) -> None:
        """Wait until the log is to be read again, after a read that began at ``began``."""
        published = self._published
        ttl_s = published.ttl.ttl_ms / 1_000 if published is not None else 1.0
        # From beginning to beginning: a node that is far from its database would else read too seldom.
        passed = self._clocks.monotonic() - began
        self._asked.wait(max(ttl_s / 8 - passed, ttl_s / 64))
        left = began + ttl_s / SHARED - self._clocks.monotonic()
        if left > 0:
            self._rung.wait(left)  # only somebody who waits has asked: there may soon be more of them
        if self._leisure_s > 0 and self._rung.is_set() and not self._closed:
            time.sleep(self._leisure_s)

    def refresh(self) -> bool:
        """Read one page of the log, and publish it; what the thread does at each turn.

        Returns:
            whether the read reached the end of the log, or failed and should be tried at the next turn.
        """
        # Whoever asks from here on waits for the next read: this one may begin too early for them.
        ended, self._next = self._next, threading.Event()
        try:
            return self._attempt()
        finally:
            ended.set()

    def _attempt(self) -> bool:
        try:
            caught_up = self._read()
        except (StoreUnavailable, OutcomeUnknown) as error:
            if not self._failing:
                _log.warning("log_unreadable", detail=str(error))
            self._failing = True
            return True
        except (LogDiverged, HaltlineError) as error:
            # For good: a log that is not the one read before may have lost kills that workers still rely on.
            self._halted = str(error)
            _log.critical("log_diverged", detail=str(error), action="no leases from this process until it is restarted")
            return True
        if self._failing:
            _log.info("log_readable_again")
        self._failing = False
        return caught_up

    def _read(self) -> bool:
        if self._identity is None:
            self._identity = self._open_log()
        before = self._published
        read_at = self._clocks.raw_us_floor()
        if before is None:
            since = moment(self._clocks.wall() - MEMORY_S)
            # Not with the connections for exports: whoever holds those must not keep a node from its first lease.
            loaded = self._store.load(remember_since=since, newest=TAIL_LENGTH)
            self._same_log(loaded.head)
            tail = self._tail(loaded.newest, loaded.replica.position)
            self._publish(Published(loaded.replica, tail, loaded.head.ttl, read_at))
            return True
        page = self._store.refresh(before.replica.position, limit=PAGE)
        self._same_log(page.head)
        entries = [self._entry(row) for row in page.rows]
        replica = before.replica.extend(entries)
        tail = before.tail
        if entries:
            more: list[Kept] = [kept(entry, row.body) for entry, row in zip(entries, page.rows, strict=True)]
            tail = tail.grown(more)
            self._heed(page.rows, entries)
        if page.last and replica.position != page.head.position:
            raise LogDiverged(
                f"the log's head is {page.head.position.seq}, but its entries end at {replica.position.seq}"
            )
        if page.last:
            self._publish(Published(replica, tail, page.head.ttl, read_at))
        else:
            # The ttl belongs to the date: a longer one beside an old date would be a lease that nobody promised.
            self._publish(Published(replica, tail, before.ttl, before.read_at_us))
        return page.last

    def _tail(self, rows: Sequence[LogRow], end: Position) -> Tail:
        """Return the newest entries up to ``end``, each proven to follow the one before.

        So a node that was just started continues whoever was served by the one before, and nobody else.
        """
        seq = max(end.seq - TAIL_LENGTH, 0)
        base = reached = Position()
        entries: list[Entry] = []
        for row in rows:
            entry = self._entry(row)
            if seq > 0 and not entries:
                # What came before is not read: it is what the entries from here to the head rest on.
                base = reached = Position(seq, entry.prev_hash)
            if entry.position.seq != seq + 1 or entry.prev_hash != reached.hash:
                raise LogDiverged(f"entry {entry.position.seq} does not follow entry {seq}: the log was edited")
            seq, reached = entry.position.seq, entry.position
            entries.append(entry)
        if reached != end:
            raise LogDiverged(f"entry {reached.seq} is not the one that the head names: the log was edited")
        # A token may have been looked up, and then revoked, before this first read of the log.
        self._heed(rows, entries)
        return Tail(base, [kept(entry, row.body) for entry, row in zip(entries, rows, strict=True)], len(entries))

    def _publish(self, published: Published) -> None:
        self._use_ttl(published.ttl.ttl_ms)
        before, self._published = self._published, published
        if before is None or published.replica.position.seq > before.replica.position.seq:
            grown, self._grown = self._grown, threading.Event()
            grown.set()
        for listener in self._listeners:
            listener(published)

    def _same_log(self, head: Head) -> None:
        known = self._identity
        if known is not None and (head.namespace, head.epoch) != (known.namespace, known.epoch):
            raise LogDiverged(
                f"the database holds log {head.namespace}/{head.epoch}, this process has read "
                f"{known.namespace}/{known.epoch}"
            )

    def _entry(self, row: LogRow) -> Entry:
        known = self._identity
        entry = parse_entry(
            parse(row.body.encode("utf-8"), scan_depth=False),
            namespace=known.namespace if known is not None else None,
            epoch=known.epoch if known is not None else None,
        )
        if entry.position != row.position:
            raise InvalidEntry(f"entry {row.position.seq}: its body is that of entry {entry.position.seq}")
        return entry

    def _heed(self, rows: Sequence[LogRow], entries: list[Entry]) -> None:
        """Forget the tokens whose revocation stands in these entries."""
        for row, entry in zip(rows, entries, strict=True):
            if isinstance(entry, Note) and entry.topic == "token_revoked":
                members = parse(row.body.encode("utf-8"), scan_depth=False)
                self._forget_token(str(members.get("token_id", "")))
