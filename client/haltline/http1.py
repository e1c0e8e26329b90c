"""HTTP/1.1 on one connection by h11: a bound on every size, no redirects, no proxies, no content decoding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Protocol

from haltline.errors import ServiceError
from haltline.link import Channel, Deadline

if TYPE_CHECKING:
    import h11

_HEADER_MAX_BYTES: Final = 16 * 1024

Headers = list[tuple[str, str]]


class ClosedBeforeReply(Exception):
    """The connection ended before any byte of a reply."""


class BadReply(Exception):
    """What came is not HTTP."""


class Http:
    """The requests and replies of one connection, one after the other.

    Args:
        channel: what the bytes go through.
    """

    def __init__(self, channel: Channel) -> None:
        import h11  # 6 ms that importing the client need not cost

        self._channel = channel
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEADER_MAX_BYTES)

    @property
    def ready(self) -> bool:
        """Whether another request may be sent: the last reply was read to its end, and the service keeps on."""
        import h11

        return self._http.our_state is h11.IDLE

    def ask(self, request: h11.Request, body: bytes | None, deadline: Deadline) -> tuple[int, Headers]:
        """Send a request and return the status and the headers of its reply.

        Raises:
            ClosedBeforeReply: the connection ended instead; it may have been closed long before.
            BadReply: what came is not HTTP.
            OSError: nothing came, or not in time.
        """
        import h11

        http = self._http
        data = http.send(request) or b""
        if body is not None:
            data += http.send(h11.Data(data=body)) or b""
        data += http.send(h11.EndOfMessage()) or b""
        try:
            self._channel.send(data, deadline)
        except ConnectionError as error:
            raise ClosedBeforeReply(told(error)) from error
        head = self._next(deadline, begun=False)
        while isinstance(head, h11.InformationalResponse):
            head = self._next(deadline, begun=True)
        if not isinstance(head, h11.Response):
            raise BadReply("not an HTTP reply")
        return head.status_code, [(name.decode("ascii"), value.decode("latin-1")) for name, value in head.headers]

    def more(self, deadline: Deadline) -> bytes | bytearray | None:
        """Return the next piece of the body; None at its end, after which the connection may be ready again.

        Raises:
            BadReply: what came is not HTTP.
            OSError: nothing came, or not in time.
        """
        import h11

        while True:
            event = self._next(deadline, begun=True)
            if isinstance(event, h11.Data):
                piece: bytes | bytearray = event.data
                return piece
            if isinstance(event, h11.EndOfMessage):
                http = self._http
                if http.our_state is h11.DONE and http.their_state is h11.DONE:
                    http.start_next_cycle()
                return None

    def _next(self, deadline: Deadline, *, begun: bool) -> object:
        import h11

        http = self._http
        while True:
            headless = http.their_state is h11.SEND_RESPONSE
            try:
                event = http.next_event()
            except h11.RemoteProtocolError as error:
                raise BadReply(f"not an HTTP reply: {error}" if headless else str(error)) from error
            if event is not h11.NEED_DATA:
                return event
            try:
                data = self._channel.recv(deadline)
            except ConnectionError as error:
                if begun or http.trailing_data[0]:
                    raise
                raise ClosedBeforeReply(told(error)) from error
            if not data and not begun and not http.trailing_data[0]:
                raise ClosedBeforeReply("before a reply")
            http.receive_data(data)


class Source(Protocol):
    """Where a reply's body comes from."""

    def more(self, deadline: Deadline) -> bytes | bytearray | None:
        """Return the next piece of the body, None at its end, or raise ServiceError."""

    def deadline(self, seconds: float | None = None) -> Deadline:
        """Return the deadline that is so many seconds away; None for that of the exchange."""

    def give_up(self) -> None:
        """Close the connection: the rest of the body is not wanted."""


class Response:
    """The head of a reply, and its body still to be read: as it comes, whole, or line by line.

    Args:
        head: the status code and the headers.
        source: where the body comes from.

    Attributes:
        status: the status code.
        headers: lower-case names and values, in the order they came.
        content_type: the header's value as it came; empty if there was none.
        encoded: whether the reply names a content encoding.
    """

    def __init__(self, head: tuple[int, Headers], source: Source) -> None:
        self.status, self.headers = head
        self.content_type = self.header("content-type")
        self.encoded = bool(self.header("content-encoding"))
        self._source = source
        self._piece: bytes | bytearray = b""
        self._at = 0

    def header(self, name: str) -> str:
        """Return a header's value, or an empty text; ``name`` in lower case."""
        return next((value for key, value in self.headers if key == name), "")

    def chunks(self) -> Iterator[bytes]:
        """Yield the body as it comes.

        Raises:
            ServiceError: it broke off, or the deadline passed.
        """
        source = self._source
        while (piece := source.more(source.deadline())) is not None:
            yield bytes(piece)

    def read(self, limit: int) -> bytes:
        """Return the whole body.

        Raises:
            ServiceError: it broke off, the deadline passed, or it is larger than ``limit`` bytes.
        """
        body = bytearray()
        source = self._source
        while (piece := source.more(source.deadline())) is not None:
            body += piece
            if len(body) > limit:
                source.give_up()
                raise ServiceError(f"the reply is larger than {limit} bytes", sent=True)
        return bytes(body)

    def line(self, *, deadline_s: float, limit: int) -> bytes | None:
        """Return the next whole line without its end, or None at the orderly end of the body.

        Each byte is looked at once and copied once, however many pieces a line comes in.

        Args:
            deadline_s: how long the whole line may take, seconds.
            limit: the longest line, bytes.

        Raises:
            ServiceError: the body broke off, or ended inside a line; the deadline passed; the line is too long.
        """
        deadline = self._source.deadline(deadline_s)
        kept: list[bytes | bytearray] = []
        size = 0
        while True:
            end = self._piece.find(b"\n", self._at)
            stop = len(self._piece) if end < 0 else end
            size += stop - self._at
            if size > limit:
                self._source.give_up()
                raise ServiceError(f"a line of the reply is longer than {limit} bytes", sent=True)
            if stop > self._at:
                whole = stop - self._at == len(self._piece)
                kept.append(self._piece if whole else self._piece[self._at : stop])
            if end >= 0:
                self._at = end + 1
                return b"".join(kept)
            self._piece, self._at = b"", 0
            piece = self._source.more(deadline)
            if piece is None:
                if kept:
                    raise ServiceError("the reply ended inside a line", sent=True)
                return None
            self._piece = piece


def told(error: Exception) -> str:
    """Return an error's text, or its name where it has none."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"{error!s:.200}" or type(error).__name__
