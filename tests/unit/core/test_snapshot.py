"""A snapshot is whole or it is refused: absence of knowledge is never read as absence of kills."""

from __future__ import annotations

import copy
from typing import Any, Final

import pytest

from haltline.canonical import canonical, parse
from haltline.errors import InvalidDocument, InvalidEntry
from haltline.replica import Replica, from_snapshot
from tests.unit.core.logs import EPOCH, NAMESPACE, Log


def replica() -> Replica:
    """Return a replica with holds of both policies, a released kill, and a target with two holds."""
    log = Log()
    released = log.kill("run:r-1")
    log.revive("run:r-1", released)
    log.kill("tenant:acme", queued="drain")
    log.kill("tenant:acme", reason="caf\u00e9")
    log.kill("global", in_flight="abort", queued="drain")
    log.kill("capability:send")
    log.note("token_created")
    return log.replica()


def read(members: object) -> Replica:
    """Return the replica of a snapshot of this log."""
    return from_snapshot(members, namespace=NAMESPACE, epoch=EPOCH)


def test_a_snapshot_is_read_back_as_it_was() -> None:
    """Writing, sending and reading a replica gives an equal one."""
    made = replica()
    assert read(made.snapshot()) == made
    assert read(parse(canonical(made.snapshot()))) == made


def test_a_snapshot_says_what_the_lease_frame_promises() -> None:
    """Its members are those of the protocol, and every hold carries what an operator has to know."""
    members = replica().snapshot()
    assert set(members) == {"seq", "hash", "floor_seq", "holds", "marks"}
    assert members["seq"] == 8
    assert [hold["target"] for hold in members["holds"]] == ["capability:send", "global", "tenant:acme", "tenant:acme"]
    assert members["holds"][1] == {
        "seq": 6,
        "target": "global",
        "actor": "alice",
        "at": "2026-11-20T20:25:11.000006Z",
        "reason": "stop it",
        "in_flight": "abort",
        "queued": "drain",
        "flip_id": "k-6",
    }
    assert members["marks"] == {
        "run:r-1": [2, 2],
        "tenant:acme": [5, 5],
        "global": [6, 0],
        "capability:send": [7, 7],
    }


def test_the_order_of_the_holds_does_not_count() -> None:
    """However they are listed, a target's holds are kept in the order of their seq."""
    members = replica().snapshot()
    members["holds"].reverse()
    assert read(members) == replica()


def test_a_snapshot_of_an_empty_log() -> None:
    """Nothing is a snapshot too, and it is at the beginning."""
    assert read(Replica().snapshot()).position == Replica().position


ODD: Final[dict[str, list[Any]]] = {
    "seq": [..., None, -1, "8", True, 8.0, 6],
    "hash": [..., None, "", "0" * 63, "A" * 64, 7],
    "floor_seq": [..., None, -1, 9, "0", True],
    "holds": [..., None, {}, "", 7, [7], [None], [[]]],
    "marks": [..., None, [], "", 7],
}

ODD_HOLD: Final[dict[str, list[Any]]] = {
    "seq": [..., None, 0, -1, 9, "5", True, 5.0],
    "target": [..., None, "", "run", "run:*", "worker:w-1", 7],
    "actor": [..., None, "", "alice smith", 7],
    "at": [..., None, "", "yesterday", 7],
    "reason": [..., None, "", 7, ["why"]],
    "in_flight": [..., None, "", "stop", 7],
    "queued": [..., None, "", "keep", 7],
    "flip_id": [..., None, "", "f 1", 7],
}

ODD_MARK: Final[list[Any]] = [
    ...,
    None,
    5,
    "5,5",
    {},
    [],
    [5],
    [5, 5, 5],
    ["5", 5],
    [5, "5"],
    [True, 0],
    [5.0, 0],
    [4, 4],
    [5, 4],
    [5, 0],
    [5, 6],
    [5, -1],
    [9, 5],
    [0, 0],
]


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in ODD.items() for value in values],
    ids=lambda value: ascii(value)[:20],
)
def test_a_hole_in_a_snapshot_is_refused(name: str, value: object) -> None:
    """Each member is required and must have its shape."""
    members = replica().snapshot()
    members[name] = value
    if value is ...:
        del members[name]
    with pytest.raises(InvalidDocument):
        read(members)


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in ODD_HOLD.items() for value in values],
    ids=lambda value: ascii(value)[:20],
)
def test_a_hole_in_a_hold_is_refused(name: str, value: object) -> None:
    """Each member of each hold is required and must have its shape: one odd hold refuses the whole."""
    for index in range(4):
        members = replica().snapshot()
        members["holds"][index][name] = value
        if value is ...:
            del members["holds"][index][name]
        with pytest.raises(InvalidEntry):
            read(members)


@pytest.mark.parametrize("value", ODD_MARK, ids=ascii)
def test_a_hole_in_a_mark_is_refused(value: object) -> None:
    """A target with holds has a mark that is not older than they are, and a barrier if one of them discards."""
    members = replica().snapshot()
    members["marks"]["tenant:acme"] = value
    if value is ...:
        del members["marks"]["tenant:acme"]
    with pytest.raises(InvalidEntry):
        read(members)


@pytest.mark.parametrize("key", ["", "run", "run:*", "worker:w-1", "Global", "run:r-1\n", "capability:Send"])
def test_a_mark_of_an_unknown_target_is_refused(key: str) -> None:
    """A scope that this reader does not know could stop something: the snapshot is refused."""
    members = replica().snapshot()
    members["marks"][key] = [2, 2]
    with pytest.raises(InvalidEntry):
        read(members)


@pytest.mark.parametrize("target", ["tenant:acme", "run:r-1"])
def test_a_hold_stands_once(target: str) -> None:
    """One position of the log is one kill of one target."""
    members = replica().snapshot()
    twin = copy.deepcopy(members["holds"][-1])
    twin["target"] = target
    members["marks"]["run:r-1"] = [5, 5]
    members["holds"].append(twin)
    with pytest.raises(InvalidEntry, match="twice"):
        read(members)


@pytest.mark.parametrize("value", [None, [], "", 7, True], ids=ascii)
def test_a_snapshot_is_an_object(value: object) -> None:
    """Anything but a JSON object is refused."""
    with pytest.raises(InvalidDocument):
        read(value)


def test_the_beginning_has_no_hash() -> None:
    """Position 0 is before the first entry: it has no hash but the 64 zeros."""
    members = {**Replica().snapshot(), "hash": "f" * 64}
    with pytest.raises(InvalidEntry):
        read(members)


@pytest.mark.parametrize(("namespace", "epoch"), [("Default", EPOCH), ("", EPOCH), (NAMESPACE, ""), (NAMESPACE, "x")])
def test_a_snapshot_of_no_log_is_refused(namespace: str, epoch: str) -> None:
    """Whose log it is must be known and well formed."""
    with pytest.raises(InvalidEntry):
        from_snapshot(replica().snapshot(), namespace=namespace, epoch=epoch)


def test_the_floor_is_kept() -> None:
    """Below which position marks may be missing travels with the snapshot and stays through later entries."""
    log = Log()
    log.kill("run:r-1")
    base = read({**log.replica().snapshot(), "floor_seq": 2})
    log.kill("run:r-2")
    assert base.extend(log.entries()).floor_seq == 2
    assert read(base.snapshot()) == base
