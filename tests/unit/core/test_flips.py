"""What a log entry must be to be taken as one."""

from __future__ import annotations

from typing import Any, Final

import pytest

from haltline.canonical import canonical
from haltline.errors import InvalidDocument, InvalidEntry
from haltline.flips import (
    GENESIS_HASH,
    VERSION,
    Kill,
    Note,
    Position,
    Revive,
    Stub,
    entry_hash,
    is_epoch,
    is_hash,
    is_moment,
    parse_entry,
    parse_stub,
    seal,
)
from haltline.scopes import parse_target
from tests.unit.core.logs import EPOCH, NAMESPACE, Log


def entries() -> dict[str, dict[str, Any]]:
    """Return one sound entry of each kind, each at position 3 or above."""
    log = Log()
    first, second = log.kill("run:r-1"), log.kill("run:r-1", queued="drain", in_flight="abort")
    log.revive("run:r-1", first, second)
    log.note("token_created", token_id="a" * 12, subject="bob", role="worker")
    kill, revive, note = log.members[2], log.members[3], log.members[4]
    return {"kill": kill, "revive": revive, "note": note}


def resealed(kind: str, /, **changes: Any) -> dict[str, Any]:
    """Return an entry with members changed (``...`` takes one out) and a hash that fits them again."""
    members = {**entries()[kind], **changes}
    members = {name: value for name, value in members.items() if value is not ...}
    members["hash"] = entry_hash(members)
    return members


def test_a_kill_is_read_whole() -> None:
    """Every member of a kill is found again in its entry."""
    members = entries()["kill"]
    assert parse_entry(members, namespace=NAMESPACE, epoch=EPOCH) == Kill(
        Position(3, members["hash"]),
        members["prev_hash"],
        "2026-11-20T20:25:11.000003Z",
        "alice",
        "k-3",
        parse_target("run:r-1"),
        "stop it",
        "abort",
        "drain",
    )


def test_a_revive_is_read_whole() -> None:
    """Every member of a revive is found again in its entry."""
    members = entries()["revive"]
    assert parse_entry(members) == Revive(
        Position(4, members["hash"]),
        members["prev_hash"],
        "2026-11-20T20:25:11.000004Z",
        "alice",
        "r-4",
        parse_target("run:r-1"),
        "mended",
        (2, 3),
    )


def test_a_note_is_read_whole() -> None:
    """A note keeps its topic; what else it says is hashed but not looked at."""
    members = entries()["note"]
    note = parse_entry(members)
    assert note == Note(
        Position(5, members["hash"]), members["prev_hash"], "2026-11-20T20:25:11.000005Z", "alice", "token_created"
    )


ODD: Final[dict[str, list[Any]]] = {
    "v": [..., None, 0, -1, "1", True, 1.0, [1]],
    "namespace": [..., None, "", "Default", "a_b", 7, "default\n"],
    "epoch": [..., None, "", "0123456789ABCDEF", "0123456789abcde", "0123456789abcdef0", 7, "0123456789abcdef\n"],
    "seq": [..., None, 0, -1, "3", True, 2**53, [3]],
    "kind": [..., None, "", "Kill", "kill ", "pause", 7, True, ["kill"], {"kill": 1}],
    "at": [
        ...,
        None,
        "",
        1.5,
        "2026-11-20T20:25:11Z",
        "2026-11-20T20:25:11.123Z",
        "2026-11-20T20:25:11.123456+00:00",
        "2026-11-20 20:25:11.123456Z",
        "2026-11-20T20:25:11.123456Z\n",
        "2026-11-20T20:25:11.12345\u0666Z",
    ],
    "actor": [..., None, "", "alice smith", "\u0430lice", 7, "a" * 129, "alice\n"],
    "prev_hash": [..., None, "", "0" * 63, "A" * 64, "0" * 65, 0, "0" * 64 + "\n"],
}

