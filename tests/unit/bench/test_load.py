"""What the benchmarks feed to what they measure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.storage import open_store
from bench.agent import CAPABILITY, agent, others
from bench.clients import Unexpected, answered, requests
from bench.long_log import write
from haltline.flips import Position, follow
from haltline.replica import Replica, from_snapshot


def test_the_agent_goes_and_others_are_killed() -> None:
    """What is measured is the passing check of a live lease beside active kills."""
    with agent(40) as run:
        run.check(CAPABILITY)
        assert run.armed_seq == 41


def test_the_other_kills_are_a_whole_snapshot() -> None:
    """A replica of so many kills travels as a snapshot and comes back the same."""
    replica = others(40)
    assert len(replica.holds) == 40
    assert from_snapshot(replica.snapshot(), namespace=replica.namespace, epoch=replica.epoch) == replica


def test_the_long_log_is_what_the_service_would_have_written(tmp_path: Path) -> None:
    """Its chain holds, and its tables are what its entries fold to."""
    path = tmp_path / "haltline.db"
    end = write(path, 50)
    store = open_store(f"sqlite:///{path}")
    try:
        rows = store.export(after=0, up_to=end.seq, limit=100)
        entries = list(follow((json.loads(row.body) for row in rows), after=Position()))
        found = store.load(remember_since="2026-01-01T00:00:00.000000Z")
        head, replica = found.head, found.replica
    finally:
        store.close()
    assert len(entries) == 50
    assert head.position == entries[-1].position == end
    folded = Replica(replica.namespace, replica.epoch).extend(entries)
    assert (dict(folded.holds), dict(folded.marks)) == (dict(replica.holds), dict(replica.marks))


def test_a_log_of_kills_alone_has_as_many_holds(tmp_path: Path) -> None:
    """Nothing is revived where many active kills are asked for."""
    path = tmp_path / "haltline.db"
    write(path, 50, revived=False)
    store = open_store(f"sqlite:///{path}")
    try:
        found = store.load(remember_since="2026-01-01T00:00:00.000000Z")
        replica = found.replica
    finally:
        store.close()
    assert len(replica.holds) == 49  # the first entry is none


def test_every_request_has_a_nonce_of_its_own() -> None:
    """No two lease requests of the load could be answered by one reply."""
    asking = requests("secret", {"epoch": None, "seq": 0, "hash": None})
    bodies = [json.loads(next(asking).partition(b"\r\n\r\n")[2]) for _ in range(3)]
    assert len({body["nonce"] for body in bodies}) == 3


def test_a_reply_counts_once_it_is_whole() -> None:
    """Half a reply is no renewal."""
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
    assert answered(reply[:20]) is None
    assert answered(reply + b"ab") is None
    assert answered(reply + b"abcd") == (200, b"abcd")


def test_a_busy_service_is_told_from_a_renewal() -> None:
    """A request for which there was no place is answered, and counts as refused."""
    assert answered(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}") == (503, b"{}")


@pytest.mark.parametrize(
    "reply", [b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"]
)
def test_anything_else_ends_the_load(reply: bytes) -> None:
    """The load ends with an error rather than count what was not granted."""
    with pytest.raises(Unexpected):
        answered(reply)
