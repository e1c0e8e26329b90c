"""``haltline log --follow``: what happens, as it happens, proven entry by entry, through every disconnect.

A connection is nothing: each one goes on behind the last entry that the one before has proven. Only what can never go
on ends the command: a chain that does not hold, a token that has ended, an answer that is not the service's.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlencode

from haltline.canonical import MAX_INTEGER
from haltline.cli.exchange import WRONG_LANE, Answer, Ask, Body, answer_of, code_of, elsewhere, told
from haltline.cli.exits import Ended, Exit
from haltline.cli.export import position
from haltline.cli.inert import inert
from haltline.cli.log import COLUMNS, Filters, entries_of, row_of
from haltline.cli.proof import Proof
from haltline.cli.session import CONTROL, REACH, Session, refused
from haltline.cli.sse import Event, InvalidStream, Parser
from haltline.errors import ChainBroken, ServiceError
from haltline.scopes import parse_target

PATH: Final = "/v1/events"

PATIENCE_S: Final = 12.0
"""For how long at least nothing may come before the connection is given up: the service says something every 5 s."""

PAUSE_MIN_S: Final = 0.1
PAUSE_MAX_S: Final = 2.0
"""Between these is the time before each new attempt, seconds."""

LIVED_S: Final = 5.0
"""How long a connection that brought nothing must have lived for the next attempt to be as quick as the first."""

_PROBLEM_BYTES: Final = 64 * 1024
_WIDTHS: Final = (6, 27, 6, 24, 12, 0)


class _Lost(Exception):
    """The connection, or the service behind it, is not there now: try again."""


class Follower:
    """One follow.

    Args:
        session: the command.
        filters: which entries to show; all of them are proven.
        count: after how many shown entries to end; None for never.
    """

    def __init__(self, session: Session, filters: Filters, *, count: int | None) -> None:
        self._session = session
        self._filters = filters
        self._left = count
        self._widths: list[int] = []
        self._connected = 0
        self._told_outage = False
        self._watched = sys.stderr.isatty()
        self.proof = Proof()

    def run(self, after: int | None) -> None:
        """Follow until enough was shown.

        Args:
            after: the seq to begin behind; None for the head of the log.

        Raises:
            Ended: it cannot go on.
        """
        failures = 0
        while True:
            began, before = self._session.now(), self.proof.expected
            reason = "the service ended the stream"
            try:
                for event in self._connection(after):
                    if self._take(event):
                        return
            except _Lost as lost:
                reason = str(lost)
                if self._connected:
                    self._tell_outage(reason)
                else:
                    raise Ended(Exit.NOT_DONE, f"no answer: {reason}", REACH) from lost
            lived = self.proof.expected != before or self._session.now() - began >= LIVED_S
            failures = 0 if lived else failures + 1
            pause = min(PAUSE_MAX_S, PAUSE_MIN_S * 2 ** min(failures, 10))
            self._session.sleep(max(PAUSE_MIN_S, pause * random.uniform(0.5, 1.0)))  # noqa: S311 - no secret

    def _connection(self, after: int | None) -> Iterator[Event]:
        """Yield the events of one connection.

        Raises:
            _Lost: it broke, or there is none now.
            Ended: there is no use in another one.
        """
        known = self.proof.position
        seq = known.seq if known is not None else after
        headers = (("Last-Event-ID", str(seq)),) if seq is not None else ()
        parser = Parser()
        try:
            patience_s = max(self._session.timeout_s, PATIENCE_S)
            with self._session.wire.stream(Ask("GET", PATH, headers=headers), patience_s) as response:
                self._begin(response, after)
                for chunk in response.chunks():
                    yield from parser.take(chunk)
        except ServiceError as error:
            raise _Lost(str(error)) from error
        except InvalidStream as error:
            raise Ended(Exit.REFUSED, f"refused: what came is no event stream of the service: {error}") from None

    def _begin(self, response: Body, after: int | None) -> None:
        """Prove that a connection goes on where the one before ended."""
        if response.status != 200:
            raise self._refusal(answer_of(response, response.read(_PROBLEM_BYTES)))
        begins = position(response.header("haltline-after"))
        media = response.header("content-type").partition(";")[0].strip().lower()
        if begins is None or media != "text/event-stream" or response.header("content-encoding"):
            raise Ended(Exit.REFUSED, "refused: the answer is no event stream of the service: check the address")
        if self.proof.position is None and after is not None and begins.seq != after:
            raise Ended(Exit.REFUSED, f"refused: the stream begins behind entry {begins.seq}, not behind entry {after}")
        self.proof.begin(begins)
        self._connected += 1
        if self._told_outage:
            self._told_outage = False
            self._session.screen.tell(f"connected again: it goes on behind entry {begins.seq}, and nothing was missed")
        elif self._watched and self._connected == 1:
            self._session.screen.tell(f"following the log behind entry {begins.seq}; Ctrl-C ends")

    def _refusal(self, answer: Answer) -> Exception:
        code = code_of(answer)
        if code == "diverged":
            return self._diverged()
        if self._connected and code == "regress":
            return ChainBroken(told(answer), seq=self.proof.expected)
        if self._connected and elsewhere(answer):
            return _Lost(told(answer))  # who answered before may answer again
        more = (CONTROL,) if code == WRONG_LANE else ()
        return refused(told(answer), answer.status, answer.members, *more)

    def _take(self, event: Event) -> bool:
        """Take an event; return whether enough was shown."""
        if event.name == "end":
            raise self._end(event)
        if event.data is None or event.id is None:
            return False  # where a stream begins; or what a newer service says beside the log
        members = self.proof.take(event)
        if matches(members, self._filters):
            self._show(members)
            if self._left is not None:
                self._left -= 1
        return self._left == 0

    def _end(self, event: Event) -> Ended:
        if '"token"' in (event.data or ""):
            said = "refused: the token was revoked or has expired"
            return Ended(Exit.REFUSED, said, f"Proven up to entry {self.proof.expected - 1}.")
        return self._diverged()

    @staticmethod
    def _diverged() -> Ended:
        return Ended(
            Exit.FAILED,
            "DIVERGED: the service says that its database does not hold the log any more that it has read before",
            "Find out whether the database was restored, replaced or edited before anything runs again.",
        )

    def _show(self, members: Mapping[str, Any]) -> None:
        screen = self._session.screen
        if screen.as_json:
            screen.json(members)
            return
        if not self._widths:
            self._widths = [*_WIDTHS]
            screen.say(self._line(COLUMNS))
        screen.say(self._line([inert(cell) for cell in row_of(members)]))

    def _line(self, cells: Any) -> str:
        """Return cells as one line under the same columns as far as that goes: nobody knows what comes next."""
        self._widths = [max(width, min(len(cell), 60)) for width, cell in zip(self._widths, cells, strict=True)]
        return "  ".join(cell.ljust(width) for cell, width in zip(cells, self._widths, strict=True)).rstrip()

    def _tell_outage(self, reason: str) -> None:
        if self._watched and not self._told_outage:
            self._told_outage = True
            self._session.screen.tell(f"connection lost behind entry {self.proof.expected - 1}: {reason}")
            self._session.screen.tell("trying again until it is back; Ctrl-C ends")


def follow(session: Session, filters: Filters, *, after: int | None, count: int | None) -> Exit:
    """Show entries as they are written, until interrupted.

    Args:
        session: the command.
        filters: which entries to show.
        after: the seq to begin behind; None for the head of the log, or for the first entry that ``since`` names.
        count: after how many shown entries to end; None for never.

    Raises:
        Ended: it could not begin, cannot go on, or the log is broken.
    """
    follower = Follower(session, filters, count=count)
    try:
        if after is None and filters.since is not None:
            after = _before(session, filters.since)
        follower.run(after)
    except ChainBroken as error:
        proven = follower.proof.position
        members = {"at_seq": error.seq, "proven": {"seq": proven.seq, "hash": proven.hash} if proven else None}
        good = f"Proven up to entry {proven.seq}." if proven is not None else "No entry of it is proven."
        raise Ended(Exit.FAILED, f"BROKEN: {error}", good, members=members) from None
    except KeyboardInterrupt:
        reached = follower.proof.position
        words = words_of(filters, after=reached.seq if reached is not None else after)
        if session.screen.as_json:
            words.append("--json")
        session.screen.tell(f"ended; to go on: {session.again('log', *words)}")
    return Exit.DONE


def matches(members: Mapping[str, Any], filters: Filters) -> bool:
    """Return whether an entry is to be shown; a stub matches nothing but the absence of filters."""
    if filters == Filters():
        return True
    if "kind" not in members:
        return False
    target = members.get("target")
    return (
        (filters.since is None or members["at"] >= filters.since)
        and (filters.scope is None or (target is not None and parse_target(target).scope.value == filters.scope))
        and (filters.target is None or target == filters.target)
        and (filters.actor is None or members["actor"] == filters.actor)
        and (filters.kind is None or members["kind"] == filters.kind)
    )


def words_of(filters: Filters, *, after: int | None) -> list[str]:
    """Return what goes on behind an entry, as it is typed."""
    words = ["--follow"]
    if after is not None:
        words += ["--after", str(after)]
    for name in ("since", "scope", "target", "actor", "kind"):
        value = getattr(filters, name)
        if value is not None:
            words += [f"--{name}", value]
    return words


def _before(session: Session, since: str) -> int:
    """Return the seq before the first entry of a moment or later; the head of the log if there is none yet."""
    query = urlencode({"since": since, "order": "asc", "limit": "1"})
    members = session.get(f"/v1/log?{query}").members or {}
    listed = entries_of(members)
    seq = listed[0].get("seq", 0) - 1 if listed else members.get("seq")
    if type(seq) is not int or not 0 <= seq <= MAX_INTEGER:
        raise Ended(Exit.REFUSED, "refused: the answer is not a page of the log: check the address")
    return seq
