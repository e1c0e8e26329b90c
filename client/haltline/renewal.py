"""The renewal of a lease, without any I/O: what to ask, how to judge the answer, and when to ask again.

Real time drives it in production, a manual clock in tests. It holds the lease; whoever drives it publishes that object
after each step. Nothing here is ever extended by anything but a frame that answers this client's own request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from haltline.canonical import canonical, parse
from haltline.errors import InvalidDocument, InvalidEntry, PositionGap
from haltline.flips import Entry, Position, Stub, is_epoch, is_hash, parse_entry, parse_stub
from haltline.lease import (
    NEVER,
    SPAN_MAX_US,
    TTL_MAX_MS,
    ClockState,
    Drift,
    Lease,
    Readings,
    Watch,
    clock_state,
    lease_until,
    seconds,
    slewed,
    watch_from,
)
from haltline.replica import Replica, from_snapshot
from haltline.verdict import Reason, Stop

FRAME_VERSION: Final = 1
"""The newest frame version that this client understands; a newer one means stopped."""

FRAME_MAX_BYTES: Final = 64 * 1024 * 1024
"""The largest frame that is read: a snapshot of 100,000 holds takes about 30 MiB."""

_BACKOFF_FLOOR_S: Final = 0.05
_BACKOFF_CAP_S: Final = 1.0
_DEFAULT_TTL_S: Final = 1.0
_AGAIN_NS: Final = 20_000_000
_MAP_SLACK_NS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks.

    Attributes:
        worker: the process's name in reports, a valid id.
        instance: a random id of this very process; another after a fork.
        namespace: the namespace that the token is of.
    """

    worker: str
    instance: str
    namespace: str


