"""Frames: snapshot or continuation, whole and contiguous, and what each view is shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.service.frames import Foreign, Frames, LeaseRequest, Regress, View
from app.service.published import Published, Tail, kept
from app.service.snapshots import BEHIND
from haltline.canonical import canonical
from haltline.flips import Position, parse_entry, parse_stub, seal
from haltline.replica import Replica, from_snapshot
from tests.unit.service.fakes import EPOCH, NAMESPACE, MemoryStore

FRAMES = Frames(namespace=NAMESPACE, timebase="tb")


def state(*, base: int = 0) -> Published:
    """Return a published log of a note and kills of acme, other, r-1 and everything, its tail from ``base`` on."""
    store = MemoryStore()
    store.append("note", topic="log_opened", ttl_ms=1_000)
    for number, target in enumerate(("tenant:acme", "tenant:other", "run:r-1", "global")):
        store.append(
            "kill",
            target=target,
            flip_id=f"f-{number}",
            reason=f"why {number}",
            in_flight="finish",
            queued="discard",
        )
    entries = [kept(parse_entry(json.loads(row.body)), row.body) for row in store.rows[base:]]
    before = store.rows[base - 1].position if base else Position()
    return Published(store.replica, Tail(before, [], 0).grown(entries), store.ttl, 2_000)


def ask(published: Published, seq: int) -> LeaseRequest:
    """Return the request of a worker that has applied the log up to ``seq``."""
    if seq == 0:
        return LeaseRequest("nonce-1", None, 0, None)
    known = published.tail.position(seq)
    return LeaseRequest("nonce-1", EPOCH, seq, known.hash if known is not None else "b" * 64)


def frame(published: Published, request: LeaseRequest, view: View = None) -> dict[str, Any]:
    """Return the frame that answers a request."""
    made = FRAMES.frame(published, request, view=view, received_at_us=1_500)
    assert isinstance(made, bytes)
    members = json.loads(made)
    assert isinstance(members, dict)
    return members


def replayed(start: Replica, members: dict[str, Any]) -> Replica:
    """Return the replica of a worker that applies a frame."""
    entries = [
        parse_stub(each) if set(each) == {"seq", "hash"} else parse_entry(each, namespace=NAMESPACE, epoch=EPOCH)
        for each in members["entries"]
    ]
    return start.extend(entries)


def test_a_worker_that_knows_nothing_gets_a_snapshot() -> None:
    """Without a position the whole fold comes, and the frame's own position is the snapshot's."""
    published = state()
    members = frame(published, ask(published, 0))
    assert members["from"] == members["seq"] == members["snapshot"]["seq"] == 5
    assert members["entries"] == []
    folded = from_snapshot(members["snapshot"], namespace=NAMESPACE, epoch=EPOCH)
    assert folded.position == published.replica.position
    assert dict(folded.holds) == dict(published.replica.holds)


def test_what_every_frame_says() -> None:
    """A frame repeats the nonce, and names its log, its clock, both dates and the ttl."""
    published = state()
    members = frame(published, ask(published, 5))
    assert "snapshot" not in members
    assert {name: members[name] for name in ("v", "namespace", "timebase", "epoch", "nonce", "ttl_ms")} == {
        "v": 1,
        "namespace": NAMESPACE,
        "timebase": "tb",
        "epoch": EPOCH,
        "nonce": "nonce-1",
        "ttl_ms": 1_000,
    }
    assert (members["read_at"], members["received_at"]) == (2_000, 1_500)
    assert (members["from"], members["seq"], members["entries"]) == (5, 5, [])


@pytest.mark.parametrize("seq", [1, 2, 3, 4])
def test_a_known_position_is_continued(seq: int) -> None:
    """A worker that is behind gets exactly the entries it lacks, kills in full, and arrives at the same fold."""
    published = state()
    members = frame(published, ask(published, seq))
    assert members["from"] == seq
    assert [each["seq"] for each in members["entries"]] == list(range(seq + 1, 6))
    known = published.tail.position(seq)
    assert known is not None
    after = replayed(Replica(NAMESPACE, EPOCH, known), members)
    assert after.position == published.replica.position


def test_a_position_older_than_the_tail_gets_a_snapshot() -> None:
    """What the node no longer has in memory is answered with a snapshot, never with a gap, if the log has it so."""
    whole, published = state(), state(base=3)
    made = FRAMES.frame(published, ask(whole, 2), view=None, received_at_us=1_500, past=whole.tail.position)
    assert isinstance(made, bytes)
    assert json.loads(made)["from"] == json.loads(made)["snapshot"]["seq"] == 5
    assert frame(published, ask(published, 3))["from"] == 3


@pytest.mark.parametrize("digest", ["a" * 64, None])
def test_a_history_that_differs_before_the_tail_is_a_regress(digest: str | None) -> None:
    """Whoever remembers an old position otherwise, or one that the log does not have, gets no snapshot."""
    whole, published = state(), state(base=3)
    told = LeaseRequest("n", EPOCH, 2, digest if digest is not None else ask(whole, 2).hash)
    past = whole.tail.position if digest is not None else lambda _: None
    assert isinstance(FRAMES.frame(published, told, view=None, received_at_us=1, past=past), Regress)
    assert isinstance(FRAMES.frame(published, told, view=None, received_at_us=1), Regress)


def test_notes_travel_as_stubs() -> None:
    """A note is no worker's business: its place in the chain travels, nothing else."""
    store = MemoryStore()
    row = store.append("note", topic="log_opened")
    entry = kept(parse_entry(json.loads(row.body)), row.body)
    published = Published(store.replica, Tail(Position(), [], 0).grown([entry]), store.ttl, 2_000)
    request = LeaseRequest("nonce-1", EPOCH, 1, row.position.hash)
    assert frame(published, request)["entries"] == []
    assert json.loads(published.tail.after(0)[0].stub) == {"seq": 1, "hash": row.position.hash}


