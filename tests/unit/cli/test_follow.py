"""``haltline log --follow``: every entry once and proven, through every disconnect; loud where the log is broken."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from haltline.canonical import canonical
from haltline.cli.exchange import Answer, Ask, Body
from haltline.errors import ServiceError
from haltline.flips import GENESIS_HASH, seal
from tests.unit.cli.commanding import Fake, Ran, Stream, lost, run
from tests.unit.core.logs import Log

PROBLEM = "application/problem+json"


def story() -> Log:
    """Return a log of six entries."""
    log = Log()
    log.note("token_created", subject="ada")
    log.kill("run:r-1", reason="mails the wrong customers")
    log.kill("tenant:acme", actor="bob")
    log.revive("run:r-1", 3)
    log.kill("global")
    return log


def told(members: dict[str, Any]) -> bytes:
    """Return an entry as an event."""
    name = members.get("kind", "stub")
    return f"id: {members['seq']}\nevent: {name}\ndata: {canonical(members).decode()}\n\n".encode()


def stubbed(members: dict[str, Any]) -> dict[str, Any]:
    """Return the stub of an entry."""
    return {"seq": members["seq"], "hash": members["hash"]}


def opened(after: str, *parts: bytes, breaks: bool = False, **headers: str) -> Stream:
    """Return a connection that goes on behind ``seq:hash``."""
    given = {"content_type": "text/event-stream", "haltline_after": after, **headers}
    start = f"retry: 1000\nid: {after.partition(':')[0]}\n\n".encode()
    return Stream(200, [(name.replace("_", "-"), value) for name, value in given.items()], [start, *parts], breaks)


def refusing(status: int, code: str) -> Stream:
    """Return a connection that is refused."""
    body = json.dumps({"status": status, "code": code, "title": "No", "detail": "Do something else."}).encode()
    return Stream(status, [("content-type", PROBLEM)], [body])


@dataclass
class Service(Fake):
    """A service with one log.

    Attributes:
        log: what it sends.
        connections: what each connection gets; when there are no more, Ctrl-C is pressed.
    """

    log: Log = field(default_factory=story)
    connections: list[Any] = field(default_factory=list)

    @contextmanager
    def stream(self, ask: Ask, _deadline_s: float, _idle_s: float, /) -> Iterator[Body]:
        self.asked.append(ask)
        if not self.connections:
            raise KeyboardInterrupt
        following = self.connections.pop(0)
        if isinstance(following, ServiceError):
            raise following
        yield following

    def behind(self, seq: int, upto: int | None = None, *, breaks: bool = False) -> Stream:
        """Return a connection that sends what is behind an entry."""
        entries = self.log.members[seq:upto]
        return opened(self.at(seq), *(told(each) for each in entries), breaks=breaks)

    def at(self, seq: int) -> str:
        """Return a position as the service writes it."""
        return f"{seq}:{self.log.members[seq - 1]['hash'] if seq else GENESIS_HASH}"

    @property
    def resumed(self) -> list[str | None]:
        """What each connection was asked to go on behind."""
        return [dict(ask.headers).get("Last-Event-ID") for ask in self.asked]


def service(*connections: Any) -> Service:
    """Return a service whose first connections are these."""
    return Service(lambda _: lost_answer(), connections=[*connections])


def lost_answer() -> Answer:
    """Refuse: nothing but the stream is to be asked."""
    raise AssertionError("nothing but the stream is asked")


def seqs(ran: Ran) -> list[int]:
    """Return the positions that were printed as JSON."""
    return [json.loads(line)["seq"] for line in ran.out.splitlines()]


def follow(fake: Service, *words: str) -> Ran:
    """Follow."""
    return run(fake, "log", "--follow", *words)


def test_entries_are_shown_as_log_shows_them() -> None:
    """Each entry is one line under the headings of log, and Ctrl-C ends with 0 and the line that goes on."""
    fake = service()
    fake.connections = [fake.behind(0)]
    ran = follow(fake, "--after", "0")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0].split() == ["seq", "at", "kind", "target", "by", "reason"]
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "3", "4", "5", "6"]
    assert lines[3].endswith("mails the wrong customers (in flight: finish)")
    assert lines[5].endswith("(released 3)")
    assert ran.err == "ended; to go on: haltline log --follow --after 6\n"
    assert fake.resumed == ["0", "6"]


def test_nothing_is_missed_or_doubled() -> None:
    """Connections that end, break in an event or are refused for a while do not show in the output."""
    fake = service()
    torn = fake.behind(3, 5, breaks=True)
    torn.parts[-1] = torn.parts[-1][:40]
    fake.connections = [
        fake.behind(0, 2),
        lost(sent=False),
        fake.behind(2, 3, breaks=True),
        refusing(503, "store_unavailable"),
        refusing(503, "too_many_exports"),
        Stream(502, [("content-type", "text/html")], [b"<html>"]),
        Stream(302, [("location", "http://maintenance.test")], []),
        refusing(404, "wrong_lane"),
        torn,
        fake.behind(4),
    ]
    ran = follow(fake, "--after", "0", "--json", "--count", "6")
    assert ran.code == 0
    assert seqs(ran) == [1, 2, 3, 4, 5, 6]
    assert [json.loads(line) for line in ran.out.splitlines()] == fake.log.members
    assert fake.resumed == ["0", "2", "2", *["3"] * 6, "4"]
    assert ran.err == ""


def test_pauses_grow_and_are_bounded() -> None:
    """Attempts in vain come after 0.1 to 2 s; what brings an entry makes the next one quick again."""
    fake = service()
    fake.connections = [fake.behind(0, 2), *[lost(sent=False)] * 12, fake.behind(2, 3), fake.behind(3)]
    assert follow(fake, "--after", "0", "--count", "6").code == 0
    assert all(0.1 <= each <= 2.0 for each in fake.slept)
    assert fake.slept[0] == pytest.approx(0.1)
    assert fake.slept[12] >= 1.0
    assert fake.slept[13] == pytest.approx(0.1)


def test_an_orderly_end_that_brings_nothing_is_not_hammered() -> None:
    """A service that ends each stream at once is asked more and more seldom."""
    fake = service()
    fake.connections = [opened(fake.at(6)) for _ in range(12)]
    follow(fake)
    assert fake.slept[-1] >= 1.0


def test_without_after_it_begins_at_the_head() -> None:
    """The first connection names no position and takes the one that the service names; later ones go on behind it."""
    fake = service()
    fake.connections = [opened(fake.at(6)), opened(fake.at(6))]
    ran = follow(fake)
    assert ran.code == 0
    assert fake.resumed == [None, "6", "6"]
    assert "--after 6" in ran.err


def test_since_begins_with_history() -> None:
    """--since begins with the first entry of that moment, which the service is asked for, or at the head."""
    pages = [Answer(200, {"entries": [{"seq": 3}], "seq": 6}), Answer(200, {"entries": [], "seq": 6})]
    fake = Service(lambda _: pages.pop(0))
    fake.connections = [fake.behind(2)]
    ran = follow(fake, "--since", "2026-11-20T20:25:11.000004Z", "--json")
    assert seqs(ran) == [4, 5, 6]
    assert fake.asked[0].path.startswith("/v1/log?since=2026-11-20T20%3A25%3A11.000004Z&order=asc&limit=1")
    fake.connections = [opened(fake.at(6))]
    fake.asked.clear()
    follow(fake, "--since", "1m")
    assert fake.resumed[1] == "6"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--scope", "run"), [3, 5]),
        (("--target", "tenant:acme"), [4]),
        (("--actor", "bob"), [4]),
        (("--kind", "kill"), [3, 4, 6]),
        (("--kind", "note"), [1, 2]),
        (("--kind", "kill", "--scope", "global"), [6]),
    ],
)
def test_filters(words: tuple[str, ...], expected: list[int]) -> None:
    """Filters choose what is shown; everything is proven; the line that goes on keeps them."""
    fake = service()
    fake.connections = [fake.behind(0)]
    ran = follow(fake, "--after", "0", "--json", *words)
    assert seqs(ran) == expected
    assert "--after 6 " in ran.err
    assert set(words) <= set(ran.err.split())
    assert ran.err.endswith("--json\n")


def test_count_counts_what_is_shown() -> None:
    """--count N ends with 0 when N entries were shown, and says nothing more."""
    fake = service()
    fake.connections = [fake.behind(0)]
    ran = follow(fake, "--after", "0", "--json", "--kind", "kill", "--count", "2")
    assert (ran.code, seqs(ran), ran.err) == (0, [3, 4], "")


def test_stubs_belong_to_the_chain() -> None:
    """What is not this token's to see is shown as such, never by a filter, and still proves what comes behind it."""
    fake = service()
    parts = [stubbed(each) if each["seq"] in (1, 2, 4) else each for each in fake.log.members]
    fake.connections = [opened(fake.at(0), *map(told, parts))]
    ran = follow(fake, "--after", "0", "--json")
    assert seqs(ran) == [1, 2, 3, 4, 5, 6]
    fake.connections = [opened(fake.at(0), *map(told, parts))]
    assert seqs(follow(fake, "--after", "0", "--json", "--kind", "kill")) == [3, 6]
    parts[3] = {**parts[3], "hash": "ab" * 32}
    fake.connections = [opened(fake.at(0), *map(told, parts))]
    ran = follow(fake, "--after", "0")
    assert ran.code == 1
    assert "entry 5 does not follow entry 4" in ran.err


