"""``haltline export``: a part of the log never looks like the whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from haltline.cli.exchange import Answer, Ask
from haltline.flips import Position
from tests.unit.cli.commanding import Fake, Stream, run
from tests.unit.core.logs import Log


def log() -> Log:
    """Return a log of five entries."""
    made = Log()
    for number in range(4):
        made.kill(f"run:r-{number}")
    return made


def head_of(position: Position) -> str:
    """Return a position as the service promises it."""
    return f"{position.seq}:{position.hash}"


def streamed(lines: list[bytes], *, head: str, media: str = "application/jsonl", size: int = 100) -> Stream:
    """Return an export in parts of some bytes."""
    data = b"".join(line + b"\n" for line in lines)
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return Stream(200, [("content-type", media), ("haltline-head", head)], parts)


def asked(_: Ask) -> Answer:
    """Stand in for what an export never asks."""
    raise AssertionError("an export asks for a stream only")


@pytest.mark.parametrize("size", [1, 7, 100, 100_000])
def test_whole(tmp_path: Path, size: int) -> None:
    """A whole log is written byte for byte, however it was cut up on the way."""
    made = log()
    out = tmp_path / "log.jsonl"
    fake = Fake(asked, streamed(made.lines(), head=head_of(made.head), size=size))
    ran = run(fake, "export", "-o", str(out))
    assert ran.code == 0, ran.err
    assert out.read_bytes() == b"".join(line + b"\n" for line in made.lines())
    assert head_of(made.head) in ran.out
    assert [each.name for each in tmp_path.iterdir()] == ["log.jsonl"]


def test_json(tmp_path: Path) -> None:
    """--json says what was written."""
    made = log()
    fake = Fake(asked, streamed(made.lines(), head=head_of(made.head)))
    members = run(fake, "export", "-o", str(tmp_path / "x"), "--json").json
    assert members["entries"] == 5
    assert members["head"] == {"seq": 5, "hash": made.head.hash}


def test_standard_output() -> None:
    """With -o - the log, and nothing else, goes to standard output."""
    made = log()
    ran = run(Fake(asked, streamed(made.lines(), head=head_of(made.head))), "export", "-o", "-")
    assert ran.code == 0
    assert ran.out.encode() == b"".join(line + b"\n" for line in made.lines())
    assert "exported 5 entries" in ran.err


def spoiled() -> dict[str, Stream]:
    """Return exports that are not whole, by what is wrong with them."""
    made = log()
    lines, head = made.lines(), head_of(made.head)
    broken = streamed(lines, head=head)
    broken.breaks = True
    cut = streamed(lines, head=head)
    cut.parts[-1] = cut.parts[-1][:-1]
    more = streamed(lines, head=head)
    more.parts.append(b'{"a')
    other = f"5:{'0' * 64}"
    return {
        "broken off": broken,
        "last line not ended": cut,
        "half a line too many": more,
        "last line missing": streamed(lines[:-1], head=head),
        "line missing inside": streamed(lines[:2] + lines[3:], head=head),
        "one line too many": streamed([*lines, lines[-1]], head=head),
        "another head": streamed(lines, head=other),
        "nothing": streamed([], head=head),
        "last line not JSON": streamed([*lines[:-1], b"<html>"], head=head),
    }


@pytest.mark.parametrize("how", spoiled())
def test_broken_off(tmp_path: Path, how: str) -> None:
    """An export that is not what was promised keeps its .part name: 1."""
    out = tmp_path / "log.jsonl"
    out.write_text("the export of yesterday", encoding="utf-8")
    ran = run(Fake(asked, spoiled()[how]), "export", "-o", str(out))
    assert ran.code == 1
    assert ran.err.startswith("BROKEN OFF")
    assert out.read_text(encoding="utf-8") == "the export of yesterday"
    assert (tmp_path / "log.jsonl.part").exists()


@pytest.mark.parametrize(
    "stream",
    [
        Stream(200, [("content-type", "text/html")], [b"<html>"]),
        Stream(200, [("content-type", "application/jsonl")], [b"{}\n"]),
        Stream(200, [("content-type", "application/jsonl"), ("haltline-head", "5")], [b"{}\n"]),
        Stream(200, [("content-type", "text/html"), ("haltline-head", f"1:{'0' * 64}")], [b"{}\n"]),
        Stream(302, [("location", "/")], []),
        Stream(403, [("content-type", "application/problem+json")], [b'{"code":"forbidden","title":"No"}']),
    ],
)
def test_refused(tmp_path: Path, stream: Stream) -> None:
    """What does not promise a whole log is refused, and no file is made: 3."""
    ran = run(Fake(asked, stream), "export", "-o", str(tmp_path / "x"))
    assert ran.code == 3
    assert list(tmp_path.iterdir()) == []


def test_unreachable(tmp_path: Path) -> None:
    """Without a connection no file is made: 4."""
    assert run(Fake(asked), "export", "-o", str(tmp_path / "x")).code == 4
    assert list(tmp_path.iterdir()) == []


def test_unwritable(tmp_path: Path) -> None:
    """A folder that is not there is said: 1."""
    made = log()
    fake = Fake(asked, streamed(made.lines(), head=head_of(made.head)))
    ran = run(fake, "export", "-o", str(tmp_path / "none" / "x"))
    assert ran.code == 1
    assert "no such file" in ran.err.lower()


def test_from(tmp_path: Path) -> None:
    """--from asks for the rest of a log, and counts from there."""
    made = log()
    fake = Fake(asked, streamed(made.lines()[2:], head=head_of(made.head)))
    ran = run(fake, "export", "-o", str(tmp_path / "x"), "--from", "3")
    assert ran.code == 0, ran.err
    assert fake.asked[0].path.endswith("&from=3")
