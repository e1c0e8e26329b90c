"""A reader of GET /v1/events in the same process: events as they come, from any position, left at any moment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from haltline.cli.sse import Event, Parser
from tests.api.desk import Desk


class Reader:
    """One connection; a context manager that closes it.

    Args:
        desk: the service.
        after: the last entry that the reader has; None to begin with what comes next.
        who: the kind of token.

    Attributes:
        reply: the reply.
        pings: how many comments came so far.
    """

    def __init__(self, desk: Desk, after: int | None = None, *, who: str = "admin") -> None:
        headers = {} if after is None else {"Last-Event-ID": str(after)}
        self.reply = desk.call("GET", "/v1/events", who=who, headers=headers)
        assert self.reply.status_code == 200, self.reply.get_data()
        self.pings = 0
        self._events = self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.reply.close()

    def __iter__(self) -> Iterator[Event]:
        """Yield the events that come, where the stream begins and its end among them, as long as it lasts."""
        return self._events

    def _read(self) -> Iterator[Event]:
        parser = Parser()
        for chunk in self.reply.response:
            assert isinstance(chunk, bytes)
            self.pings += chunk.count(b": ping\n\n")
            yield from parser.take(chunk)

    def entries(self, number: int) -> list[dict[str, Any]]:
        """Return the next so many entries, stubs among them, each checked to be what its event says."""
        found: list[dict[str, Any]] = []
        for event in self._events:
            if event.data is None:
                continue
            entry = json.loads(event.data)
            assert (event.id, event.name) == (entry["seq"], entry.get("kind", "stub"))
            found.append(entry)
            if len(found) == number:
                return found
        raise AssertionError(f"the stream ended after {len(found)} of {number} entries")

    def end(self) -> str | None:
        """Return the reason that the stream gives at its end, read up to there; None if it gives none."""
        last = None
        for event in self._events:
            last = event
        return str(json.loads(last.data or "{}")["reason"]) if last is not None and last.name == "end" else None
