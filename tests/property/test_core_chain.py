"""The chain's law: given one head that was written down outside, no change of the log goes unnoticed."""

from __future__ import annotations

import copy
from typing import Any, Final

import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from haltline.canonical import canonical, parse
from haltline.errors import ChainBroken, InvalidDocument
from haltline.flips import Position, follow, seal
from tests.support.counts import NIGHTLY
from tests.unit.core.logs import Log

pytestmark = pytest.mark.timeout(1_800 if NIGHTLY else 60)  # the full counts take minutes


def _log() -> Log:
    log = Log()
    first = log.kill("run:r-1", reason='caf\u00e9 \U0001f6d1 \\ "quoted"')
    second = log.kill("run:r-1", queued="drain", in_flight="abort")
    log.note("token_created", token_id="abcdef012345", subject="bob", role="worker", tenants=["acme", "umbrella"])
    log.kill("tenant:acme")
    log.revive("run:r-1", first, second)
    log.kill("capability:send_email")
    log.kill("global")
    log.note("token_revoked", token_id="abcdef012345", expired=None, asked=True)
    log.revive("global", 8)
    return log


LOG: Final = _log()
LINES: Final = LOG.lines()
HEAD: Final = LOG.head

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 12),
    st.sampled_from(["", "kill", "revive", "note", "global", "run:r-2", "mallory", "0" * 64, "f" * 64]),
    st.text(max_size=4),
)


def verified(lines: list[bytes]) -> bool:
    """Return whether a log verifies and passes through the head that was seen outside."""
    try:
        positions = [entry.position for entry in follow((parse(line) for line in lines), after=Position())]
    except (ChainBroken, InvalidDocument):
        return False
    return HEAD in positions


def rechained(members: list[dict[str, Any]], at: int) -> list[dict[str, Any]]:
    """Return the log with every hash from ``at`` on made to fit again, as a forger would."""
    position = Position(members[at - 1]["seq"], members[at - 1]["hash"]) if at else Position()
    mended = members[:at]
    for entry in members[at:]:
        mended.append(seal(entry, after=position))
        position = Position(mended[-1]["seq"], mended[-1]["hash"])
    return mended


@st.composite
def altered(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Return the log with one member changed, added or removed, and perhaps hashes that fit again."""
    members = copy.deepcopy(LOG.members)
    at = draw(st.integers(0, len(members) - 1))
    entry = members[at]
    name = draw(st.sampled_from([*entry, "drill", "release"]))
    if draw(st.booleans()) and name in entry:
        del entry[name]
    else:
        entry[name] = draw(scalars)
    mend = draw(st.sampled_from(["nothing", "the entry", "all that follow"]))
    event(f"altered, mended: {mend}")
    if mend == "the entry":
        before = Position(at, LOG.members[at]["prev_hash"])
        members[at] = seal(entry, after=before)
    elif mend == "all that follow":
        members = rechained(members, at)
    return members


@st.composite
def rearranged(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Return the log with entries dropped, swapped, doubled, inserted or cut off, perhaps chained anew."""
    members = copy.deepcopy(LOG.members)
    at, other = draw(st.integers(0, len(members) - 1)), draw(st.integers(0, len(members) - 1))
    what = draw(st.sampled_from(["drop", "swap", "double", "insert", "truncate", "cut off the beginning"]))
    event(what)
    if what == "drop":
        del members[at]
    elif what == "swap":
        assume(at != other)
        members[at], members[other] = members[other], members[at]
    elif what == "double":
        members.insert(at, members[other])
    elif what == "insert":
        before = Position(at, members[at]["prev_hash"])
        members.insert(at, seal({**members[other], "actor": "mallory"}, after=before))
    elif what == "truncate":
        members = members[:at]
    else:
        members = members[at + 1 :]
    mend = draw(st.booleans())
    if members and mend:
        event("and chained anew")
        members = rechained(members, 0)
    return members


@st.composite
def flipped(draw: st.DrawFn) -> list[bytes]:
    """Return the exported lines with one byte changed."""
    lines = list(LINES)
    at = draw(st.integers(0, len(lines) - 1))
    line = bytearray(lines[at])
    line[draw(st.integers(0, len(line) - 1))] ^= draw(st.integers(1, 255))
    lines[at] = bytes(line)
    event("a byte")
    return lines


def written(members: list[dict[str, Any]]) -> list[bytes]:
    """Return entries as lines."""
    return [canonical(entry) for entry in members]


def test_the_log_itself_verifies() -> None:
    """Untouched, the log passes through its head, and so it does when it has grown."""
    assert verified(LINES)
    grown = copy.deepcopy(LOG)
    grown.kill("run:r-9")
    assert verified(grown.lines())


@settings(max_examples=10_000 if NIGHTLY else 1_000)
@given(st.one_of(altered().map(written), rearranged().map(written), flipped()))
def test_every_change_is_noticed(lines: list[bytes]) -> None:
    """Altered, dropped, swapped, doubled, inserted, cut off, chained anew: 100 % are found with one outside head."""
    assume(lines[: len(LINES)] != LINES)  # more of the log behind the head is no change: it is what comes next
    assert not verified(lines)


def test_every_single_bit_is_covered() -> None:
    """Turning any one bit of the exported log is noticed."""
    for at, line in enumerate(LINES):
        for index in range(len(line)):
            for bit in range(8) if NIGHTLY else (index % 8,):
                changed = bytearray(line)
                changed[index] ^= 1 << bit
                assert not verified([*LINES[:at], bytes(changed), *LINES[at + 1 :]])
