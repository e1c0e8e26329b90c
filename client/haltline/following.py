"""Following a lease stream, without any I/O: each frame is judged by what the first one proved.

A stream is dated once, by its request's ``t0`` and its first frame's ``received_at``; every frame's lease is counted
from there, so that a frame which lay in a buffer has already expired. A stream never gets better than its first frame:
it may not change its clock, go back, or leave entries out.
"""

from __future__ import annotations

from haltline.frames import Frame, Refused, check_later, parsed, span_of, timebase_of
from haltline.lease import Readings
from haltline.renewal import Ask, Renewal, Then
from haltline.verdict import Reason, Stop


class Following:
    """One stream, as far as it was read.

    Several may be open at once: they share the renewal, and never each other's times.

    Args:
        renewal: what keeps the lease.
        ask: the request that opened the stream.
    """

    def __init__(self, renewal: Renewal, ask: Ask) -> None:
        self._renewal = renewal
        self._ask = ask
        self._timebase = ""
        self._received_at: object = None
        self._seq = ask.position.seq
        # Until when the next frame has to be there, lease clock, nanoseconds.
        self._by = ask.t0.boot + int(renewal.deadline_s * 1e9)
        self._late = False
        # Whether a frame has come soon enough to show that the request did not wait for long.
        self._good = False
        # When it is given up for a better one, lease clock, nanoseconds; None where it is good, or may be.
        self._leave_at: int | None = None

    @property
    def begun(self) -> bool:
        """Whether the first frame was taken."""
        return bool(self._timebase)

    def may_leave(self, now: Readings) -> bool:
        """Return whether whoever finds the lease lapsed may have the stream given up.

        Not while it is poor, or may be: its node has too much to do, and would be asked anew at each lapse by all who
        cannot wait, however patient the streams themselves are.

        Args:
            now: the clocks.
        """
        return self._good or (self._leave_at is not None and now.boot >= self._leave_at)

    def left_s(self, now: Readings) -> float:
        """Return for how long to wait for the next whole frame, seconds; above 0.

        Args:
            now: the clocks.
        """
        by = min(self._by, self._ask.t0.boot + self._renewal.age_max_ns)
        if self._leave_at is not None:
            by = min(by, self._leave_at)
        return max((by - now.boot) / 1e9, 0.001)

    def heard(self, line: bytes, now: Readings) -> Then:
        """Judge a frame; the renewal has the lease as it then stands.

        Args:
            line: the frame's text.
            now: the clocks, read after its last byte.
        """
        if self._aged(now):
            return self._renewal.anew(self._ask, now)
        try:
            then = self._later(line, now) if self.begun else self._first(line, now)
        except Refused as refusal:
            if self.begun and refusal.gap:
                if refusal.drop:
                    self._renewal.drop(Stop(refusal.reason, detail=refusal.detail))
                return self._renewal.anew(self._ask, now)
            return self._renewal.fail(refusal.reason, refusal.detail, now, drop=refusal.drop)
        # Frames that have expired when they come must not keep a stream: it stays as silent as before them.
        live = now.boot / 1e9 < self._renewal.lease.until
        if live or not self._late:
            self._by = now.boot + int(self._renewal.silence_s * 1e9)
        self._late = not live
        return then

    def ended(self, now: Readings) -> Then:
        """Note that the service ended the stream as agreed: between two frames, the connection whole.

        Args:
            now: the clocks.
        """
        if not self.begun:
            return self._renewal.fail(Reason.MALFORMED, "the stream ended before its first frame", now, drop=False)
        return self._renewal.anew(self._ask, now)

    def failed(self, detail: str, now: Readings) -> Then:
        """Note that the stream broke off, or that no frame came in time.

        Args:
            detail: what went wrong, one sentence.
            now: the clocks.
        """
        if self.begun and self._aged(now):
            return self._renewal.anew(self._ask, now)
        return self._renewal.fail(Reason.UNREACHABLE, detail, now, drop=False)

    def left(self, now: Readings) -> Then:
        """Note that whoever reads the stream gave it up, to ask anew at once.

        Args:
            now: the clocks.
        """
        return self._renewal.anew(self._ask, now)

    def _aged(self, now: Readings) -> bool:
        if self._leave_at is not None and now.boot >= self._leave_at:
            return True
        return now.boot - self._ask.t0.boot >= self._renewal.age_max_ns

    def _first(self, line: bytes, now: Readings) -> Then:
        frame = parsed(line)
        self._renewal.check_first(self._ask, frame)
        received_at = frame.get("received_at")
        then = self._renewal.take(self._ask, frame, received_at=received_at, floor=self._seq, now=now)
        self._timebase, self._received_at, self._seq = timebase_of(frame), received_at, frame["seq"]
        self._judge(frame, now)
        return then

    def _later(self, line: bytes, now: Readings) -> Then:
        frame = parsed(line)
        self._renewal.check_log(frame)
        check_later(frame, self._timebase)
        then = self._renewal.take(self._ask, frame, received_at=self._received_at, floor=self._seq, now=now, later=True)
        self._seq = frame["seq"]
        if not self._good:
            self._judge(frame, now)
        return then

    def _judge(self, frame: Frame, now: Readings) -> None:
        """Note what a frame that was taken shows of the stream: whether it is good, or for how long to keep it.

        Every lease of it ends so much sooner, for so long its request lay about, as in a queue of the node. What the
        frame itself was late by is in that too: the first that comes soon enough shows that the stream is good.
        """
        span_us, _ = span_of(frame, self._received_at)
        lag_ns = now.boot - self._ask.t0.boot - span_us * 1_000
        # A snapshot takes long to write, send and read, which the frames after it do not.
        if self._renewal.lags(lag_ns) and ("snapshot" in frame or self._leave_at is not None):
            return
        patience_ns = self._renewal.patience_ns(lag_ns)
        self._good = patience_ns is None
        self._leave_at = None if patience_ns is None else now.boot + patience_ns