def test_other_tenants_travel_as_stubs() -> None:
    """A bound worker sees its tenant, runs and global in full, and of another tenant only that there was an entry."""
    published = state()
    members = frame(published, ask(published, 1), view=("acme",))
    assert [each.get("target") for each in members["entries"]] == ["tenant:acme", None, "run:r-1", "global"]
    assert set(members["entries"][1]) == {"seq", "hash"}
    assert "other" not in json.dumps(members)
    assert "why 1" not in json.dumps(members)


def test_snapshots_leave_other_tenants_out() -> None:
    """A bound worker's snapshot has neither holds nor marks of another tenant, and is whole otherwise."""
    published = state()
    members = frame(published, ask(published, 0), view=("acme",))
    assert {each["target"] for each in members["snapshot"]["holds"]} == {"tenant:acme", "run:r-1", "global"}
    assert set(members["snapshot"]["marks"]) == {"tenant:acme", "run:r-1", "global"}
    folded = from_snapshot(members["snapshot"], namespace=NAMESPACE, epoch=EPOCH)
    assert folded.position == published.replica.position


def test_views_do_not_mix() -> None:
    """What was built for one view or position is never sent to another, nor kept for another state."""
    frames = Frames(namespace=NAMESPACE, timebase="tb")
    first, second = state(), state(base=2)
    views: list[View] = [None, ("acme",), ("other",), ("acme", "other")]
    for published in (first, second, first):
        for view in views:
            for seq in (0, 3, 4, 5):
                request = ask(published, seq)
                fresh = Frames(namespace=NAMESPACE, timebase="tb")
                expected = fresh.frame(published, request, view=view, received_at_us=7)
                for _ in range(2):
                    assert frames.frame(published, request, view=view, received_at_us=7) == expected


def test_another_epoch_is_foreign() -> None:
    """A worker of another log is told so."""
    published = state()
    request = LeaseRequest("n", "f" * 16, 5, published.replica.position.hash)
    assert isinstance(FRAMES.frame(published, request, view=None, received_at_us=1), Foreign)


