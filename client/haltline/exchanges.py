"""Lease exchanges over one transport, one after the other: single frames, or streams read to their end."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from haltline.asks import Ask
from haltline.clocks import Clocks
from haltline.errors import ServiceError
from haltline.following import Following
from haltline.frames import FRAME_MAX_BYTES, STREAM_TYPE, Reply
from haltline.native import Condition
from haltline.ports import LeaseTransport
from haltline.renewal import Renewal, Then

LEASE_PATH: Final = "/v1/lease"

_PROBLEM_MAX_BYTES: Final = 64 * 1024


class Exchanges:
    """What one process asks of the service.

    Args:
        renewal: judges what comes back.
        transport: makes the transport, at the first exchange.
        clocks: the machine's clocks.
        stream: whether to ask for streams of frames.
        lock: held by whoever calls :meth:`leave`.
        publish: shows the lease as it stands, after each frame and each failure.
    """

    def __init__(
        self,
        renewal: Renewal,
        transport: Callable[[], LeaseTransport],
        clocks: Clocks,
        *,
        stream: bool,
        lock: Condition,
        publish: Callable[[], None],
    ) -> None:
        self._renewal = renewal
        self._make_transport = transport
        self._clocks = clocks
        self._stream = stream
        self._lock = lock
        self._publish = publish
        self._transport: LeaseTransport | None = None
        self._reading: Following | None = None
        self._left = False

    def once(self, goes_on: Callable[[], bool]) -> None:
        """Do one exchange, a stream to its end.

        Args:
            goes_on: returns whether to read another frame.
        """
        renewal = self._renewal
        if self._transport is None:
            self._transport = self._make_transport()
        transport = self._transport
        if self._reading is not None:  # a thread died in the middle of a stream
            self._reading = None
            transport.close()
        ask = renewal.begin(self._clocks.read(), nonce=os.urandom(16).hex(), stream=self._stream)
        whole = True
        try:
            if ask.stream:
                whole = self._follow(transport, ask, goes_on)
            else:
                reply = transport.post(LEASE_PATH, ask.body, deadline_s=renewal.deadline_s, limit=FRAME_MAX_BYTES)
                renewal.answered(ask, reply, self._clocks.read())
        except ServiceError as error:
            renewal.unanswered(str(error), self._clocks.read())
        with self._lock:
            self._reading, self._left = None, False
        self._publish()
        if renewal.then is Then.LEAVE:
            renewal.spare(transport.rotate(renewal.later_s), self._clocks.read())
        elif not whole:
            transport.close()  # the stream has not ended: what it still sends is for nobody

    def leave(self) -> None:
        """Have a stream that is being read given up, so that the next exchange begins at once; from any thread.

        An exchange that has brought no frame yet goes on: whoever cannot wait shares it. So does a poor stream until it
        is to be left anyway.
        """
        if self._reading is not None and self._reading.may_leave(self._clocks.read()):
            self._left = True
            self.interrupt()

    def interrupt(self) -> None:
        """Wake whoever waits in the transport; from any thread."""
        if self._transport is not None:
            self._transport.interrupt()

    def close(self) -> None:
        """Give the connection back; from the thread that reads, or once there is none."""
        if self._transport is not None:
            self._transport.close()

    def _follow(self, transport: LeaseTransport, ask: Ask, goes_on: Callable[[], bool]) -> bool:
        """Read one stream to its end, or as long as it is worth reading, and return whether it has ended.

        Raises:
            ServiceError: there was no whole reply.
        """
        renewal, clocks = self._renewal, self._clocks
        following = Following(renewal, ask)
        stream = transport.stream(LEASE_PATH, ask.body, deadline_s=renewal.deadline_s)
        if (stream.status, stream.content_type, stream.encoded) != (200, STREAM_TYPE, False):
            body = b"" if stream.status == 200 else stream.read(_PROBLEM_MAX_BYTES)
            reply = Reply(stream.status, stream.content_type, stream.encoded, body, stream.header("retry-after"))
            renewal.answered(ask, reply, clocks.read())
            return True
        then = Then.READ
        while then is Then.READ and goes_on():
            try:
                line = stream.line(deadline_s=following.left_s(clocks.read()), limit=FRAME_MAX_BYTES)
            except ServiceError as error:
                self._broke(following, str(error))
                return True
            if line is None:
                following.ended(clocks.read())
                return True
            then = following.heard(line, clocks.read())
            if then is Then.READ:
                self._publish()
                # Only now: until its first frame is shown, whoever cannot wait would take it for one that is no use.
                self._reading = following
        return False

    def _broke(self, following: Following, detail: str) -> None:
        with self._lock:
            left, self._reading, self._left = self._left, None, False
        now = self._clocks.read()
        if left:
            following.left(now)
        else:
            following.failed(detail, now)