@dataclass(frozen=True, slots=True)
class Ask:
    """One request for a frame: what it carries, and when it was begun.

    Attributes:
        nonce: a random text that the answer must repeat.
        t0: the clocks before the first byte was sent, connecting included.
        position: the position that the request states, which is also the worker's ack.
        body: the request's body.
    """

    nonce: str
    t0: Readings
    position: Position
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP reply, as the transport read it.

    Attributes:
        status: the status code.
        content_type: the header's value as it came; empty if there was none.
        encoded: whether the reply names a content encoding.
        body: the whole body.
    """

    status: int
    content_type: str
    encoded: bool
    body: bytes


class _Refused(Exception):
    """A frame from which no lease is taken. ``drop`` ends the running lease too."""

    def __init__(self, reason: Reason, detail: str, *, drop: bool) -> None:
        super().__init__(detail)
        self.reason, self.detail, self.drop = reason, detail, drop


class Renewal:
    """The renewal state machine of one process.

    Args:
        identity: who asks.
        random: returns a float from 0 to below 1; spreads the retries of many clients.

    Attributes:
        lease: the lease as it stands: the first is already expired.
        due: when to ask next on the lease clock, nanoseconds.
        renewals: how many leases were granted so far.
    """

    def __init__(self, identity: Identity, *, random: Callable[[], float]) -> None:
        self.identity = identity
        self.lease: Lease = NEVER
        self.due = 0
        self.renewals = 0
        self._random = random
        self._drift = Drift.NORMAL
        self._watch: Watch | None = None
        self._backoff_s = _BACKOFF_FLOOR_S
        self._ttl_s = _DEFAULT_TTL_S

    @property
    def deadline_s(self) -> float:
        """For how long one exchange may last in all, seconds: a lease older than its ttl is worth nothing."""
        return max(self._ttl_s, 0.25)

    def begin(self, now: Readings, *, nonce: str) -> Ask:
        """Return the request to send now.

        Args:
            now: the clocks, read just before; they become ``t0``.
            nonce: a fresh random text of 16 to 64 characters.
        """
        replica = self.lease.replica
        known = replica.position.seq > 0
        body = canonical(
            {
                "stream": False,
                "nonce": nonce,
                "worker": self.identity.worker,
                "instance": self.identity.instance,
                "namespace": self.identity.namespace,
                "epoch": replica.epoch if known else None,
                "seq": replica.position.seq,
                "hash": replica.position.hash if known else None,
            }
        )
        return Ask(nonce, now, replica.position, body)

    def answered(self, ask: Ask, reply: Reply, now: Readings) -> Lease:
        """Judge a reply, and return the lease as it then stands.

        Args:
            ask: the request that it answers.
            reply: the reply.
            now: the clocks, read after its last byte.
        """
        try:
            frame = _frame(reply)
            again = self._judge(ask, frame, now)
        except _Refused as refusal:
            return self._fail(refusal.reason, refusal.detail, now, drop=refusal.drop)
        self.due = now.boot + _AGAIN_NS if again else ask.t0.boot + max(int(self._ttl_s * 1e9 / 3), _AGAIN_NS)
        return self.lease

    def unanswered(self, detail: str, now: Readings) -> Lease:
        """Note that no whole reply came, and return the lease: it goes on for as long as it was granted.

        Args:
            detail: what went wrong, one sentence.
            now: the clocks.
        """
        return self._fail(Reason.UNREACHABLE, detail, now, drop=False)

    def drop(self, stop: Stop) -> Lease:
        """End the lease at once, keeping what is known of kills, and return it."""
        self.lease = Lease(self.lease.replica, NEVER.until, stop)
        return self.lease

    def _fail(self, reason: Reason, detail: str, now: Readings, *, drop: bool) -> Lease:
        stop = Stop(reason, detail=detail)
        self.lease = Lease(self.lease.replica, NEVER.until if drop else self.lease.until, stop)
        # Decorrelated jitter: many clients that lost one node must not come back in step.
        spread = _BACKOFF_FLOOR_S + self._random() * (self._backoff_s * 3 - _BACKOFF_FLOOR_S)
        self._backoff_s = min(_BACKOFF_CAP_S, spread)
        self.due = now.boot + int(self._backoff_s * 1e9)
        return self.lease

    def _judge(self, ask: Ask, frame: dict[str, Any], now: Readings) -> bool:
        """Take the lease that a frame grants, and return whether the clocks make it worth asking again at once."""
        span_us, ttl_ms = self._checked(ask, frame)
        replica = self._fold(ask, frame, self._view(frame))
        # What a frame says of kills is taken even where it grants no lease.
        state = clock_state(ask.t0, now)
        passed = now.boot - ask.t0.boot
        if span_us * 1_000 > passed + passed // 500 + _MAP_SLACK_NS:
            state = ClockState.AHEAD
        self._watch = watch_from(self._watch, ask.t0)
        if state is not ClockState.AHEAD and slewed(self._watch.older, now):
            state = ClockState.SLEWED
        self._ttl_s = min(ttl_ms, TTL_MAX_MS) / 1000
        self._backoff_s = _BACKOFF_FLOOR_S
        newly_slewed = state is ClockState.SLEWED and self._drift is Drift.NORMAL
        self._drift = Drift.SLEWING if state is ClockState.SLEWED else Drift.NORMAL
        stop = Stop(Reason.STALE, detail="the last lease has lapsed and the next one has not come")
        if state is ClockState.AHEAD or newly_slewed:
            told = Stop(Reason.CLOCK, detail=f"this machine's clocks disagree ({state.value}): asking anew")
            self.lease = Lease(replica, NEVER.until, told)
            return True
        until = seconds(lease_until(ask.t0.boot, span_us=span_us, ttl_ms=ttl_ms, drift=self._drift))
        self.lease = Lease(replica, max(until, self.lease.until), stop)
        self.renewals += 1
        return state is ClockState.BEHIND

    def _checked(self, ask: Ask, frame: dict[str, Any]) -> tuple[int, int]:
        """Return the frame's span (microseconds) and ttl (milliseconds), once it is known to answer ``ask``."""
        version = frame.get("v")
        if frame.get("nonce") != ask.nonce:
            raise _Refused(Reason.MALFORMED, "the reply does not repeat this request's nonce: a replay", drop=False)
        if type(version) is not int or version > FRAME_VERSION:
            raise _Refused(Reason.MALFORMED, f"frame version {version!r:.20} is newer: update this client", drop=True)
        if frame.get("namespace") != self.identity.namespace:
            raise _Refused(
                Reason.FOREIGN,
                f"the service keeps namespace {frame.get('namespace')!r:.50}, the token is of "
                f"{self.identity.namespace!r}",
                drop=True,
            )
        epoch, pinned = frame.get("epoch"), self.lease.replica.epoch
        if not is_epoch(epoch) or (pinned and epoch != pinned):
            raise _Refused(
                Reason.FOREIGN, f"the log's epoch is {epoch!r:.30}, this process knows {pinned!r}", drop=True
            )
        received, read, ttl_ms = frame.get("received_at"), frame.get("read_at"), frame.get("ttl_ms")
        if type(received) is not int or type(read) is not int or type(ttl_ms) is not int or ttl_ms < 1:
            raise _Refused(Reason.MALFORMED, "received_at, read_at or ttl_ms is missing", drop=False)
        if not 0 < read - received <= SPAN_MAX_US:
            raise _Refused(
                Reason.MALFORMED, "the truth was not read after the request, or much later: no proof", drop=False
            )
        return read - received, ttl_ms

    def _view(self, frame: dict[str, Any]) -> frozenset[str] | None:
        """Return the tenants whose kills the frame shows; None for all. It never changes in the life of a process."""
        listed = frame.get("tenants", 0)
        if listed is not None and not (isinstance(listed, list) and all(type(each) is str for each in listed)):
            raise _Refused(Reason.MALFORMED, "tenants is missing or malformed", drop=False)
        view = None if listed is None else frozenset(listed)
        held = self.lease.replica
        if held.epoch and held.tenants != view:
            # Kills that came as stubs under the old view are not known: what was folded proves nothing for the new.
            raise _Refused(Reason.FOREIGN, "the token is bound to other tenants than before: start anew", drop=True)
        return view

    def _fold(self, ask: Ask, frame: dict[str, Any], tenants: frozenset[str] | None) -> Replica:
        """Return the replica with the frame folded in: whole, contiguous and never going back."""
        start, seq, head = frame.get("from"), frame.get("seq"), frame.get("hash")
        if type(start) is not int or type(seq) is not int or not is_hash(head) or not 0 <= start <= seq:
            raise _Refused(Reason.MALFORMED, "from, seq or hash is missing or malformed", drop=False)
        held = self.lease.replica
        if seq < max(ask.position.seq, held.position.seq):
            raise _Refused(
                Reason.REGRESS,
                f"the service's log ends at {seq}, this client has seen {held.position.seq}: a restored backup, a "
                f"lost failover or another database",
                drop=True,
            )
        try:
            base = held
            if "snapshot" in frame:
                base = from_snapshot(
                    frame["snapshot"], namespace=frame["namespace"], epoch=frame["epoch"], tenants=tenants
                )
                if base.position.seq != start or base.position.seq < held.position.seq:
                    raise _Refused(Reason.REGRESS, "the snapshot is older than what this client has seen", drop=True)
                if base.position.seq == held.position.seq and base.position != held.position:
                    raise _Refused(Reason.REGRESS, "the snapshot is of a log with another history", drop=True)
            elif start > held.position.seq or not held.epoch:
                raise _Refused(Reason.MALFORMED, f"the frame starts at {start}: entries are missing", drop=True)
            folded = base.extend(_entries(frame))
        except PositionGap as gap:
            raise _Refused(Reason.REGRESS, str(gap), drop=True) from gap
        except InvalidDocument as error:
            # Bytes that answer our own nonce but cannot be understood may hold a kill: stopped, at once.
            raise _Refused(Reason.MALFORMED, str(error), drop=True) from error
        if folded.position != Position(seq, str(head)):
            raise _Refused(Reason.REGRESS, f"the frame's entries do not end at its own position {seq}", drop=True)
        # The same object while nothing was folded in: a run's memory of its verdict stays valid.
        return held if folded.position == held.position and folded.epoch == held.epoch else folded


