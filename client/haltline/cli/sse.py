"""Server-sent events, read strictly: bounded lines, whole events, ids that are positions of the log.

What the service writes is a part of what the format allows, and no more than that part is taken: whatever else comes is
not the service, or was changed on its way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from haltline.canonical import MAX_INTEGER
from haltline.cli.audit import MAX_LINE_BYTES

_ID: Final = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)
_FIELDS: Final = frozenset({"id", "event", "data"})


class InvalidStream(Exception):
    """What came is not an event stream as the service writes one."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        name: what it is called; empty where it has no name.
        id: the seq that it brings its reader to; None where it has no id.
        data: its one line of data; None where it has none.
    """

    name: str
    id: int | None
    data: str | None


class Parser:
    """Takes a stream as it comes, cut anywhere, and gives events; an event that never ended is never given."""

    def __init__(self, *, limit: int = MAX_LINE_BYTES) -> None:
        """Set up.

        Args:
            limit: how long a line may be, bytes.
        """
        self._limit = limit
        self._rest = bytearray()
        self._fields: dict[str, str] = {}

    def take(self, chunk: bytes) -> Iterator[Event]:
        """Yield the events that are whole with ``chunk``.

        Raises:
            InvalidStream: it is not a stream of the service.
        """
        searched = len(self._rest)
        self._rest += chunk
        begin = 0
        while (end := self._rest.find(b"\n", max(begin, searched))) >= 0:
            if end - begin > self._limit:
                break
            line = bytes(self._rest[begin:end])
            begin = end + 1
            if line:
                self._line(line)
            elif self._fields:
                yield self._event()
        del self._rest[:begin]
        if len(self._rest) > self._limit:
            raise InvalidStream(f"a line is longer than {self._limit} bytes")

    def _line(self, line: bytes) -> None:
        if b"\r" in line or b"\x00" in line:
            raise InvalidStream("a line holds a carriage return or NUL")
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidStream("a line is not UTF-8") from None
        name, _, value = text.partition(":")
        if name not in _FIELDS:
            return  # a comment, how long a browser should wait, or what a newer service adds
        if name in self._fields:
            raise InvalidStream(f"an event has two lines of {name}")
        self._fields[name] = value.removeprefix(" ")

    def _event(self) -> Event:
        fields, self._fields = self._fields, {}
        text = fields.get("id")
        if text is not None and (_ID.fullmatch(text) is None or int(text) > MAX_INTEGER):
            raise InvalidStream(f"the id {text!r:.40} is not a position of the log")
        return Event(fields.get("event", ""), int(text) if text is not None else None, fields.get("data"))
