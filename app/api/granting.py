"""Granting: what a request of a worker that is well formed and authenticated is answered with, however it came in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from app.api.auth import CHALLENGE
from app.api.connections import gone
from app.api.problems import Problem
from app.domain.access import Principal
from app.service.acks import Ack
from app.service.frames import Foreign, LeaseRequest, Regress
from app.service.node import Node
from app.service.published import Published
from app.service.refresher import Unready
from app.service.streams import Stream, Streams
from haltline.flips import Position

NEAR: Final = 200
"""How many entries a worker may be behind to be answered in place: some 100 KiB."""

AGAIN: Final[Mapping[str, str]] = {"Retry-After": "1"}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the body of a lease request says.

    Attributes:
        request: what the frame depends on.
        namespace: the namespace that the worker expects; None if it does not say.
        ack: how far the worker says it is; None if it has applied nothing.
        stream: whether it wants a stream of frames, not one.
    """

    request: LeaseRequest
    namespace: str | None
    ack: Ack | None
    stream: bool


def asked_of(members: dict[str, object]) -> Asked:
    """Return what the members of a body, checked against its schema, ask for."""
    request = LeaseRequest(members["nonce"], members["epoch"], members["seq"], members["hash"])  # type: ignore[arg-type]
    ack = Ack(members["worker"], members["instance"], request.seq) if request.seq > 0 else None  # type: ignore[arg-type]
    return Asked(request, members.get("namespace"), ack, members["stream"] is True)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Applied:
    """What the body of an ack says."""

    ack: Ack
    namespace: str | None
    epoch: str
    hash: str


def applied_of(members: dict[str, object]) -> Applied:
    """Return what the members of a body, checked against its schema, acknowledge."""
    ack = Ack(members["worker"], members["instance"], members["seq"])  # type: ignore[arg-type]
    return Applied(ack, members.get("namespace"), members["epoch"], members["hash"])  # type: ignore[arg-type]


Follow: TypeAlias = Callable[[Stream, bytes, Published, int], bytes | None]
"""Answers the request that follows a stream; see :meth:`StreamReply.follow`."""


class StreamReply:
    """The frames of one stream, each a line, as they come due; closing it ends the stream, once.

    Attributes:
        first: the frame that answers the request.
        stream: where the stream stands.
        send_within_s: how long each later frame may take to be accepted, seconds: half a ttl.
    """

    def __init__(
        self, streams: Streams, stream: Stream, first: bytes, *, send_within_s: float, follow: Follow | None = None
    ) -> None:
        self.first = first
        self.send_within_s = send_within_s
        self.stream: Stream = stream
        self._streams: Streams | None = streams
        self._follow = follow

    def __iter__(self) -> Iterator[bytes]:
        """Yield the frames."""
        yield self.first
        while self._streams is not None:
            line = self._streams.next(self.stream)
            if line is None:
                return
            yield line

    def follow(self, body: bytes, published: Published, *, received_at_us: int) -> bytes | None:
        """Return the first frame of the stream that follows on the same connection, which this one is from now on.

        Args:
            body: the body of the worker's next request; its head is that of the one before.
            published: what a read of the log has brought that began after the request was received.
            received_at_us: when it was received: raw clock of this process, microseconds, rounded up.

        Returns:
            the frame, a line; None where the request has to be answered in the usual way.
        """
        return self._follow(self.stream, body, published, received_at_us) if self._follow is not None else None

    def close(self) -> None:
        """End the stream."""
        streams, self._streams = self._streams, None
        if streams is not None:
            streams.end(self.stream)


@contextmanager
def turn(here: Node, environ: Mapping[str, Any]) -> Iterator[None]:
    """Wait for this request's turn, and have it.

    Args:
        here: the node that serves it.
        environ: its environment.

    Raises:
        Problem: it did not come in time: the node has as much to do as it takes.
    """
    waited = not here.turns.take_now()
    if waited and not here.turns.take(_patience_s(here)):
        raise Problem("busy", headers=AGAIN)
    try:
        if waited and gone(environ):
            # Its caller has not waited for so long: nothing is worth less than an answer to nobody.
            raise Problem("busy", headers=AGAIN)
        yield
    finally:
        here.turns.give()


def grant(here: Node, who: Principal, asked: Asked, *, received_at_us: int) -> bytes:
    """Return the frame that answers a lease request, after a read of the log that began later.

    Args:
        here: the node that serves the request.
        who: the holder of the token; it may lease.
        asked: what the worker sent.
        received_at_us: when the request was received: raw clock of this process, microseconds, rounded up.

    Raises:
        Problem: there is no lease for it, or none now.
        StoreUnavailable: the token, or an old position, had to be looked up and could not be.
    """
    frame = _granted(here, who, asked, received_at_us)[0]
    keys = here.stamp_keys.text(who.tenants)
    return frame if keys is None else b'%s,"stamp_keys":%s}' % (frame[:-1], keys)