def broken() -> dict[str, list[Any]]:
    """Return connections that do not tell of one log, by what is wrong."""
    log = story()
    other = Log(epoch="fedcba9876543210")
    head = f"0:{GENESIS_HASH}"
    entries = log.members
    altered = {**entries[2], "reason": "something else"}
    redone = seal({**entries[2], "reason": "something else"}, after=log.head)
    foreign = seal({**entries[2], "epoch": other.epoch}, after=Log().head)
    foreign = seal({**foreign}, after=type(log.head)(2, entries[1]["hash"]))
    newer = seal({**entries[2], "kind": "hug"}, after=type(log.head)(2, entries[1]["hash"]))
    third = told(entries[2])
    return {
        "a gap": [opened(head, *map(told, entries[:1] + entries[2:]))],
        "a double": [opened(head, told(entries[0]), told(entries[0]))],
        "a double after a disconnect": [opened(head, told(entries[0])), opened(f"0:{GENESIS_HASH}", told(entries[0]))],
        "altered": [opened(head, *map(told, [*entries[:2], altered]))],
        "redone": [opened(head, *map(told, [*entries[:2], redone]))],
        "another log": [opened(head, *map(told, [*entries[:2], foreign]))],
        "a kind from the future": [opened(head, *map(told, [*entries[:2], newer]))],
        "another entry behind a disconnect": [opened(head, told(entries[0])), opened(f"1:{'ab' * 32}")],
        "a shorter log": [opened(head, told(entries[0])), refusing(409, "regress")],
        "another id": [opened(head, *map(told, entries[:2]), third.replace(b"id: 3", b"id: 4"))],
        "another name": [opened(head, *map(told, entries[:2]), third.replace(b"event: kill", b"event: note"))],
        "no JSON": [opened(head, *map(told, entries[:2]), b"id: 3\nevent: kill\ndata: {\n\n")],
        "no object": [opened(head, *map(told, entries[:2]), b"id: 3\nevent: kill\ndata: 3\n\n")],
        "an event without a name": [opened(head, *map(told, entries[:2]), third.replace(b"event: kill\n", b""))],
        "a stub that is none": [opened(head, b'id: 1\nevent: stub\ndata: {"seq":1}\n\n')],
        "a stub of later": [opened(head, told(stubbed(entries[1])))],
    }


