"""Writes the vectors beside this file: what any client, in any language, has to agree with.

Run it as ``python tests/contract/vectors/generate.py``; a test compares its output with the files. It uses nothing of
Haltline: entries are sealed here with json and hashlib, lease ends are computed with fractions, and every expected
verdict was written down by hand.
"""

from __future__ import annotations

import hashlib
import json
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).resolve().parent
EPOCH: Final = "5f0c6d1e9a7b4832"

Members = dict[str, Any]


def compact(value: object) -> str:
    """Return canonical JSON (RFC 8785; the names are ASCII and there are no floats)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def sha256(text: str) -> str:
    """Return the SHA-256 of a text in UTF-8, lower-case hexadecimal."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def chained(flips: list[Members], *, epoch: str = EPOCH) -> list[Members]:
    """Return a log: seq, prev_hash and hash set in each entry."""
    log: list[Members] = []
    head = "0" * 64
    for seq, members in enumerate(flips, 1):
        entry = {
            "v": 1,
            "namespace": "default",
            "epoch": epoch,
            "seq": seq,
            "at": f"2026-11-20T20:25:{seq:02d}.{seq * 111_111 % 1_000_000:06d}Z",
            "actor": "alice",
            **members,
            "prev_hash": head,
        }
        entry.pop("hash", None)
        head = sha256(compact(entry))
        log.append({**entry, "hash": head})
    return log


def opened() -> Members:
    """Return the note that begins every log."""
    return {"kind": "note", "topic": "log_opened", "ttl_ms": 1000}


def kill(target: str, flip_id: str, **more: Any) -> Members:
    """Return a kill, not sealed yet."""
    asked = {"reason": "stop it", "in_flight": "finish", "queued": "discard", **more}
    return {"kind": "kill", "target": target, "flip_id": flip_id, **asked}


def revive(target: str, flip_id: str, *holds: int) -> Members:
    """Return a revive, not sealed yet."""
    return {"kind": "revive", "target": target, "flip_id": flip_id, "reason": "mended", "holds": list(holds)}


# -- the chain -------------------------------------------------------------------------------------------------------

PLAIN: Final = chained(
    [
        opened(),
        kill("run:r-42", "f-1", reason="sends the same mail twice"),
        kill("run:r-42", "f-2", actor="bob", reason="me too"),
        {"kind": "note", "topic": "token_created", "token_id": "k3v9x1c7m2qa", "subject": "bob", "role": "operator"},
        revive("run:r-42", "f-3", 2),
        kill("global", "f-4", actor="bob", reason="all of it, now", queued="drain", in_flight="abort"),
    ]
)

ODD: Final = chained(
    [
        opened(),
        kill("tenant:acme", "f-1", reason='quotes " and \\ and / \u2013 caf\u00e9 cafe\u0301 \u20ac \U0001f6d1'),
        kill("tenant:acme", "f-2", reason="controls \b\t\n\f\r \x00\x01\x1f and DEL \x7f"),
        {**kill("feature:x", "f-3"), "added": {"b": [True, None, -1], "a": 2**53 - 1, "A": "", "": 0}},
    ]
)


def lines(log: list[Members]) -> list[str]:
    """Return a log as it is exported, one entry a line."""
    return [compact(entry) for entry in log]


def head(log: list[Members]) -> Members:
    """Return where a log ends."""
    return {"seq": log[-1]["seq"], "hash": log[-1]["hash"]}


def mended(entry: Members) -> Members:
    """Return an entry with a hash that fits its members, as a forger would write it."""
    bare = {name: value for name, value in entry.items() if name != "hash"}
    return {**bare, "hash": sha256(compact(bare))}