def stream(
    here: Node, who: Principal, asked: Asked, *, received_at_us: int, follow: Follow | None = None
) -> StreamReply:
    """Return the stream of frames that answers a lease request; see :func:`grant`. Whoever gets it must close it.

    Args:
        follow: answers the request that follows on the same connection.
    """
    streams = here.streams
    if streams.full:
        raise Problem("busy", headers=AGAIN)
    begun = streams.begin(who)
    try:
        first, published = _granted(here, who, asked, received_at_us)
    except BaseException:
        streams.end(begun)
        raise
    streams.sent(begun, published)
    first = _first(here, first, begun)
    return StreamReply(streams, begun, first, send_within_s=published.ttl.ttl_ms / 2_000, follow=follow)


def again(here: Node, stream: Stream, asked: Asked, published: Published, *, received_at_us: int) -> bytes | None:
    """Have a stream that has lasted long enough followed by another one, and return that one's first frame, a line.

    Nothing is looked up and nobody waits: the token was verified when its stream began, and the log, read after this
    request was received, says that it was not revoked since. Whoever is far behind, or knows nothing, is answered in
    the usual way: its frame is large.

    Args:
        here: the node that serves the request.
        stream: the stream that has ended.
        asked: what its worker sent then, on the same connection and with the same token.
        published: what a read of the log has brought that began after the request was received.
        received_at_us: when it was received: raw clock of this process, microseconds, rounded up.

    Returns:
        the frame; None if anything stands against it: :func:`stream` says what.
    """
    if not asked.stream or asked.namespace not in (None, here.namespace) or not here.tokens.stands(stream.who):
        return None
    if published.read_at_us <= received_at_us or here.streams.over(published):
        return None
    behind = published.replica.position.seq - asked.request.seq
    if asked.request.seq == 0 or behind > NEAR or published.tail.position(asked.request.seq) is None:
        return None
    frame = here.frames.frame(published, asked.request, view=stream.view, received_at_us=received_at_us)
    if not isinstance(frame, bytes):
        return None
    if asked.ack is not None:
        here.acks.heard(asked.ack)
    here.streams.again(stream)
    here.streams.sent(stream, published)
    return _first(here, frame, stream)


def _first(here: Node, frame: bytes, stream: Stream) -> bytes:
    """Return a frame as the first of a stream."""
    keys = here.stamp_keys.text(stream.view)
    if keys is None:
        return b'%s,"ack_within_ms":%d}\n' % (frame[:-1], here.streams.ack_within_ms)
    return b'%s,"ack_within_ms":%d,"stamp_keys":%s}\n' % (frame[:-1], here.streams.ack_within_ms, keys)


def acknowledge(here: Node, applied: Applied) -> None:
    """Note an ack.

    Raises:
        Problem: it is of another log, or of a history that this log does not have.
        StoreUnavailable: an old position had to be looked up and could not be.
    """
    _same_namespace(here, applied.namespace)
    published = here.refresher.published
    if published is None:
        raise Problem("stale")
    # Another node may have told the worker a moment before this one has read it: refused, too, and nobody waits for it.
    # What a caller names must not keep the turns of those who ask for a lease; the next lease request says it again.
    position = Position(applied.ack.seq, applied.hash)
    refused = here.frames.refusal(published, applied.epoch, position, here.refresher.position)
    if refused is not None:
        raise _refused(refused)
    here.acks.heard(applied.ack)


def _patience_s(here: Node) -> float:
    published = here.refresher.published
    return published.ttl.ttl_ms / 2_000 if published is not None else 0.5


def _granted(here: Node, who: Principal, asked: Asked, received_at_us: int) -> tuple[bytes, Published]:
    _same_namespace(here, asked.namespace)
    published = here.refresher.read_after(received_at_us)
    if isinstance(published, Unready):
        if published is Unready.STALE:
            raise Problem("stale")
        raise Problem("diverged")
    # The read may have brought this very token's revocation: then it grants nothing any more.
    if not here.tokens.holds(who):
        raise Problem("unauthenticated", headers={"WWW-Authenticate": f'{CHALLENGE}, error="invalid_token"'})
    frame = here.frames.frame(
        published, asked.request, view=who.tenants, received_at_us=received_at_us, past=here.refresher.position
    )
    if not isinstance(frame, bytes):
        raise _refused(frame)
    here.stamp_keys.ensure()
    if asked.ack is not None:
        here.acks.heard(asked.ack)
    return frame, published


def _same_namespace(here: Node, named: str | None) -> None:
    if named is not None and named != here.namespace:
        raise Problem("foreign", f"This service keeps the log of namespace {here.namespace}.")


def _refused(refused: Foreign | Regress) -> Problem:
    if isinstance(refused, Foreign):
        return Problem("foreign", f"{refused.detail}: another database, or one restored from a backup.")
    return Problem("regress", f"{refused.detail}: a restored backup, a lost failover or another database.")