ODD_FLIP: Final[dict[str, list[Any]]] = {
    "target": [..., None, "", "run", "run:", "run:*", "worker:w-1", "Global", 7, ["run:r-1"], "run:r-1\n"],
    "flip_id": [..., None, "", "f 1", 7, "a" * 129],
    "reason": [..., None, "", 7, ["why"]],
}

ODD_KILL: Final[dict[str, list[Any]]] = {
    "in_flight": [..., None, "", "Abort", "stop", 7, ["abort"]],
    "queued": [..., None, "", "keep", True, {"discard": 1}],
}

ODD_REVIVE: Final[dict[str, list[Any]]] = {
    "holds": [
        ...,
        None,
        [],
        2,
        "2",
        [0],
        [-2],
        ["2"],
        [True],
        [2, None],
        [3, 2],
        [2, 2],
        [2, 4],
        [4],
        [5],
        {"2": 3},
        [[2]],
    ],
}

CASES: Final = [
    (kind, name, value)
    for kind, odd in (
        ("kill", {**ODD, **ODD_FLIP, **ODD_KILL}),
        ("revive", {**ODD, **ODD_FLIP, **ODD_REVIVE}),
        ("note", {**ODD, "topic": [..., None, "", 7, ["log_opened"]]}),
    )
    for name, values in odd.items()
    for value in values
]


@pytest.mark.parametrize(
    ("kind", "name", "value"), CASES, ids=[f"{kind}-{name}-{ascii(value)[:24]}" for kind, name, value in CASES]
)
def test_a_missing_or_odd_member_is_refused(kind: str, name: str, value: object) -> None:
    """Each member is required and must have its shape, also where the hash fits the odd one."""
    members = {**entries()[kind], name: value}
    if value is ...:
        del members[name]
    try:
        members["hash"] = entry_hash(members)
    except InvalidDocument:  # a value that has no canonical form has no hash that fits
        members["hash"] = "0" * 64
    with pytest.raises(InvalidEntry):
        parse_entry(members)


@pytest.mark.parametrize("value", [..., None, "", "0" * 64, "f" * 63, 7, "upper"], ids=ascii)
@pytest.mark.parametrize("kind", ["kill", "revive", "note"])
def test_a_missing_or_false_hash_is_refused(kind: str, value: object) -> None:
    """An entry without its own hash, in lower case, is no entry."""
    members = entries()[kind]
    if value is ...:
        del members["hash"]
    else:
        members["hash"] = members["hash"].upper() if value == "upper" else value
    with pytest.raises(InvalidEntry):
        parse_entry(members)


@pytest.mark.parametrize("kind", ["kill", "revive", "note"])
def test_an_altered_member_is_noticed(kind: str) -> None:
    """Changing, adding or removing any member, known or not, breaks the hash."""
    sound = entries()[kind]
    parse_entry(sound)
    for name in sound:
        with pytest.raises(InvalidEntry):
            parse_entry({**sound, name: f"{sound[name]}x" if isinstance(sound[name], str) else 1_000})
    with pytest.raises(InvalidEntry, match="altered"):
        parse_entry({**sound, "drill": True})


@pytest.mark.parametrize("kind", ["kill", "revive", "note"])
def test_a_newer_version_is_refused(kind: str) -> None:
    """A reader does not guess what a newer entry means: that is a stop, and the message says to update."""
    with pytest.raises(InvalidEntry, match="newer than this reader"):
        parse_entry(resealed(kind, v=VERSION + 1))


def test_an_unknown_kind_is_refused() -> None:
    """A reader does not pass over a kind it does not know: it could stop something."""
    with pytest.raises(InvalidEntry, match="kind 'pause' is unknown"):
        parse_entry(resealed("kill", kind="pause"))


def test_an_unknown_member_is_covered_by_the_hash_and_let_be() -> None:
    """A later version may add members: an older reader hashes them and goes on."""
    assert isinstance(parse_entry(resealed("kill", release="1.4.2", tags=["a", {"b": None}])), Kill)