def chain() -> Members:
    """Return the vectors of the hash chain."""
    altered = {**PLAIN[1], "reason": "sends the same mail thrice"}
    other = chained([opened(), kill("run:r-42", "f-1")], epoch="f" * 16)
    stranger = mended({**PLAIN[5], "epoch": "f" * 16})
    newer = mended({**PLAIN[3], "v": 2})
    unknown = mended({**PLAIN[3], "kind": "pause"})
    forged = chained([opened(), kill("run:r-42", "f-1", reason="forged"), *({**each} for each in PLAIN[2:])])
    broken: list[tuple[str, list[Members], int]] = [
        ("a reason altered", [PLAIN[0], altered, *PLAIN[2:]], 2),
        ("a reason altered, the entry's own hash mended", [PLAIN[0], mended(altered), *PLAIN[2:]], 3),
        ("an actor altered in the last entry", [*PLAIN[:5], {**PLAIN[5], "actor": "mallory"}], 6),
        ("a member added", [*PLAIN[:2], {**PLAIN[2], "drill": True}, *PLAIN[3:]], 3),
        ("an entry dropped", [*PLAIN[:2], *PLAIN[3:]], 3),
        ("the first entry dropped", PLAIN[1:], 1),
        ("two entries swapped", [PLAIN[0], PLAIN[2], PLAIN[1], *PLAIN[3:]], 2),
        ("an entry doubled", [*PLAIN[:3], PLAIN[2], *PLAIN[3:]], 4),
        ("an entry of another log", [PLAIN[0], other[1], *PLAIN[2:]], 2),
    ]
    unreadable: list[tuple[str, list[Members], int]] = [
        ("another epoch", [*PLAIN[:5], stranger], 6),
        ("a newer version", [*PLAIN[:3], newer], 4),
        ("an unknown kind", [*PLAIN[:3], unknown], 4),
    ]
    return {
        "about": "One entry a line, as exported. sound: verifies and ends at head. broken: breaks at that position. "
        "unreadable: the hashes fit; a reader that acts on the log refuses the entry at that position nevertheless. "
        "other_head: verifies by itself, and only the head that was written down outside tells it from the sound log. "
        "canonical: a JSON text, its canonical form and the SHA-256 of that.",
        "sound": [
            {"name": "six entries", "lines": lines(PLAIN), "head": head(PLAIN)},
            {"name": "odd texts and an added member", "lines": lines(ODD), "head": head(ODD)},
            {"name": "one entry", "lines": lines(PLAIN[:1]), "head": head(PLAIN[:1])},
        ],
        "broken": [{"name": name, "lines": lines(log), "breaks_at": at} for name, log, at in broken],
        "unreadable": [{"name": name, "lines": lines(log), "breaks_at": at} for name, log, at in unreadable],
        "other_head": [
            {"name": "the tail cut off", "lines": lines(PLAIN[:5]), "seen_head": head(PLAIN)},
            {
                "name": "an entry altered and all that follow chained anew",
                "lines": lines(forged),
                "seen_head": head(PLAIN),
            },
        ],
        "canonical": [
            {
                "name": name,
                "json": text,
                "canonical": compact(json.loads(text)),
                "sha256": sha256(compact(json.loads(text))),
            }
            for name, text in (
                ("names are sorted by code unit", '{"b": 1, "a": 2, "B": 3, "_": 4, "10": 5, "9": 6, "": 7}'),
                ("white space goes", ' { "a" : [ 1 , 2 ] } '),
                ("escapes that are not needed go", r'{"a": "\u0041\/\u20ac\ud83d\uded1"}'),
                (
                    "escapes that are needed are the shortest",
                    r'{"a": "\u0008\u0009\u000a\u000c\u000d\u0022\u005c\u001F"}',
                ),
                ("DEL and line separators are not escaped", r'{"a": "\u007f\u0085\u2028\u2029"}'),
                ("no text is normalised", r'{"a": "caf\u00e9", "b": "cafe\u0301"}'),
                ("the largest integers", "[9007199254740991, -9007199254740991, -0]"),
                ("literals", "[true, false, null]"),
            )
        ],
    }


# -- verdicts --------------------------------------------------------------------------------------------------------

LOGS: Final[dict[str, list[Members]]] = {
    "quiet": chained([opened()]),
    "killed": chained([opened(), kill("run:r-1", "f-1", actor="bob", reason="sends twice")]),
    "tenant killed": chained([opened(), kill("tenant:acme", "f-1")]),
    "feature killed": chained([opened(), kill("feature:outreach", "f-1")]),
    "world stopped": chained([opened(), kill("global", "f-1")]),
    "capability frozen": chained([opened(), kill("capability:send_email", "f-1")]),
    "capability thawed": chained(
        [opened(), kill("capability:send_email", "f-1"), revive("capability:send_email", "f-2", 2)]
    ),
    "blip": chained([opened(), kill("tenant:acme", "f-1"), revive("tenant:acme", "f-2", 2)]),
    "two holds, one released": chained(
        [opened(), kill("run:r-1", "f-1"), kill("run:r-1", "f-2", actor="bob"), revive("run:r-1", "f-3", 2)]
    ),
    "another's hold named": chained(
        [opened(), kill("run:r-1", "f-1"), kill("tenant:acme", "f-2"), revive("run:r-1", "f-3", 2, 3)]
    ),
    "drained": chained([opened(), kill("run:r-1", "f-1", queued="drain"), revive("run:r-1", "f-2", 2)]),
    "everything": chained(
        [
            opened(),
            kill("capability:send_email", "f-1"),
            kill("run:r-1", "f-2"),
            kill("feature:outreach", "f-3"),
            kill("run:r-1", "f-4"),
            kill("global", "f-5"),
            kill("tenant:acme", "f-6"),
        ]
    ),
}


