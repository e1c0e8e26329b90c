"""The renewal of a lease, without any I/O: what to ask, how to judge the answer, and when to ask again.

Real time drives it in production, a manual clock in tests. It holds the lease; whoever drives it publishes that object
after each step. Nothing here is ever extended by anything but a frame that answers this client's own request.

One frame answers a request here; haltline.following judges a whole stream of them by the same steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from typing import Final

from haltline.asks import Ask, Identity, ack_body, ask_body
from haltline.frames import (
    FRAME_MAX_BYTES,
    FRAME_TYPE,
    FRAME_VERSION,
    STREAM_TYPE,
    Frame,
    Refused,
    Reply,
    check_log,
    fold,
    frame_of,
    keys_of,
    span_of,
    timebase_of,
)
from haltline.keys import StampKey
from haltline.lease import (
    NEVER,
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
from haltline.verdict import Reason, Stop

__all__ = ["FRAME_MAX_BYTES", "FRAME_VERSION", "Ask", "Identity", "Renewal", "Reply", "Then", "unlive"]

_BACKOFF_FLOOR_S: Final = 0.05
_BACKOFF_CAP_S: Final = 1.0
_DEFAULT_TTL_S: Final = 1.0
_AGAIN_NS: Final = 20_000_000
_MAP_SLACK_NS: Final = 1_000_000
_ACK_WITHIN_S: Final = 0.05
_ACK_WITHIN_MAX_S: Final = 30.0
_LATER_MAX_S: Final = 1.6
"""The longest wait that a service may ask for, seconds: whoever asks for more would keep a fleet stopped by it.

With the quarter that is added it is 2 s. Cut to 2 s only then, all who were told so would come back in step.
"""
_POOR_MAX: Final = 3
"""How often in a row the time doubles for which a stream that is of little use is kept."""
_AGE_MAX_NS: Final = 10_000_000_000
"""How old a stream may grow on this machine's clock: a node ends one after 9 s."""


class Then(Enum):
    """What to do after a step."""

    READ = "read the stream's next frame"
    ASK = "end this exchange, and ask the same service once it is due"
    LEAVE = "end this exchange and its connection, and ask elsewhere once it is due"