@pytest.mark.parametrize("what", broken())
def test_a_log_that_does_not_hold(what: str) -> None:
    """What does not follow ends with 1 and BROKEN, as verify does, and says how far it was proven."""
    ran = follow(service(*broken()[what]), "--after", "0", "--json")
    assert ran.code == 1, ran
    assert ran.err.startswith("BROKEN: ")
    ended = json.loads(ran.out.splitlines()[-1])
    assert (ended["ok"], ended["outcome"]) == (False, "failed")
    assert ended["at_seq"] == ended["proven"]["seq"] + 1


@pytest.mark.parametrize("connections", [1, 2])
@pytest.mark.parametrize("how", ["end", "refused"])
def test_a_diverged_service(connections: int, how: str) -> None:
    """A service that says that its log is not the one from before is not asked again: 1, loudly."""
    fake = service()
    first = fake.behind(0, 1)
    last = fake.behind(connections - 1, connections - 1)
    last.parts.append(b'event: end\ndata: {"reason": "diverged"}\n\n')
    fake.connections = [*[first] * (connections - 1), last if how == "end" else refusing(503, "diverged")]
    ran = follow(fake, "--after", "0")
    assert ran.code == 1
    assert "DIVERGED" in ran.err


@pytest.mark.parametrize("connections", [1, 2])
@pytest.mark.parametrize("how", ["end", "refused"])
def test_a_token_that_has_ended(connections: int, how: str) -> None:
    """A token that was revoked or has expired ends the command with 3."""
    fake = service()
    last = fake.behind(connections - 1, connections - 1)
    last.parts.append(b'event: end\ndata: {"reason": "token"}\n\n')
    fake.connections = [fake.behind(0, 1)] * (connections - 1)
    fake.connections.append(last if how == "end" else refusing(401, "unauthenticated"))
    ran = follow(fake, "--after", "0")
    assert ran.code == 3
    assert "refused: " in ran.err


