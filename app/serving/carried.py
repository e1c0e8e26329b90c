"""Carried: a connection whose stream is written by the broadcaster, and what its worker is answered with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from app.service.published import Published
    from app.service.streams import Stream


class Streaming(Protocol):
    """A reply that is a stream.

    Attributes:
        stream: where it stands.
    """

    stream: Stream

    def follow(self, body: bytes, published: Published, *, received_at_us: int) -> bytes | None:
        """Return the first frame of the stream that follows on the same connection, which this one is from now on.

        Args:
            body: the body of the worker's next request; its head is that of the one before.
            published: what a read of the log has brought that began after the request was received.
            received_at_us: when it was received: raw clock of this process, microseconds, rounded up.

        Returns:
            the frame, a line; None where the request has to be answered in the usual way.
        """


class Line:
    """A connection's way to its next stream.

    Attributes:
        reply: the stream that it has now.
        body_of: returns the body of a request that is the one before again, else None.
        head: returns the head of the reply to it.
    """

    __slots__ = ("body_of", "head", "reply")

    def __init__(
        self, reply: Streaming, body_of: Callable[[bytes], bytes | None] | None, head: Callable[[], bytes]
    ) -> None:
        """Set up.

        Args:
            reply: the stream, whose first frame was sent.
            body_of: as above; None where the next request has to be read by whoever owns the connection.
            head: as above.
        """
        self.reply = reply
        self.body_of = body_of
        self.head = head


class Carried:
    """A stream that is written by the broadcaster.

    Attributes:
        descriptor: of its socket.
        line: its connection's way to the next one.
        stream: the stream.
        waiter: wakes the connection's own greenlet.
        beat_at: when its next frame is due if nothing is flipped, monotonic clock, seconds.
        queued: whether it stands among the beats.
        here: whether it is written now.
        gone: whether its greenlet goes on without the broadcaster.
        last: whether its greenlet has it back for good.
        watcher: sees the worker's next request; made when the first is waited for.
        until: for how long that is waited for, monotonic clock, seconds.
        data: what has come of that request, or of whatever it is.
        body: the body of it.
        received_at_us: when it came, raw clock, microseconds.
    """

    __slots__ = (
        "beat_at",
        "body",
        "data",
        "descriptor",
        "gone",
        "here",
        "last",
        "line",
        "queued",
        "received_at_us",
        "stream",
        "until",
        "waiter",
        "watcher",
    )

    def __init__(self, descriptor: int, line: Line, waiter: Any) -> None:
        self.descriptor = descriptor
        self.line = line
        self.stream = line.reply.stream
        self.waiter = waiter
        self.beat_at = 0.0
        self.queued = False
        self.here = False
        self.gone = False
        self.last = False
        self.watcher: Any = None
        self.until = 0.0
        self.data = b""
        self.body = b""
        self.received_at_us = 0