class Renewal:
    """The renewal state machine of one process.

    Args:
        identity: who asks.
        random: returns a float from 0 to below 1; spreads the retries of many clients.

    Attributes:
        lease: the lease as it stands: the first is already expired.
        due: when to ask next on the lease clock, nanoseconds.
        not_before: the moment before which nobody may have it asked, however urgent it is to them: the end of the pause
            after a failure, and of the least time between two requests for streams.
        then: what to do after the last step.
        renewals: how many leases were granted so far; every frame of a stream grants one.
        truth: a moment on the lease clock, nanoseconds, at or after which what this process knows was read.
        news: whether entries were applied that no request has told of yet.
        later_s: for how long whoever answered last does not want to be asked again, seconds; 0 if it did not say.
        spared_until: when the next request may be sent at the earliest, however urgent, lease clock, nanoseconds.
        stamp_keys: what planned work is sealed with, the newest first; those of the newest first frame that had them.
        ack_within_s: over how long workers are asked to spread their acks of a flip, seconds.
    """

    def __init__(self, identity: Identity, *, random: Callable[[], float]) -> None:
        self.identity = identity
        self.lease: Lease = NEVER
        self.due = self.not_before = 0
        self.then = Then.ASK
        self.renewals = 0
        self.truth = -1
        self.news = False
        self.later_s = 0.0
        self.spared_until = 0
        self.ack_within_s = _ACK_WITHIN_S
        self.stamp_keys: tuple[StampKey, ...] = ()
        self._random = random
        self._asked = 0
        self._drift = Drift.NORMAL
        self._watch: Watch | None = None
        self._backoff_s = _BACKOFF_FLOOR_S
        self._ttl_s = _DEFAULT_TTL_S
        self._poor = 0

    @property
    def earliest(self) -> int:
        """When the next request may be sent at the earliest, however urgent it is, lease clock, nanoseconds."""
        return max(self.not_before, self.spared_until)

    @property
    def deadline_s(self) -> float:
        """For how long an exchange may last until its first frame is read, seconds.

        A lease older than its ttl is worth nothing.
        """
        return max(self._ttl_s, 0.25)

    @property
    def silence_s(self) -> float:
        """For how long a stream may be silent, seconds: two beats are missed by then, and the lease still runs."""
        return max(0.6 * self._ttl_s, 0.2)

    @property
    def age_max_ns(self) -> int:
        """How old a stream may grow on this machine's clock, nanoseconds: drift grows with it.

        While the clocks disagree a tenth of its age is given up, which a fresh stream need not.
        """
        return _AGE_MAX_NS if self._drift is Drift.NORMAL else min(_AGE_MAX_NS, int(self._ttl_s * 2e9))

    def lags(self, lag_ns: int) -> bool:
        """Return whether leases that come so much later than the read they rest on are of little use: half a ttl."""
        return lag_ns > self._ttl_s * 1e9 / 2

    def patience_ns(self, lag_ns: int) -> int | None:
        """Return for how long to keep a stream, nanoseconds; None if it is a good one.

        Its leases are dated from ``t0``. Where the request waited for more than half a ttl to be answered, as it does
        at a node that has just come back, each frame comes when most of its lease is over or all of it, for as long as
        the stream lasts. A new request is dated anew; but all who waited must not send it at the same moment, nor at
        once: the node may still have too much to do.

        Args:
            lag_ns: how much older a lease of this stream is when it comes than the read that it rests on.
        """
        if not self.lags(lag_ns):
            self._poor = 0
            return None
        longest_s = self._ttl_s * 2**self._poor
        self._poor = min(self._poor + 1, _POOR_MAX)
        return int((self._ttl_s / 4 + self._random() * longest_s) * 1e9)

    def begin(self, now: Readings, *, nonce: str, stream: bool = False) -> Ask:
        """Return the request to send now.

        Args:
            now: the clocks, read just before; they become ``t0``.
            nonce: a fresh random text of 16 to 64 characters.
            stream: whether to ask for a stream of frames.
        """
        replica = self.lease.replica
        body = ask_body(self.identity, replica, nonce=nonce, stream=stream)
        self.news = False
        self._asked = now.boot
        self.later_s = 0.0
        return Ask(nonce, now, replica.position, stream, body)

    def ack(self) -> bytes:
        """Return what tells the service how far this process has applied the log."""
        self.news = False
        return ack_body(self.identity, self.lease.replica)

    def answered(self, ask: Ask, reply: Reply, now: Readings) -> Lease:
        """Judge a whole reply, and return the lease as it then stands.

        Args:
            ask: the request that it answers.
            reply: the reply.
            now: the clocks, read after its last byte.
        """
        try:
            frame = frame_of(reply, STREAM_TYPE if ask.stream else FRAME_TYPE)
            self.check_first(ask, frame)
            then = self.take(ask, frame, received_at=frame.get("received_at"), floor=ask.position.seq, now=now)
        except Refused as refusal:
            self.fail(refusal.reason, refusal.detail, now, drop=refusal.drop)
            self.later_s = min(refusal.later_s, _LATER_MAX_S)
            return self.lease
        if then is Then.READ:
            self.due = ask.t0.boot + max(int(self._ttl_s * 1e9 / 3), _AGAIN_NS)
            self.not_before = 0
        self.then = Then.ASK
        return self.lease

    def unanswered(self, detail: str, now: Readings) -> Lease:
        """Note that no whole reply came, and return the lease: it goes on for as long as it was granted.

        Args:
            detail: what went wrong, one sentence.
            now: the clocks.
        """
        self.fail(Reason.UNREACHABLE, detail, now, drop=False)
        return self.lease

    def spare(self, wait_s: float, now: Readings) -> None:
        """Have the next request wait: whoever is asked next has said for how long. No lease is longer for it.

        Args:
            wait_s: for how long, seconds, 1.6 at most; a random part of a quarter is added, or all who were told the
                same would come back in step.
            now: the clocks.
        """
        if wait_s > 0:
            self.spared_until = now.boot + int(min(wait_s, _LATER_MAX_S) * (1 + self._random() / 4) * 1e9)
            self.due = max(self.due, self.spared_until)

    def drop(self, stop: Stop) -> Lease:
        """End the lease at once, keeping what is known of kills, and return it."""
        self.lease = Lease(self.lease.replica, NEVER.until, stop)
        return self.lease

    # -- the steps that single frames and streams share -----------------------------------------------------------

    def check_first(self, ask: Ask, frame: Frame) -> None:
        """Check that a frame answers this very request, and is of the log that this process knows.

        Raises:
            Refused: it does not, or it is not.
        """
        if frame.get("nonce") != ask.nonce:
            raise Refused(Reason.MALFORMED, "the reply does not repeat this request's nonce: a replay", drop=False)
        self.check_log(frame)
        timebase_of(frame)
        keys = keys_of(frame)
        if keys is not None:
            self.stamp_keys = keys
        within_ms = frame.get("ack_within_ms")
        if type(within_ms) is int and within_ms >= 0:
            self.ack_within_s = min(within_ms / 1000, _ACK_WITHIN_MAX_S)

    def check_log(self, frame: Frame) -> None:
        """Check that a frame can be understood, and is of the log that this process knows.

        Raises:
            Refused: it cannot, or it is not.
        """
        check_log(frame, namespace=self.identity.namespace, pinned=self.lease.replica.epoch)

    def take(
        self, ask: Ask, frame: Frame, *, received_at: object, floor: int, now: Readings, later: bool = False
    ) -> Then:
        """Take the lease that a frame grants, and what it says of kills.

        Args:
            ask: the request that it answers: leases are dated from its ``t0``.
            frame: the frame; it was checked to be of this log.
            received_at: what the first frame says of when the request came.
            floor: the lowest position that is no regress.
            now: the clocks, read after its last byte.
            later: whether it is not the first frame.

        Raises:
            Refused: nothing is taken from it.
        """
        span_us, ttl_ms = span_of(frame, received_at)
        held = self.lease.replica
        # What a frame says of kills is taken even where it grants no lease.
        folded = fold(frame, held, floor=floor)
        replica = held if folded is None else folded
        self.news = self.news or (replica is not held and bool(held.epoch) and "snapshot" not in frame)
        was = self._drift
        state = self._clocks_say(ask.t0, now, span_us, later=later)
        newly_slewed = self._drift is Drift.SLEWING and was is Drift.NORMAL
        self._ttl_s = min(ttl_ms, TTL_MAX_MS) / 1000
        self._backoff_s = _BACKOFF_FLOOR_S
        if state is ClockState.AHEAD or newly_slewed:
            told = Stop(Reason.CLOCK, detail=f"this machine's clocks disagree ({state.value}): asking anew")
            self.lease = Lease(replica, NEVER.until, told)
            return self._now(now)
        if folded is not None:  # else another stream has shown more already: this frame extends nothing
            until = seconds(lease_until(ask.t0.boot, span_us=span_us, ttl_ms=ttl_ms, drift=self._drift))
            stop = Stop(Reason.STALE, detail="the last lease has lapsed and the next one has not come")
            self.lease = Lease(replica, max(until, self.lease.until), stop)
            self.truth = max(self.truth, ask.t0.boot + span_us * 1_000 * self._drift.value // 500)
            self.renewals += 1
        if state is ClockState.BEHIND:
            return self._now(now)
        self.then = Then.READ
        return self.then

    def anew(self, ask: Ask, now: Readings) -> Then:
        """Have the next request follow at once, though never sooner than a quarter of the ttl after the last one."""
        self.due = self.not_before = max(now.boot, ask.t0.boot + int(self._ttl_s * 1e9 / 4))
        self.then = Then.ASK
        return self.then

    def fail(self, reason: Reason, detail: str, now: Readings, *, drop: bool) -> Then:
        """Note a failure: the lease goes on for as long as it was granted, or ends; the next request waits a while.

        Args:
            reason: what a check after the lease's end says.
            detail: the same, one sentence.
            now: the clocks.
            drop: whether the lease ends now.
        """
        stop = Stop(reason, detail=detail)
        self.lease = Lease(self.lease.replica, NEVER.until if drop else self.lease.until, stop)
        # Decorrelated jitter: many clients that lost one node must not come back in step.
        spread = _BACKOFF_FLOOR_S + self._random() * (self._backoff_s * 3 - _BACKOFF_FLOOR_S)
        self._backoff_s = min(_BACKOFF_CAP_S, spread)
        # Counted from the request: one that hung until its deadline has waited already, and pauses as after a first
        # failure; else a service that is back would have to wait for both.
        soon = now.boot + int((_BACKOFF_FLOOR_S + self._random() * 2 * _BACKOFF_FLOOR_S) * 1e9)
        self.due = self.not_before = max(soon, self._asked + int(self._backoff_s * 1e9))
        self.then = Then.LEAVE
        return self.then

    def _now(self, now: Readings) -> Then:
        """Have the next request follow at once: the clocks make this one's answers worth little."""
        self.due = self.not_before = now.boot + _AGAIN_NS
        self.then = Then.ASK
        return self.then

    def _clocks_say(self, t0: Readings, now: Readings, span_us: int, *, later: bool) -> ClockState:
        """Return what the clocks say about a frame, and note how far they are trusted.

        They are compared with those of ``t0``, and for a slew also with those of some seconds ago.
        """
        self._watch = watch_from(self._watch, now if later else t0)
        slewing = slewed(t0, now) or slewed(self._watch.older, now)
        self._drift = Drift.SLEWING if slewing else Drift.NORMAL
        # The earliest moment of this machine's clock at which the truth can have been read.
        read = t0.boot + span_us * 1_000 * self._drift.value // 500
        state = ClockState.AHEAD if read > now.boot + _MAP_SLACK_NS else clock_state(t0, now)
        return ClockState.SLEWED if slewing and state is not ClockState.AHEAD else state


def unlive(lease: Lease) -> Lease:
    """Return the lease as a forked child inherits it: what is known of kills, and no permission at all."""
    stop = Stop(Reason.NOT_READY, detail="this process was forked and has not been granted a lease of its own yet")
    return replace(lease, until=NEVER.until, stop=stop)
