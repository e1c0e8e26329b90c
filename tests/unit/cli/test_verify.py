"""``haltline verify``: every way to spoil a log is found, and the short way through it accepts nothing of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haltline.canonical import canonical
from haltline.cli.audit import MAX_LINE_BYTES, Audit
from haltline.cli.exchange import Answer, Ask
from haltline.errors import ChainBroken, InvalidDocument
from haltline.flips import Position, entry_hash, seal
from tests.unit.cli.commanding import Fake, Ran, run
from tests.unit.core.logs import EPOCH, Log


def no_service(_: Ask) -> Answer:
    """Stand in for a service that verify must not need."""
    raise AssertionError("verify works offline")


def story() -> Log:
    """Return a log with kills, revives and notes; two holds are active at its end."""
    log = Log()
    first = log.kill("run:r-42", reason="mails the wrong customers")
    second = log.kill("run:r-42", reason="„auch das hier“ — \u2028 \x7f 👾")
    log.kill("global")
    log.note("token_created", token_id="abc", subject="bob")
    log.kill("capability:send_email", reason='a "quoted" \\ reason')
    log.revive("run:r-42", first, second)
    log.revive("global", 4)
    log.kill("tenant:acme:eu")
    return log


def lines(log: Log) -> list[bytes]:
    """Return the lines of an export."""
    return [line + b"\n" for line in log.lines()]


def resealed(members: list[dict[str, Any]]) -> list[bytes]:
    """Return a log whose chain was redone after a change, as somebody who holds the whole file could."""
    after = Position()
    made = []
    for each in members:
        entry = seal(each, after=after)
        after = Position(entry["seq"], entry["hash"])
        made.append(canonical(entry) + b"\n")
    return made


def verify(folder: Path, data: list[bytes], *words: str) -> Ran:
    """Run ``haltline verify`` over a file of these lines, without settings and without a service."""
    path = folder / "log.jsonl"
    path.write_bytes(b"".join(data))
    return run(Fake(no_service), "verify", str(path), *words, environment={})


def test_good(tmp_path: Path) -> None:
    """A whole log is good; how many entries, its head and the holds active at its end are shown."""
    log = story()
    ran = verify(tmp_path, lines(log))
    assert ran.code == 0, ran.err
    assert "good: 9 entries, 5 kills, 2 revives, 2 notes" in ran.out
    assert f"head   9:{log.head.hash}" in ran.out
    assert "holds active at the end: 2" in ran.out
    assert "capability:send_email" in ran.out
    assert "run:r-42" not in ran.out
    assert "No outside witness" in ran.out


def test_json(tmp_path: Path) -> None:
    """--json says the same in one object."""
    log = story()
    members = verify(tmp_path, lines(log), "--json", "--head", f"9:{log.head.hash}").json
    assert (members["entries"], members["kills"], members["revives"]) == (9, 5, 2)
    assert members["head"] == {"seq": 9, "hash": log.head.hash} == members["witness"]
    assert (members["namespace"], members["epoch"]) == ("default", EPOCH)
    assert [(each["seq"], each["target"]) for each in members["holds"]] == [
        (6, "capability:send_email"),
        (9, "tenant:acme:eu"),
    ]


def test_folds_as_the_service_does(tmp_path: Path) -> None:
    """The holds active at the end are those of the replica."""
    log = story()
    members = verify(tmp_path, lines(log), "--json").json
    held = [(hold.seq, key, hold.reason) for key, holds in log.replica().holds.items() for hold in holds]
    assert sorted((each["seq"], each["target"], each["reason"]) for each in members["holds"]) == sorted(held)


def test_standard_input() -> None:
    """- reads standard input."""
    ran = run(Fake(no_service), "verify", "-", environment={}, stdin=b"".join(lines(story())))
    assert ran.code == 0, ran.err


def altered(data: list[bytes]) -> list[bytes]:
    """Change a reason."""
    return [data[0], data[1].replace(b"wrong", b"right"), *data[2:]]


def other_history() -> list[bytes]:
    """Return a log of the same epoch in which another kill came first: what a restored database would go on with."""
    members = story().members
    return resealed([members[0], {**members[1], "reason": "another"}, *members[2:]])


SPOILT: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "altered reason": altered,
    "altered note": lambda data: [data[0].replace(b"1000", b"5000"), *data[1:]],
    "added member": lambda data: [*data[:2], data[2].replace(b'"v":1', b'"v":1,"w":1'), *data[3:]],
    "added space": lambda data: [*data[:2], data[2].replace(b'"reason":"', b'"reason":" '), *data[3:]],
    "member twice": lambda data: [*data[:2], data[2].replace(b'"v":1', b'"v":1,"v":1'), *data[3:]],
    "missing inside": lambda data: [*data[:3], *data[4:]],
    "missing at the start": lambda data: data[1:],
    "doubled": lambda data: [*data[:4], data[3], *data[4:]],
    "re-ordered": lambda data: [*data[:3], data[4], data[3], *data[5:]],
    "twice in a row": lambda data: data + data,
    "cut inside a line": lambda data: [*data[:-1], data[-1][:-9]],
    "line not JSON": lambda data: [*data[:3], b"<html>\n", *data[3:]],
    "empty line": lambda data: [*data[:3], b"\n", *data[3:]],
    "line not UTF-8": lambda data: [*data[:3], b"\xff\n", *data[3:]],
    "line not an object": lambda data: [*data[:3], b"[1]\n", *data[3:]],
    "endless line": lambda data: [*data[:3], b" " * (MAX_LINE_BYTES + 1), *data[3:]],
    "stub": lambda data: [*data[:3], b'{"hash":"%s","seq":4}\n' % (b"a" * 64), *data[4:]],
    "newer version": lambda data: [*data[:3], data[3].replace(b'"v":1', b'"v":2'), *data[4:]],
    "something after an entry": lambda data: [*data[:3], data[3].rstrip(b"\n") + b"{}\n", *data[4:]],
    "another history": lambda data: [*data[:2], *other_history()[2:]],
    "nothing": lambda _: [],
}


@pytest.mark.parametrize("how", SPOILT)
def test_broken(tmp_path: Path, how: str) -> None:
    """A spoilt log ends with 1 and says where it breaks."""
    ran = verify(tmp_path, SPOILT[how](lines(story())))
    assert ran.code == 1
    assert ran.err.startswith("BROKEN: ")
    assert "good" not in ran.out


def test_broken_json(tmp_path: Path) -> None:
    """--json says up to where it is proven, and where it breaks."""
    log = story()
    members = verify(tmp_path, SPOILT["missing inside"](lines(log)), "--json").json
    assert members["ok"] is False
    assert members["at_seq"] == 4
    assert members["proven"] == {"seq": 3, "hash": log.members[2]["hash"]}


def test_other_log(tmp_path: Path) -> None:
    """Entries of another epoch or namespace, chained on properly, are found."""
    members = story().members
    for name, value in (("epoch", "f" * 16), ("namespace", "other")):
        ran = verify(tmp_path, resealed([*members[:4], {**members[4], name: value}, *members[5:]]))
        assert ran.code == 1
        assert "another log" in ran.err


@pytest.mark.parametrize(
    "holds",
    [pytest.param([2, 5], id="a note"), pytest.param([4], id="another target's"), pytest.param([1], id="entry 1")],
)
def test_revive_of_what_is_not_there(tmp_path: Path, holds: list[int]) -> None:
    """A revive that names a hold which is not on its target is found, though the chain is whole."""
    members = story().members
    ran = verify(tmp_path, resealed([*members[:6], {**members[6], "holds": holds}]))
    assert ran.code == 1
    assert "which is not on run:r-42" in ran.err


def test_revive_twice(tmp_path: Path) -> None:
    """A hold that was released is not released again."""
    log = story()
    log.revive("run:r-42", 2)
    assert verify(tmp_path, lines(log)).code == 1


def test_truncated(tmp_path: Path) -> None:
    """A log cut off at a line is whole by itself; a head seen elsewhere finds it."""
    log = story()
    head = f"9:{log.head.hash}"
    assert verify(tmp_path, lines(log)[:-2]).code == 0
    ran = verify(tmp_path, lines(log)[:-2], "--head", head)
    assert ran.code == 1
    assert "it was cut off" in ran.err
    assert verify(tmp_path, [], "--head", head).code == 1


def test_redone(tmp_path: Path) -> None:
    """A log altered with its chain redone is whole by itself; a head seen elsewhere finds it."""
    log = story()
    data = resealed([log.members[0], {**log.members[1], "reason": "an innocent one"}, *log.members[2:]])
    assert verify(tmp_path, data).code == 0
    ran = verify(tmp_path, data, "--head", f"9:{log.head.hash}")
    assert ran.code == 1
    assert "the chain was redone" in ran.err


def test_older_witness(tmp_path: Path) -> None:
    """A head seen earlier is met on the way, and the log may go on."""
    log = story()
    ran = verify(tmp_path, lines(log), "--head", f"5:{log.members[4]['hash']}")
    assert ran.code == 0
    assert "witness met at entry 5" in ran.out


def test_after(tmp_path: Path) -> None:
    """A part of a log is proven from the entry before it; what it releases from before is not held against it."""
    log = story()
    before = log.members[3]["hash"]
    ran = verify(tmp_path, lines(log)[4:], "--after", f"4:{before}")
    assert ran.code == 0, ran.err
    assert "holds active at the end made after position 4: 2" in ran.out
    assert verify(tmp_path, lines(log)[4:], "--after", f"4:{'0' * 64}").code == 1
    assert verify(tmp_path, lines(log)[5:], "--after", f"4:{before}").code == 1
    assert verify(tmp_path, [], "--after", f"4:{before}").code == 0


@pytest.mark.parametrize(
    "words",
    [
        ("--head", "9"),
        ("--head", "9:xyz"),
        ("--head", f"-1:{'0' * 64}"),
        ("--head", f"0:{'1' * 64}"),
        ("--head", f"{2**53}:{'1' * 64}"),
        ("--head", f"3:{'1' * 64}", "--after", f"4:{'1' * 64}"),
        ("--head", f"4:{'2' * 64}", "--after", f"4:{'1' * 64}"),
    ],
)
def test_usage(tmp_path: Path, words: tuple[str, ...]) -> None:
    """A position that is none, or that nothing could meet, ends with 2."""
    assert verify(tmp_path, lines(story()), *words).code == 2


def test_missing_file(tmp_path: Path) -> None:
    """A file that is not there ends with 2."""
    assert run(Fake(no_service), "verify", str(tmp_path / "none"), environment={}).code == 2


def test_hostile_reasons_are_inert(tmp_path: Path) -> None:
    """A reason that some other writer put into a log cannot reach the terminal."""
    log = story()
    log.kill("run:evil", reason="\x1b]0;owned\x07 \u202e \x9b2J")
    ran = verify(tmp_path, lines(log))
    assert ran.code == 0
    assert "owned" in ran.out
    assert not set("\x1b\x07\x9b\u202e") & set(ran.out)


@pytest.mark.parametrize("last", ["", "\n", "\r\n"])
def test_line_ends(tmp_path: Path, last: str) -> None:
    """The last line may lack its line feed, and lines may end as on Windows."""
    data = [line + (last.encode() or b"\n") for line in story().lines()]
    if not last:
        data[-1] = data[-1].rstrip(b"\n")
    assert verify(tmp_path, data).code == 0


def fingerprint(audit: Audit) -> tuple[object, ...]:
    """Return everything that an audit found out."""
    return (audit.position, audit.namespace, audit.epoch, audit.kills, audit.revives, audit.active)


def taken(data: list[bytes], *, fast: bool) -> tuple[object, ...]:
    """Return what an audit finds, and whether it refused."""
    audit = Audit(fast=fast)
    try:
        audit.take(data)
    except ChainBroken as error:
        return (*fingerprint(audit), error.seq)
    return (*fingerprint(audit), None)


# Long enough to reach every part of a line, drawn from what JSON, hashes and numbers are made of.
SCRAPS = st.sampled_from(
    [b'"', b"\\", b"{", b"}", b",", b":", b"0", b"1", b"a", b"A", b" ", b"\n", b"\x00", b"\xff", b""]
)


@given(st.integers(1, 8), st.integers(0, 700), SCRAPS, st.booleans())
def test_short_way_agrees_on_altered_bytes(number: int, at: int, scrap: bytes, insert: bool) -> None:  # noqa: FBT001
    """With and without the short way, a log with a byte changed anywhere gives the same answer."""
    data = lines(story())
    line = data[number]
    at %= len(line)
    data[number] = line[:at] + scrap + line[at if insert else at + 1 :]
    assert taken(data, fast=True) == taken(data, fast=False)


ODD: dict[str, list[Any]] = {
    "reason": ["", " ", "é\u2028\x7f", '"', "\\", "\x00", "\x1f", "\n", 7, None],
    "target": [
        "global",
        "run:é",
        "run:",
        "run:a b",
        "capability:A",
        "capability:a",
        "tenant:x:y",
        "x:y",
        "run:r-42",
        7,
    ],
    "actor": ["ada", "", "a b", "-a", "ada\n", "a" * 128, "a" * 129],
    "at": ["2026-11-20T20:25:11.123456Z", "2026-11-20T20:25:11Z", "\u0662026-11-20T20:25:11.123456Z"],
    "flip_id": ["f-1", "", "é"],
    "holds": [[2], [3], [2, 3], [3, 2], [2, 2], [], [4], [99], [7], ["2"], [0], [True], 2],
    "v": [1, 2, 0, True, "1"],
    "queued": ["discard", "drain", "keep"],
    "in_flight": ["finish", "abort", ""],
    "kind": ["kill", "revive", "note", "other"],
    "namespace": ["default", "other", "A", ""],
    "epoch": [EPOCH, "f" * 16, "F" * 16, "f"],
    "prev_hash": ["0" * 64, "x"],
    "seq": [1, 2, 0, -1, 2**53, True],
    "extra": [1, None, "x", {"hash": "x"}],
}


def odd_entries() -> Iterator[tuple[int, str, bytes]]:
    """Yield every entry of the story with each odd member in turn, its hash redone: where, which member, the line."""
    members = story().members
    for number in range(1, len(members)):
        for name, values in ODD.items():
            for value in values:
                entry = {**members[number], name: value}
                try:
                    entry["hash"] = entry_hash(entry)
                    yield number, name, canonical(entry) + b"\n"
                except InvalidDocument:
                    yield number, name, json.dumps(entry).encode() + b"\n"


def test_short_way_agrees_on_sealed_oddities() -> None:
    """With and without the short way, an entry with an odd member, its hash redone, gives the same answer."""
    data = lines(story())
    for number, name, line in odd_entries():
        log = [*data[:number], line]
        assert taken(log, fast=True) == taken(log, fast=False), (number, name, line)


@pytest.mark.parametrize("forged", ["\x00", "\x1f", "\n", '"', "\\", "\\x", "\\u0041", ""])
def test_short_way_agrees_on_forged_bytes(forged: str) -> None:
    """A reason written as JSON does not allow, or not canonically, and hashed as those bytes: the same answer."""
    data = lines(story())
    text = data[1].decode().rstrip("\n").replace("mails the wrong customers", forged)
    before, after = text.split(f'"hash":"{story().members[1]["hash"]}",')
    digest = hashlib.sha256((before + after).encode()).hexdigest()
    log = [data[0], f'{before}"hash":"{digest}",{after}\n'.encode()]
    assert taken(log, fast=True) == taken(log, fast=False)
    assert taken(log, fast=True)[-1] == 2


def test_short_way_is_taken() -> None:
    """Kills and revives in canonical form take the short way; a test of two ways needs two."""

    class OnlyShort(Audit):
        slow = 0

        def _take_slowly(self, line: bytes) -> None:
            self.slow += 1
            super()._take_slowly(line)

    audit = OnlyShort()
    audit.take(lines(story()))
    assert audit.slow == 3  # two notes, and a reason with escapes