@pytest.mark.parametrize(
    "first",
    [
        refusing(409, "regress"),
        refusing(403, "forbidden"),
        refusing(404, "wrong_lane"),
        refusing(503, "too_many_exports"),
        Stream(302, [("location", "http://login.test")], []),
        opened("x"),
        opened(f"1:{'ab' * 32}"),
        opened(f"0:{GENESIS_HASH}", content_type="text/html"),
        opened(f"0:{GENESIS_HASH}", content_encoding="gzip"),
        opened(f"0:{GENESIS_HASH}", b"id: 1\nid: 1\n\n"),
        opened(f"0:{GENESIS_HASH}", b"x" * 1_100_000),
    ],
)
def test_answers_that_are_no_stream(first: Stream) -> None:
    """What does not begin as asked, or is no event stream of the service, is refused with 3."""
    ran = follow(service(first), "--after", "0")
    assert ran.code == 3, ran
    assert ran.err.startswith("refused: ")


def test_never_reached() -> None:
    """A service that is not there at first is told at once, with 4."""
    ran = follow(service(lost(sent=False)))
    assert ran.code == 4
    assert "no answer" in ran.err


def test_what_comes_from_elsewhere_is_made_harmless() -> None:
    """A reason with control characters moves no cursor."""
    fake = service()
    fake.log.kill("run:r-9", reason="a\x1b[2Kb")
    fake.connections = [fake.behind(6)]
    ran = follow(fake, "--after", "6")
    assert "\x1b" not in ran.out
    assert "a\N{REPLACEMENT CHARACTER}[2Kb" in ran.out


@pytest.mark.parametrize(
    "words",
    [
        ("--after", "1"),
        ("--count", "1"),
        ("-f", "--limit", "3"),
        ("-f", "--until", "1h"),
        ("-f", "--after", "-1"),
        ("-f", "--count", "0"),
    ],
)
def test_options_that_make_no_sense(words: tuple[str, ...]) -> None:
    """Options that would be passed over are refused before anything is asked."""
    fake = service()
    assert run(fake, "log", *words).code == 2
    assert fake.asked == []