@pytest.mark.parametrize(
    "extra", [{"weight": 0.5}, {"n": 2**53}, {"s": "\ud800"}, {"caf\u00e9": 1}, {"d": [[[[[[[[0]]]]]]]]}], ids=ascii
)
def test_a_member_without_canonical_form_is_refused(extra: dict[str, Any]) -> None:
    """What cannot be hashed cannot be proven."""
    with pytest.raises(InvalidDocument):
        parse_entry({**entries()["kill"], **extra})


@pytest.mark.parametrize("value", [None, [], "kill", 7, [1, 2]], ids=ascii)
def test_an_entry_is_an_object(value: object) -> None:
    """Anything but a JSON object is refused."""
    with pytest.raises(InvalidEntry):
        parse_entry(value)


def test_an_entry_of_another_log_is_refused() -> None:
    """Namespace and epoch must be those the caller knows."""
    members = entries()["kill"]
    with pytest.raises(InvalidEntry, match="namespace default, not staging"):
        parse_entry(members, namespace="staging")
    with pytest.raises(InvalidEntry, match="of epoch 0123456789abcdef, not"):
        parse_entry(members, epoch="f" * 16)


def test_the_message_of_a_huge_seq_is_short() -> None:
    """An integer too large to print is refused like any other."""
    with pytest.raises(InvalidEntry) as caught:
        parse_entry({**entries()["kill"], "seq": 10**5000})
    assert len(str(caught.value)) < 100


def test_a_stub_is_a_place_and_nothing_else() -> None:
    """A stub has exactly seq and hash, both well formed."""
    assert parse_stub({"seq": 7, "hash": "a" * 64}) == Stub(Position(7, "a" * 64))
    for members in (
        {},
        {"seq": 7},
        {"hash": "a" * 64},
        {"seq": 0, "hash": "a" * 64},
        {"seq": True, "hash": "a" * 64},
        {"seq": "7", "hash": "a" * 64},
        {"seq": 7, "hash": "A" * 64},
        {"seq": 7, "hash": None},
        {"seq": 7, "hash": "a" * 64, "kind": "kill"},
        {"seq": 7, "prev_hash": "a" * 64},
    ):
        with pytest.raises(InvalidEntry):
            parse_stub(members)


def test_the_hash_covers_the_canonical_bytes() -> None:
    """An entry's hash does not depend on the order of its members, and leaves out only itself."""
    members = entries()["kill"]
    turned = dict(reversed(members.items()))
    assert entry_hash(turned) == entry_hash(members) == members["hash"]
    assert entry_hash({**members, "hash": "x"}) == members["hash"]
    assert b'"hash"' not in canonical({name: members[name] for name in members if name != "hash"})


def test_sealing_continues_a_position() -> None:
    """The sealed entry follows the position given, whatever seq or hash its members claimed."""
    start = Position()
    sealed = seal({"a": 1, "seq": 99, "hash": "x", "prev_hash": "y"}, after=start)
    assert (sealed["seq"], sealed["prev_hash"]) == (1, GENESIS_HASH)
    assert sealed["hash"] == entry_hash(sealed)
    assert seal({"a": 1}, after=Position(1, sealed["hash"]))["prev_hash"] == sealed["hash"]


@pytest.mark.parametrize(
    ("check", "good"),
    [(is_hash, "0a" * 32), (is_epoch, "0a" * 8), (is_moment, "2026-11-20T20:25:11.123456Z")],
)
def test_the_small_grammars(check: Any, good: str) -> None:
    """Hash, epoch and moment are matched whole, in ASCII, in lower case."""
    assert check(good)
    for bad in (f"{good}\n", f" {good}", good[:-1], good + good[-1], good.replace("0", "\u0660"), None, 7, b"0" * 64):
        assert not check(bad)


def test_moments_sort_as_text() -> None:
    """Six fraction digits and one zone: the order of the text is the order of the time."""
    moments = ["2026-11-20T20:25:11.000009Z", "2026-11-20T20:25:11.000010Z", "2026-11-20T20:25:12.000000Z"]
    assert sorted([moments[2], moments[0], moments[1]]) == moments