@pytest.mark.parametrize(("seq", "digest"), [(6, "a" * 64), (5, "a" * 64), (2, "a" * 64), (0, "a" * 64)])
def test_a_history_that_differs_is_a_regress(seq: int, digest: str) -> None:
    """A worker that is ahead of the log, or has another hash at a position, is told so."""
    published = state()
    request = LeaseRequest("n", EPOCH, seq, digest)
    assert isinstance(FRAMES.frame(published, request, view=None, received_at_us=1), Regress)


def test_nonces_cannot_break_out() -> None:
    """Whatever a nonce holds stays inside its text."""
    published = state()
    made = FRAMES.frame(published, LeaseRequest('","read_at":9e9,"x":"', None, 0, None), view=None, received_at_us=1)
    assert isinstance(made, bytes)
    assert json.loads(made)["nonce"] == '","read_at":9e9,"x":"'
    assert json.loads(made)["read_at"] == 2_000


def test_a_snapshot_is_kept_for_those_who_come_next() -> None:
    """The next worker without a position gets the same snapshot, and the entries that came since: the same fold."""
    frames = Frames(namespace=NAMESPACE, timebase="tb")
    before = state()
    first = frames.frame(before, ask(before, 0), view=None, received_at_us=1)
    assert isinstance(first, bytes)
    grown = before
    for number in range(3):
        body = _kill(grown.replica.position, f"run:more-{number}")
        entry = parse_entry(json.loads(body))
        grown = Published(
            grown.replica.extend([entry]), grown.tail.grown([kept(entry, body)]), grown.ttl, grown.read_at_us + 1
        )
    second = frames.frame(grown, ask(grown, 0), view=None, received_at_us=1)
    assert isinstance(second, bytes)
    told = [json.loads(each) for each in (first, second)]
    assert told[0]["snapshot"] == told[1]["snapshot"]
    assert (told[1]["from"], told[1]["seq"], len(told[1]["entries"])) == (5, 8, 3)
    start = from_snapshot(told[1]["snapshot"], namespace=NAMESPACE, epoch=EPOCH)
    assert replayed(start, told[1]).holds == grown.replica.holds


def test_an_old_snapshot_is_made_anew() -> None:
    """One that is too far behind, or that the tail does not continue, is not sent."""
    frames = Frames(namespace=NAMESPACE, timebase="tb")
    grown = state()
    frames.frame(grown, ask(grown, 0), view=None, received_at_us=1)
    entries = []
    position = grown.replica.position
    for number in range(BEHIND + 1):
        body = _kill(position, f"run:more-{number}")
        entry = parse_entry(json.loads(body))
        entries.append((entry, body))
        position = entry.position
    replica = grown.replica.extend(entry for entry, _ in entries)
    tail = grown.tail.grown([kept(entry, body) for entry, body in entries])
    made = frames.frame(Published(replica, tail, grown.ttl, 3), ask(grown, 0), view=None, received_at_us=1)
    assert isinstance(made, bytes)
    assert json.loads(made)["from"] == json.loads(made)["seq"] == position.seq
    elsewhere = Tail(position, [], 0)
    made = frames.frame(Published(replica, elsewhere, grown.ttl, 4), ask(grown, 0), view=None, received_at_us=1)
    assert isinstance(made, bytes)
    assert json.loads(made)["from"] == position.seq


def _kill(after: Position, target: str) -> str:
    members = {
        "v": 1,
        "namespace": NAMESPACE,
        "epoch": EPOCH,
        "kind": "kill",
        "at": "2027-01-15T08:00:00.000000Z",
        "actor": "ada",
        "flip_id": f"f-{target.partition(':')[2]}",
        "target": target,
        "reason": "why",
        "in_flight": "finish",
        "queued": "discard",
    }
    return canonical(seal(members, after=after)).decode()