def stop(reason: str, *, holds: list[int], killed: list[str]) -> Members:
    """Return an expected stop."""
    return {"verdict": "stop", "reason": reason, "holds": holds, "killed": killed}


GO: Final[Members] = {"verdict": "go"}

MINE: Final = {"run": "r-1", "tenant": "acme", "feature": "outreach"}
BARE: Final = {"run": "r-1"}

SEND: Final = "send_email"

# log, path, armed_seq, capability, expected
VERDICTS: Final[list[tuple[str, str, dict[str, str], int, str | None, Members]]] = [
    ("nothing is killed", "quiet", MINE, 1, SEND, GO),
    ("nothing is killed, the run alone", "quiet", MINE, 1, None, GO),
    ("armed ahead of the replica", "quiet", MINE, 2, SEND, stop("behind", holds=[], killed=[])),
    ("the run is killed", "killed", MINE, 1, SEND, stop("killed", holds=[2], killed=["run:r-1"])),
    ("the run is killed, the run alone", "killed", MINE, 1, None, stop("killed", holds=[2], killed=["run:r-1"])),
    ("armed at the kill itself", "killed", MINE, 2, SEND, stop("killed", holds=[2], killed=["run:r-1"])),
    ("another run is killed", "killed", {**MINE, "run": "r-2"}, 1, SEND, GO),
    ("ids differ in case", "killed", {**MINE, "run": "R-1"}, 1, SEND, GO),
    ("an id begins alike", "killed", {**MINE, "run": "r-11"}, 1, SEND, GO),
    ("a tenant of the run's name", "killed", {"run": "x", "tenant": "r-1"}, 1, SEND, GO),
    ("the tenant is killed", "tenant killed", MINE, 1, SEND, stop("killed", holds=[2], killed=["tenant:acme"])),
    ("a run of another tenant", "tenant killed", {**MINE, "tenant": "umbrella"}, 1, SEND, GO),
    ("a run without a tenant", "tenant killed", BARE, 1, SEND, GO),
    ("the feature is killed", "feature killed", MINE, 1, SEND, stop("killed", holds=[2], killed=["feature:outreach"])),
    ("a run without a feature", "feature killed", BARE, 1, SEND, GO),
    ("the world is stopped", "world stopped", BARE, 1, None, stop("killed", holds=[2], killed=["global"])),
    (
        "the capability is frozen",
        "capability frozen",
        MINE,
        1,
        SEND,
        stop("frozen", holds=[2], killed=["capability:send_email"]),
    ),
    ("another capability", "capability frozen", MINE, 1, "read_mail", GO),
    ("a frozen capability leaves the run alone", "capability frozen", MINE, 1, None, GO),
    ("a thawed capability goes, armed before or not", "capability thawed", MINE, 1, SEND, GO),
    ("a blip stops who was armed before", "blip", MINE, 1, SEND, stop("killed", holds=[], killed=["tenant:acme"])),
    ("armed at the kill of a blip", "blip", MINE, 2, SEND, GO),
    ("armed after a blip", "blip", MINE, 3, SEND, GO),
    ("a blip elsewhere", "blip", {**MINE, "tenant": "umbrella"}, 1, SEND, GO),
    (
        "one of two holds is released",
        "two holds, one released",
        MINE,
        4,
        SEND,
        stop("killed", holds=[3], killed=["run:r-1"]),
    ),
    (
        "a revive reaches its own target only",
        "another's hold named",
        MINE,
        4,
        SEND,
        stop("killed", holds=[3], killed=["tenant:acme"]),
    ),
    (
        "a released hold and a held one, armed before both",
        "another's hold named",
        MINE,
        1,
        SEND,
        stop("killed", holds=[3], killed=["tenant:acme", "run:r-1"]),
    ),
    ("a draining kill stops as well", "drained", MINE, 1, SEND, stop("killed", holds=[], killed=["run:r-1"])),
    (
        "everything, the broadest first",
        "everything",
        MINE,
        7,
        SEND,
        stop(
            "killed",
            holds=[6, 7, 4, 3, 5, 2],
            killed=["global", "tenant:acme", "feature:outreach", "run:r-1", "capability:send_email"],
        ),
    ),
    (
        "everything, another capability",
        "everything",
        MINE,
        7,
        "read_mail",
        stop("killed", holds=[6, 7, 4, 3, 5], killed=["global", "tenant:acme", "feature:outreach", "run:r-1"]),
    ),
]

