"""The vectors that a client in another language is held to: ours agrees, and so does the page that explains them."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from haltline.canonical import canonical, parse
from haltline.errors import ChainBroken
from haltline.flips import Entry, Position, entry_hash, follow
from haltline.lease import Drift, Readings, clock_state, lease_until
from haltline.replica import Replica, from_snapshot
from haltline.scopes import path
from haltline.verdict import Go

VECTORS: Final = Path(__file__).resolve().parent / "vectors"
PAGE: Final = Path(__file__).resolve().parents[2] / "docs/verify.md"

CHAIN: Final[dict[str, Any]] = json.loads((VECTORS / "chain.json").read_text(encoding="utf-8"))
LEASE: Final[dict[str, Any]] = json.loads((VECTORS / "lease.json").read_text(encoding="utf-8"))
VERDICTS: Final[dict[str, Any]] = json.loads((VECTORS / "verdicts.json").read_text(encoding="utf-8"))


def named(cases: list[dict[str, Any]]) -> pytest.MarkDecorator:
    """Run a test once for each case, under the case's name."""
    return pytest.mark.parametrize("case", cases, ids=[case["name"] for case in cases])


def test_the_files_are_what_the_script_writes() -> None:
    """Nobody edits a vector by hand, or the script without writing the vectors anew."""
    spec = importlib.util.spec_from_file_location("generate", VECTORS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    made: dict[str, str] = script.vectors()
    assert {name: (VECTORS / name).read_text(encoding="utf-8") for name in made} == made
    assert {each.name for each in VECTORS.glob("*.json")} == set(made)


def test_the_script_uses_nothing_of_ours() -> None:
    """What judges our code does not share it."""
    assert not re.search(r"^\s*(from|import) (haltline|app)\b", (VECTORS / "generate.py").read_text(), re.MULTILINE)


def test_every_case_has_a_name_of_its_own() -> None:
    """A failing case can be found by its name."""
    for vectors in (CHAIN, LEASE, VERDICTS):
        for cases in vectors.values():
            if isinstance(cases, list):
                names = [case["name"] for case in cases]
                assert len(set(names)) == len(names) > 0


# -- the chain -------------------------------------------------------------------------------------------------------


def read(lines: list[str]) -> Iterator[Entry]:
    """Follow a log from its lines."""
    return follow((parse(line.encode()) for line in lines), after=Position())


@named(CHAIN["sound"])
def test_a_sound_log_ends_at_its_head(case: dict[str, Any]) -> None:
    """Every entry verifies, and the last position is the head."""
    entries = list(read(case["lines"]))
    assert entries[-1].position == Position(**case["head"])
    assert len(entries) == len(case["lines"])


@named(CHAIN["sound"])
def test_an_export_is_canonical(case: dict[str, Any]) -> None:
    """Each line is the canonical JSON of its entry, hash included."""
    for line in case["lines"]:
        assert canonical(parse(line.encode())) == line.encode()


@named([*CHAIN["broken"], *CHAIN["unreadable"]])
def test_a_broken_log_breaks_where_it_should(case: dict[str, Any]) -> None:
    """The position of the break is that of the vector, and what comes before it is sound."""
    entries = read(case["lines"])
    for seq in range(1, case["breaks_at"]):
        assert next(entries).position.seq == seq
    with pytest.raises(ChainBroken) as caught:
        next(entries)
    assert caught.value.seq == case["breaks_at"]


@named(CHAIN["other_head"])
def test_a_forged_log_misses_the_head_that_was_seen(case: dict[str, Any]) -> None:
    """It verifies by itself, and does not pass through the head."""
    positions = [entry.position for entry in read(case["lines"])]
    assert Position(**case["seen_head"]) not in positions


@named(CHAIN["canonical"])
def test_canonical_bytes_and_their_hash(case: dict[str, Any]) -> None:
    """A JSON text has the canonical form and the hash of the vector."""
    value = parse(case["json"].encode())
    assert canonical(value) == case["canonical"].encode()
    if isinstance(value, dict):
        assert entry_hash(value) == case["sha256"]


# -- the page that explains it ---------------------------------------------------------------------------------------


def printed(title: str) -> str:
    """Return the code block that stands under ``<!-- title -->`` in docs/verify.md."""
    found = re.search(rf"<!-- {re.escape(title)} -->\n```\w+\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None, f"docs/verify.md prints no {title}"
    return found[1]


def command(name: str, folder: Path) -> list[str]:
    """Return the command that runs a script of the page, or skip where its interpreter is missing."""
    script = folder / name
    script.write_text(printed(name), encoding="utf-8")
    if name.endswith(".py"):
        return [sys.executable, "-I", str(script)]
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: the JavaScript verifier of docs/verify.md is not run here")
    return [node, str(script)]


def run(command: list[str], lines: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a verifier on a log."""
    text = "".join(f"{line}\n" for line in lines)
    return subprocess.run(
        command, input=text, capture_output=True, check=False, timeout=30, encoding="utf-8", env={"LC_ALL": "C"}
    )


SCRIPTS: Final = ("verify.py", "verify.mjs")


def test_the_python_script_has_ten_lines() -> None:
    """The page promises ten lines that use nothing but json and hashlib."""
    script = [line for line in printed("verify.py").splitlines() if line.strip()]
    assert len(script) == 10
    assert script[0] == "import hashlib, json, sys"


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_printed_scripts_agree_with_the_vectors(script: str, tmp_path: Path) -> None:
    """They print the head of every sound log, and find every break; what is only unreadable, they let pass."""
    verifier = command(script, tmp_path)
    for case in CHAIN["sound"]:
        done = run(verifier, case["lines"])
        assert (done.returncode, done.stdout) == (0, f"{case['head']['seq']}:{case['head']['hash']}\n"), case["name"]
    for case in CHAIN["broken"]:
        done = run(verifier, case["lines"])
        assert (done.returncode, done.stdout) == (1, ""), case["name"]
        assert f"the chain breaks at entry {case['breaks_at']}\n" in done.stderr
    for case in [*CHAIN["other_head"], *CHAIN["unreadable"]]:
        done = run(verifier, case["lines"])
        assert done.returncode == 0, case["name"]
        if "seen_head" in case:
            assert done.stdout != f"{case['seen_head']['seq']}:{case['seen_head']['hash']}\n"


def test_the_printed_one_liner_gives_an_entrys_hash(tmp_path: Path) -> None:
    """The tools jq and sha256sum make the same hash of one entry."""
    shell = shutil.which("sh")
    if shell is None or any(shutil.which(tool) is None for tool in ("sed", "jq", "sha256sum")):
        pytest.skip("sed, jq or sha256sum is not installed: the one-liner of docs/verify.md is not run here")
    lines = CHAIN["sound"][0]["lines"]
    (tmp_path / "flips.jsonl").write_text("".join(f"{line}\n" for line in [*lines[:1], *lines]), encoding="utf-8")
    done = subprocess.run(
        [shell, "-c", printed("one entry")], cwd=tmp_path, capture_output=True, check=True, timeout=30, encoding="utf-8"
    )
    assert done.stdout.split()[0] == json.loads(lines[5])["hash"]


# -- verdicts --------------------------------------------------------------------------------------------------------


def folded(name: str) -> Replica:
    """Return the fold of a log of the vectors."""
    log = VERDICTS["logs"][name]
    empty = Replica(log[0]["namespace"], log[0]["epoch"])
    return empty.extend(follow(log, after=Position()))


@named(VERDICTS["cases"])
def test_a_verdict_is_that_of_the_vector(case: dict[str, Any]) -> None:
    """Reason, holds and targets, in order; and the same from a snapshot of the fold."""
    view = None if case["tenants"] is None else frozenset(case["tenants"])
    replica = replace(folded(case["log"]), tenants=view)
    sent = parse(canonical(replica.snapshot()))
    for each in (replica, from_snapshot(sent, namespace=replica.namespace, epoch=replica.epoch, tenants=view)):
        verdict = each.judge(path(**case["path"]), case["armed_seq"], case["capability"])
        if isinstance(verdict, Go):
            assert case["expect"] == {"verdict": "go"}
        else:
            assert case["expect"] == {
                "verdict": "stop",
                "reason": verdict.reason.value,
                "holds": [hold.seq for hold in verdict.holds],
                "killed": [str(target) for target in verdict.killed],
            }


@pytest.mark.parametrize("name", VERDICTS["marks"])
def test_the_marks_are_those_of_the_vector(name: str) -> None:
    """What each target remembers of kills after the whole log."""
    marks = {key: [mark.last_kill, mark.barrier] for key, mark in folded(name).marks.items()}
    assert marks == VERDICTS["marks"][name]


# -- the lease -------------------------------------------------------------------------------------------------------


@named(LEASE["grants"])
def test_a_lease_ends_as_in_the_vector(case: dict[str, Any]) -> None:
    """To the nanosecond."""
    ends = lease_until(
        case["t0_ns"],
        span_us=case["read_at"] - case["received_at"],
        ttl_ms=case["ttl_ms"],
        drift=Drift.SLEWING if case["slewing"] else Drift.NORMAL,
    )
    assert ends == case["lease_until_ns"]


@named(LEASE["refused"])
def test_no_lease_comes_of_what_the_vector_refuses(case: dict[str, Any]) -> None:
    """What proves nothing is refused."""
    with pytest.raises(ValueError, match="no lease"):
        lease_until(0, span_us=case["read_at"] - case["received_at"], ttl_ms=case["ttl_ms"])


@named(LEASE["clocks"])
def test_the_clocks_say_what_the_vector_says(case: dict[str, Any]) -> None:
    """Each threshold, from both sides."""
    assert clock_state(Readings(**case["then"]), Readings(**case["now"])).value == case["state"]