def _entries(frame: dict[str, Any]) -> list[Entry | Stub]:
    listed = frame.get("entries")
    if not isinstance(listed, list):
        raise InvalidEntry("entries are missing")
    entries: list[Entry | Stub] = []
    for members in listed:
        if isinstance(members, dict) and len(members) == 2:
            entries.append(parse_stub(members))
        else:
            entries.append(parse_entry(members, namespace=frame["namespace"], epoch=frame["epoch"]))
    return entries


def _frame(reply: Reply) -> dict[str, Any]:
    """Return the members of a reply that is a frame, whatever they say."""
    if reply.status != 200:
        raise _status_refused(reply)
    if reply.encoded or reply.content_type != "application/json":
        raise _Refused(
            Reason.MALFORMED,
            f"the reply is not a frame (content type {reply.content_type!r:.60}): something else answers here",
            drop=False,
        )
    try:
        frame = parse(reply.body, scan_depth=False)
    except InvalidDocument as error:
        raise _Refused(Reason.MALFORMED, f"the reply is not a frame: {error}", drop=False) from error
    if not isinstance(frame, dict):
        raise _Refused(Reason.MALFORMED, "the reply is not a frame: not an object", drop=False)
    return frame


def _status_refused(reply: Reply) -> _Refused:
    """Return the refusal that a status other than 200 means."""
    told, code = _problem(reply)
    said = f"the service answered {reply.status}{told}"
    if reply.status in (401, 403):
        return _Refused(Reason.REFUSED, f"{said}: check HALTLINE_TOKEN", drop=True)
    if reply.status == 409:
        return _Refused(Reason.FOREIGN if code == "foreign" else Reason.REGRESS, said, drop=True)
    if 300 <= reply.status < 400:
        return _Refused(Reason.MALFORMED, f"{said}, a redirect, which is never followed", drop=False)
    if reply.status >= 500 or reply.status == 429:
        return _Refused(Reason.UNREACHABLE, said, drop=False)
    return _Refused(Reason.REFUSED, said, drop=False)


def _problem(reply: Reply) -> tuple[str, str]:
    """Return what a problem+json reply says, bounded and printable, and its code."""
    if reply.content_type.partition(";")[0].strip() != "application/problem+json":
        return "", ""
    try:
        members = parse(reply.body[:4096])
    except InvalidDocument:
        return "", ""
    if not isinstance(members, dict):
        return "", ""
    detail, code = members.get("detail"), members.get("code")
    told = f" ({ascii(detail)[1:-1]:.200})" if isinstance(detail, str) else ""
    return told, code if isinstance(code, str) else ""


def unlive(lease: Lease) -> Lease:
    """Return the lease as a forked child inherits it: what is known of kills, and no permission at all."""
    stop = Stop(Reason.NOT_READY, detail="this process was forked and has not been granted a lease of its own yet")
    return replace(lease, until=NEVER.until, stop=stop)
