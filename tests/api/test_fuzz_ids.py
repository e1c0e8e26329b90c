"""Ids come back byte for byte: what was killed is what stands in the flags, in the log and in the export."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from haltline.flips import Kill
from haltline.scopes import Scope, parse_target
from tests.support.counts import IDS, NIGHTLY, SEED
from tests.support.fuzz_service import Fuzzed, fuzzed

FIRST: Final = string.ascii_letters + string.digits
REST: Final = FIRST + "._:-"
EDGES: Final = (
    *("global", "GLOBAL", "run", "run:run", "tenant:x", "a:", "a::b", "a..", "a--", "0", "00", "007", "1e3"),
    *("null", "None", "NaN", "true", "con", "nul", "export", "constructor", "a.b.c", "a" * 128, "A" * 128, "Z-9_."),
)
"""Ids that somebody would be tempted to read as something else."""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Fuzzed]:
    """Yield a service with an empty log."""
    with fuzzed(tmp_path) as running:
        yield running


def targets(count: int) -> list[str]:
    """Return that many targets, all different; many differ from another one in the case of a letter alone."""
    draw = random.Random(SEED)
    scopes = [scope.value for scope in Scope if scope is not Scope.GLOBAL]
    found = dict.fromkeys(["global"])
    for scope in scopes:
        found.update(dict.fromkeys(f"{scope}:{each.lower() if scope == 'capability' else each}" for each in EDGES))
    while len(found) < count:
        length = draw.choice((1, 2, 3, 8, 8, 16, 40, 127, 128))
        text = draw.choice(FIRST) + "".join(draw.choice(REST) for _ in range(length - 1))
        for scope in scopes:
            for each in (text.lower(),) if scope == "capability" else (text, text.swapcase()):
                found[f"{scope}:{each}"] = None
    return list(found)[:count]


@pytest.mark.timeout(900 if NIGHTLY else 180)
def test_ids_round_trip(service: Fuzzed) -> None:
    """Every valid id, at every scope, is answered, flagged, listed, logged and exported exactly as it was sent."""
    sent = targets(IDS)
    seqs: dict[str, int] = {}
    for target in sent:
        reply = service.kill(target)
        assert (reply.status, reply.members["target"]) == (201, target)
        assert [hold["target"] for hold in reply.members["holds"]] == [target]
        seqs[target] = reply.members["seq"]
        flag = service.call("GET", "/v1/flags/" + target.replace(":", "/", 1)).members
        assert (flag["target"], flag["killed"], flag["last_kill"]) == (target, True, seqs[target])
        assert b'"target":"%s"' % target.encode() in service.call("GET", f"/v1/log/{seqs[target]}").body
    kills = {entry.position.seq: str(entry.target) for entry in service.exported() if isinstance(entry, Kill)}
    assert kills == {seq: target for target, seq in seqs.items()}
    assert listed(service) == sorted(sent)
    counts = service.call("GET", "/v1/flags?limit=1").members["counts"]
    assert counts == {scope.value: sum(parse_target(each).scope is scope for each in sent) for scope in Scope}


def listed(service: Fuzzed) -> list[str]:
    """Return every killed target, page by page."""
    found: list[str] = []
    cursor = ""
    while True:
        page = service.call("GET", f"/v1/flags?limit=997{cursor}").members
        found += [flag["target"] for flag in page["flags"]]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


def test_ids_that_differ_in_case_are_different(service: Fuzzed) -> None:
    """A kill of R-1 does not kill r-1, in no view of it; a filter for one does not find the other."""
    for scope in ("run", "tenant", "feature"):
        assert service.kill(f"{scope}:R-1").status == 201
        assert not service.call("GET", f"/v1/flags/{scope}/r-1").members["killed"]
        assert service.call("GET", f"/v1/log?target={scope}:r-1").members["entries"] == []
        assert service.kill(f"{scope}:r-1").status == 201
        entries = service.call("GET", f"/v1/log?target={scope}:r-1").members["entries"]
        assert [entry["target"] for entry in entries] == [f"{scope}:r-1"]


def test_a_wildcard_matches_nothing(service: Fuzzed) -> None:
    """A dot in an id is a dot and an underscore nothing at all: no id is ever a pattern for another."""
    assert service.kill("run:aXb").status == 201
    assert not service.call("GET", "/v1/flags/run/a.b").members["killed"]
    assert service.call("GET", "/v1/flags/run/a_b").members["killed"] is False
    assert service.call("GET", "/v1/log?target=run:a.b").members["entries"] == []


def test_flip_ids_round_trip(service: Fuzzed) -> None:
    """An idempotency key is kept byte for byte too: those that differ in case alone are two flips."""
    for flip_id in (*EDGES, "F-1", "f-1"):
        reply = service.kill("run:r-1", flip_id=flip_id)
        assert (reply.status, reply.members["flip_id"]) == (201, flip_id)
    kept = [entry.flip_id for entry in service.exported() if isinstance(entry, Kill)]
    assert kept == [*EDGES, "F-1", "f-1"]


def test_reasons_round_trip(service: Fuzzed) -> None:
    """A reason is kept as it was written, in every script, quotes and backslashes included."""
    odd = " ' \" \\ / \\u0041 %s {0} <b> "
    for reason in ("x" * 500, "\U0001f6d1" * 500, odd, "Z\u0301 \u202f\u05d0\u0628", "\ufffd"):
        seq = service.call("POST", "/v1/kills", {"target": "global", "reason": reason}).members["seq"]
        assert service.call("GET", f"/v1/log/{seq}").members["reason"] == reason
    exported = service.call("GET", "/v1/log/export").body.splitlines()
    assert all(json.loads(line)["v"] == 1 for line in exported)