# The same under a view: tenants whose kills are known, log, path, expected; armed at 1, using SEND.
VIEWS: Final[list[tuple[str, list[str], str, dict[str, str], Members]]] = [
    ("a tenant in view", ["acme"], "quiet", MINE, GO),
    ("a tenant out of view", ["umbrella"], "quiet", MINE, stop("unseen", holds=[], killed=[])),
    ("no tenant at all", ["umbrella"], "quiet", BARE, GO),
    ("out of view, and the capability frozen", [], "capability frozen", MINE, stop("unseen", holds=[], killed=[])),
    ("out of view, and killed in view", [], "killed", MINE, stop("killed", holds=[2], killed=["run:r-1"])),
]

MARKS: Final[dict[str, Members]] = {
    "blip": {"tenant:acme": [2, 2]},
    "drained": {"run:r-1": [2, 0]},
    "two holds, one released": {"run:r-1": [3, 3]},
    "everything": {
        "capability:send_email": [2, 2],
        "run:r-1": [5, 5],
        "feature:outreach": [4, 4],
        "global": [6, 6],
        "tenant:acme": [7, 7],
    },
}


def case(
    name: str, log: str, path: Members, armed: int, capability: str | None, view: list[str] | None, expect: Members
) -> Members:
    """Return one case of the verdicts."""
    return {
        "name": name,
        "log": log,
        "path": path,
        "armed_seq": armed,
        "capability": capability,
        "tenants": view,
        "expect": expect,
    }


def verdicts() -> Members:
    """Return the vectors of the fold and its verdicts."""
    return {
        "about": "Fold the named log from the beginning, then judge one effect of one run: under a live lease, armed "
        "at armed_seq, using capability (null: the run alone). holds: the ids of every hold that blocks, in order. "
        "killed: the targets that stop it, in order. tenants: the tenants whose kills are known; null for all. "
        "marks: per target [last_kill, barrier] after the whole log.",
        "logs": LOGS,
        "marks": MARKS,
        "cases": [
            case(name, log, path, armed, capability, None, expect)
            for name, log, path, armed, capability, expect in VERDICTS
        ]
        + [case(name, log, path, 1, SEND, view, expect) for name, view, log, path, expect in VIEWS],
    }


# -- the lease -------------------------------------------------------------------------------------------------------

NORMAL: Final = Fraction(499, 500)
SLEWING: Final = Fraction(9, 10)


def until(t0_ns: int, received_at: int, read_at: int, ttl_ms: int, kept: Fraction) -> int:
    """Return when a lease ends: t0 + kept * ((read_at - received_at) + min(ttl, 5 s)), in ns."""
    span = Fraction(read_at - received_at, 1_000_000)
    ttl = min(Fraction(ttl_ms, 1_000), Fraction(5))
    end = t0_ns + kept * (span + ttl) * 1_000_000_000
    if end.denominator != 1:
        raise ValueError(f"{end} is no whole number of nanoseconds")
    return end.numerator


# name, t0_ns, received_at, read_at, ttl_ms, slewing
GRANTS: Final = [
    ("a millisecond from request to read, one second of ttl", 0, 5_000_000, 5_001_000, 1000, False),
    ("the same on a machine that has been up for a year", 31_622_400_000_000_000, 5_000_000, 5_001_000, 1000, False),
    ("the smallest span", 1_000_000_000, 7, 8, 1000, False),
    ("the smallest span and the shortest ttl", 0, 0, 1, 1, False),
    ("odd figures", 123_456_789, 1_000_001, 1_000_334, 333, False),
    ("the shortest ttl that a service may set", 0, 10, 2_010, 200, False),
    ("the longest ttl", 0, 10, 2_010, 5000, False),
    ("a longer ttl counts as five seconds", 0, 10, 2_010, 5001, False),
    ("an absurd ttl counts as five seconds", 0, 10, 2_010, 9_007_199_254_740_991, False),
    ("the longest span, fifteen seconds", 0, 0, 15_000_000, 1000, False),
    ("a node that has been up for 285 years", 0, 9_007_199_254_739_991, 9_007_199_254_740_991, 1000, False),
    ("while the clocks disagree a tenth is given up", 0, 5_000_000, 5_001_000, 1000, True),
    ("disagreeing and clamped", 7, 0, 3, 9_999, True),
]

