"""``haltline status``, ``flags`` and ``log``: what is shown, and that answers of another shape are refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from haltline.cli.exchange import Answer, Ask
from haltline.cli.log import moment_of
from haltline.scopes import Scope
from tests.unit.cli.commanding import EPOCH, Fake, flag, hold, problem, run

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def page(*targets: str, following: str | None = None) -> Answer:
    """Return a page of GET /v1/flags."""
    flags = [{"target": each, "holds": [hold(number, each)]} for number, each in enumerate(targets, 3)]
    counts = {scope.value: sum(each.startswith(scope.value) for each in targets) for scope in Scope}
    members = {"flags": flags, "counts": counts, "next_cursor": following, "seq": 9, "hash": "cd" * 32, "epoch": EPOCH}
    return Answer(200, members)


def standing(ask: Ask) -> Answer:
    """Answer what status asks."""
    if ask.path == "/readyz":
        return Answer(200, {"status": "ready", "age_ms": 4, "ttl_ms": 800})
    return page("capability:mail", "global", "run:r-42")


def test_status() -> None:
    """Status says how fresh, where the log stands, the ttl, and what is killed on each rung, the broadest first."""
    ran = run(Fake(standing), "status")
    assert ran.code == 0
    assert "it read its log 4 ms ago" in ran.out
    assert f"position 9, hash {'cd' * 32}" in ran.out
    assert "800 ms" in ran.out
    lines = [line.split() for line in ran.out.splitlines()]
    assert ["global", "1", "killed"] in lines
    assert ["tenant", "-"] in lines
    table = ran.out[ran.out.index("target ") :]
    assert table.index("global") < table.index("run:r-42") < table.index("capability:mail")


def test_status_json() -> None:
    """The same as one JSON object."""
    members = run(Fake(standing), "status", "--json").json
    assert members["fresh"] is True
    assert members["head"] == {"seq": 9, "hash": "cd" * 32}
    assert members["ttl_ms"] == 800
    assert members["counts"]["run"] == 1


def test_status_of_a_stale_service() -> None:
    """A service that cannot read its log is shown as such; that is an answer, not a failure."""
    ran = run(Fake(lambda _: problem(503, "stale")), "status")
    assert ran.code == 0
    assert "fresh      NO: 503 stale" in ran.out
    assert "cannot be read" in ran.out
    assert run(Fake(lambda _: problem(503, "stale")), "status", "--json").json["fresh"] is False


def test_flags_pages() -> None:
    """Every page is read, and the broadest targets stand first."""
    fake = Fake(
        lambda ask: (
            page("global")
            if "cursor=capability%3Amail" in ask.path
            else page("capability:mail", following="capability:mail")
        )
    )
    ran = run(fake, "flags")
    assert ran.code == 0
    assert [line.split()[0] for line in ran.out.splitlines()] == ["target", "global", "capability:mail"]
    assert len(run(fake, "flags", "--json").json["flags"]) == 2


def test_flags_in_a_circle() -> None:
    """A cursor that does not move on is refused instead of followed for ever."""
    assert run(Fake(lambda _: page("run:a", following="run:a")), "flags").code == 3


def test_flags_of_nothing() -> None:
    """Nothing killed is said."""
    assert run(Fake(lambda _: page()), "flags").out.endswith("nothing is killed\n")


def test_one_flag() -> None:
    """One target is shown with every hold on it."""
    ran = run(Fake(lambda _: flag("run:r-42", hold(3, "run:r-42"))), "flags", "run", "r-42")
    assert ran.out.startswith("run:r-42 is killed\n")
    assert "stop it" in ran.out
    members = run(Fake(lambda _: flag("run:r-42")), "flags", "run:r-42", "--json").json
    assert members["killed"] is False


@pytest.mark.parametrize("words", [("flags",), ("flags", "run", "x"), ("log",), ("status",)])
@pytest.mark.parametrize(
    "answer",
    [Answer(200, None), Answer(200, {}), Answer(301, {}, {"location": "/"}), Answer(200, {"flags": {}, "entries": 3})],
)
def test_other_shapes_are_refused(words: tuple[str, ...], answer: Answer) -> None:
    """An answer of another shape ends with 3."""
    assert run(Fake(lambda _: answer), *words).code == 3


def entry(seq: int, **members: Any) -> dict[str, Any]:
    """Return an entry of the log."""
    plain = {"seq": seq, "kind": "kill", "at": "2026-11-20T11:00:00.000000Z", "actor": "ada", "target": "run:r-42"}
    return {**plain, "reason": "why", "hash": "ab" * 32, **members}


def listed(ask: Ask) -> Answer:
    """Answer GET /v1/log from a log of 2,500 entries, newest first."""
    query = {name: values[0] for name, values in parse_qs(urlsplit(ask.path).query).items()}
    assert query["order"] == "desc"
    first = int(query.get("cursor", "2501")) - 1
    seqs = range(first, max(0, first - int(query["limit"])), -1)
    return Answer(200, {"entries": [entry(seq) for seq in seqs], "next_cursor": seqs[-1] if seqs[-1] > 1 else None})


@pytest.mark.parametrize(("limit", "first", "asks"), [(5, 2496, 1), (1000, 1501, 1), (2200, 301, 3), (9000, 1, 3)])
def test_log_is_newest_last(limit: int, first: int, asks: int) -> None:
    """The newest entries are shown in the order of the log, as many as asked for."""
    fake = Fake(listed)
    ran = run(fake, "log", "--limit", str(limit), "--json")
    assert ran.code == 0
    assert [json.loads(line)["seq"] for line in ran.out.splitlines()] == list(range(first, 2501))
    assert len(fake.asked) == asks


def test_log_in_a_circle() -> None:
    """A cursor that does not move on is refused instead of followed for ever."""
    assert run(Fake(lambda _: Answer(200, {"entries": [], "next_cursor": 5})), "log").code == 3


def test_log_filters() -> None:
    """Filters are sent as the service takes them."""
    fake = Fake(lambda _: Answer(200, {"entries": [], "next_cursor": None}))
    words = ("--since", "2026-11-20T01:00:00+01:00", "--until", "2026-11-21", "--scope", "run", "--target", "run:a:b")
    ran = run(fake, "log", *words, "--actor", "ada", "--kind", "kill", "--limit", "7")
    assert ran.code == 0, ran.err
    assert ran.out == "no entry matches\n"
    query = parse_qs(urlsplit(fake.asked[0].path).query)
    assert {name: values[0] for name, values in query.items()} == {
        "since": "2026-11-20T00:00:00.000000Z",
        "until": "2026-11-21T00:00:00.000000Z",
        "scope": "run",
        "target": "run:a:b",
        "actor": "ada",
        "kind": "kill",
        "order": "desc",
        "limit": "7",
    }


def test_log_rows() -> None:
    """Kills, revives, notes and stubs are each shown as what they are."""
    revive = entry(3, kind="revive", holds=[2])
    note = {"seq": 1, "kind": "note", "topic": "log_opened", "ttl_ms": 1000, "actor": "haltline", "at": "x"}
    entries = [{"seq": 4, "hash": "ab" * 32}, revive, entry(2), note]
    out = run(Fake(lambda _: Answer(200, {"entries": entries, "next_cursor": None})), "log").out.splitlines()
    assert [line.split()[0] for line in out] == ["seq", "1", "2", "3", "4"]
    assert out[1].endswith("log_opened ttl_ms=1000")
    assert out[3].endswith("why (released 2)")
    assert out[4].endswith("(not for this token)")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2h", "2026-11-20T10:00:00.000000Z"),
        ("1h30m", "2026-11-20T10:30:00.000000Z"),
        ("90s", "2026-11-20T11:58:30.000000Z"),
        ("7d", "2026-11-13T12:00:00.000000Z"),
        ("2026-11-20", "2026-11-20T00:00:00.000000Z"),
        ("2026-11-20T20:25:11.5Z", "2026-11-20T20:25:11.500000Z"),
        ("2026-11-20T20:25:11+02:00", "2026-11-20T18:25:11.000000Z"),
    ],
)
def test_moments(text: str, moment: str) -> None:
    """How long ago, or a moment; UTC where it names no zone."""
    assert moment_of(text, now=NOW) == moment


@pytest.mark.parametrize("text", ["", "yesterday", "2x", "-2h", "h", "٢h", "99999d99999d", "0001-01-01T00:00:00+14:00"])
def test_moments_that_are_none(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError, match=r"."):
        moment_of(text, now=NOW)


def test_bad_moment_is_usage() -> None:
    """--since that is no moment ends with 2."""
    assert run(Fake(listed), "log", "--since", "soon").code == 2