REFUSALS: Final = [
    ("read at the moment of receiving: a stopped clock proves nothing", 5_000_000, 5_000_000, 1000),
    ("read before the request came", 5_000_000, 4_999_999, 1000),
    ("a span beyond fifteen seconds", 0, 15_000_001, 1000),
    ("no ttl", 0, 1, 0),
    ("a negative ttl", 0, 1, -1000),
]

THEN: Final = {"boot": 10**15, "real": 1_795_200_000 * 10**9, "mono": 9 * 10**14, "raw": 8 * 10**14}

# name, boot, real, mono, raw (ns passed on each clock), expected
CLOCKS: Final = [
    ("all alike", 10**9, 10**9, 10**9, 10**9, "steady"),
    ("no time at all", 0, 0, 0, 0, "steady"),
    ("asleep for nine seconds: boot and real count it", 10 * 10**9, 10 * 10**9, 10**9, 10**9, "steady"),
    ("the wall clock 100 ms ahead", 10**9, 1_100_000_000, 10**9, 10**9, "steady"),
    ("the wall clock 100 ms and 1 ns ahead", 10**9, 1_100_000_001, 10**9, 10**9, "ahead"),
    ("the lease clock stood still for an hour", 10**9, 3_601 * 10**9, 10**9, 10**9, "ahead"),
    ("the lease clock ran backwards", -1, 0, 0, 0, "ahead"),
    ("the wall clock set back by 100 ms", 10**9, 900_000_000, 10**9, 10**9, "steady"),
    ("the wall clock set back by more", 10**9, 899_999_999, 10**9, 10**9, "behind"),
    ("steered by 1/1000 and 1 ms", 10**9, 10**9, 1_002_000_000, 10**9, "steady"),
    ("steered by more than that", 10**9, 10**9, 1_002_000_001, 10**9, "slewed"),
    ("held back by more than that", 10**9, 10**9, 997_999_999, 10**9, "slewed"),
    ("slewed and ahead: the worse counts", 10**9, 2 * 10**9, 2 * 10**9, 10**9, "ahead"),
    ("slewed and behind: the worse counts", 10**9, 0, 2 * 10**9, 10**9, "slewed"),
]


def lease() -> Members:
    """Return the vectors of lease arithmetic."""
    return {
        "about": "t0_ns and lease_until_ns are on the client's lease clock, nanoseconds; received_at and read_at on "
        "the node's clock, microseconds; ttl_ms in milliseconds. lease_until = t0 + kept * ((read_at - received_at) + "
        "min(ttl, 5 s)), a whole number; kept is 499/500, or 9/10 while slewing. refused: no lease comes of it. "
        "clocks: what four clocks, read at t0 and when the frame is judged, say; boot is the lease clock.",
        "grants": [
            {
                "name": name,
                "t0_ns": t0,
                "received_at": received,
                "read_at": read,
                "ttl_ms": ttl,
                "slewing": slewing,
                "lease_until_ns": until(t0, received, read, ttl, SLEWING if slewing else NORMAL),
            }
            for name, t0, received, read, ttl, slewing in GRANTS
        ],
        "refused": [
            {"name": name, "received_at": received, "read_at": read, "ttl_ms": ttl}
            for name, received, read, ttl in REFUSALS
        ],
        "clocks": [
            {
                "name": name,
                "then": THEN,
                "now": {
                    "boot": THEN["boot"] + boot,
                    "real": THEN["real"] + real,
                    "mono": THEN["mono"] + mono,
                    "raw": THEN["raw"] + raw,
                },
                "state": state,
            }
            for name, boot, real, mono, raw, state in CLOCKS
        ],
    }


def vectors() -> dict[str, str]:
    """Return every file that stands beside this one, by name."""
    made = {"chain.json": chain(), "lease.json": lease(), "verdicts.json": verdicts()}
    return {name: json.dumps(vector, indent=2, ensure_ascii=True) + "\n" for name, vector in made.items()}


if __name__ == "__main__":
    for name, text in vectors().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
