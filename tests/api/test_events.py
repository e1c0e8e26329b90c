"""The log as it grows: every entry once, in order, proven, and only what its reader may see."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from app.service.places import AT_ONCE
from app.service.store import Head
from haltline.flips import Position, follow
from tests.api.desk import Desk, members, open_desk, problem
from tests.api.reader import Reader
from tests.support.counts import SEED
from tests.unit.service.fakes import MemoryStore

KILLS: Final = 200
KILLERS: Final = 4
FOLLOWERS: Final = 3


@pytest.fixture
def either(tmp_path: Path, database_url: str) -> Iterator[Desk]:
    """Yield a service on SQLite, and on PostgreSQL in turn."""
    made = open_desk(tmp_path, url=database_url)
    yield made
    made.close()


def exported(desk: Desk) -> list[dict[str, Any]]:
    """Return the log as the export has it, its chain verified."""
    with desk.call("GET", "/v1/log/export", who="operator") as response:
        entries = [json.loads(line) for line in response.get_data().splitlines()]
    assert len(list(follow(entries, after=Position()))) == len(entries)
    return entries


def test_the_stream_as_it_is_sent(desk: Desk) -> None:
    """The exact bytes: a retry and the position first, then id, kind and the entry as it was hashed."""
    with Reader(desk, 0) as reader:
        assert reader.reply.content_type == "text/event-stream"
        assert reader.reply.headers["Cache-Control"] == "no-store"
        assert reader.reply.headers["X-Accel-Buffering"] == "no"
        assert reader.reply.headers["Haltline-After"] == f"0:{'0' * 64}"
        chunks = iter(reader.reply.response)
        assert next(chunks) == b"retry: 1000\nid: 0\n\n"
        whole = next(chunks)
    lines = desk.call("GET", "/v1/log/export").get_data().splitlines()
    assert whole == b"".join(b"id: %d\nevent: note\ndata: %s\n\n" % pair for pair in enumerate(lines, 1))


def test_it_begins_with_what_comes_next(either: Desk) -> None:
    """Without a position a stream says where it begins, tells nothing older, and tells what is written from then on."""
    head = members(either.kill(who="operator"))
    with Reader(either) as reader:
        assert reader.reply.headers["Haltline-After"] == f"{head['seq']}:{head['hash']}"
        begins = next(iter(reader))
        assert (begins.id, begins.data) == (head["seq"], None)
        seqs = [members(either.kill(f"run:r-{number}", who="operator"))["seq"] for number in range(3)]
        assert [entry["seq"] for entry in reader.entries(3)] == seqs == [head["seq"] + each for each in (1, 2, 3)]


def test_header_and_query_mean_the_same(desk: Desk) -> None:
    """The last entry may be named in the header, in the query, or in both alike."""
    desk.kill()
    for path, headers in (
        ("/v1/events?after=9", {}),
        ("/v1/events", {"Last-Event-ID": "9"}),
        ("/v1/events?after=9", {"Last-Event-ID": "9"}),
    ):
        with desk.call("GET", path, headers=headers) as response:
            chunks = iter(response.response)
            assert next(chunks) == b"retry: 1000\nid: 9\n\n"
            assert bytes(next(chunks)).startswith(b"id: 10\nevent: kill\n")  # type: ignore[arg-type]  # bytes


@pytest.mark.parametrize(
    "sent",
    ["", " ", "x", "-1", "+1", "1.0", "01", "00", "1,2", "9" * 17, "9" * 300, "٣", "1;2", "null", "0x1"],
)
def test_malformed_positions(shared: Desk, sent: str) -> None:
    """A Last-Event-ID that is no position is refused and never read as one."""
    response = shared.call("GET", "/v1/events", headers={"Last-Event-ID": sent.encode().decode("latin-1")})
    told = problem(response, "malformed_header")
    assert "Last-Event-ID" in told["detail"]


def test_positions_that_cannot_be(shared: Desk) -> None:
    """Two positions that differ are 422; one behind the end of the log is a regress, and says where the log ends."""
    for path in ("/v1/events?after=x", "/v1/events?after=-1", "/v1/events?after=1&after=1", "/v1/events?since=1"):
        problem(shared.call("GET", path), "invalid_fields")
    told = problem(shared.call("GET", "/v1/events?after=3", headers={"Last-Event-ID": "4"}), "invalid_fields")
    assert set(told["errors"]) == {"after"}
    for beyond in ("10", "9007199254740991", "9" * 16):
        told = problem(shared.call("GET", "/v1/events", headers={"Last-Event-ID": beyond}), "regress")
        assert "ends at 9" in told["detail"]


def test_nothing_is_missed_or_doubled_under_load(either: Desk) -> None:
    """200 kills by 4 threads, 3 readers that leave and come back all the time: each sees exactly the log."""
    first = len(exported(either))
    final = first + KILLS

    def killing(killer: int) -> None:
        for number in range(KILLS // KILLERS):
            assert either.kill(f"run:r-{killer}-{number}", who="operator").status_code == 201

    def reading(follower: int) -> list[dict[str, Any]]:
        draw = random.Random(f"{SEED}-{follower}")
        seen: list[dict[str, Any]] = []
        while len(seen) < final:
            if seen and draw.random() < 0.3:
                # From somewhere before: what is told again is what was told.
                back = draw.randrange(len(seen))
                with Reader(either, back, who="operator") as reader:
                    again = reader.entries(min(draw.randint(1, 20), len(seen) - back))
                assert again == seen[back : back + len(again)]
            with Reader(either, len(seen), who="operator") as reader:
                seen += reader.entries(min(draw.randint(1, 30), final - len(seen)))
        return seen

    with ThreadPoolExecutor(KILLERS + FOLLOWERS) as pool:
        followers = [pool.submit(reading, number) for number in range(FOLLOWERS)]
        for done in [pool.submit(killing, number) for number in range(KILLERS)]:
            done.result(50)
        told = [each.result(50) for each in followers]
    log = exported(either)
    assert len(log) == final
    assert all(each == log for each in told)


def test_one_connection_under_load(either: Desk) -> None:
    """A reader that stays gets every kill once and in order, while four threads write."""
    with Reader(either, who="operator") as reader, ThreadPoolExecutor(KILLERS) as pool:
        for number in range(60):
            pool.submit(either.kill, f"run:r-{number}", who="operator")
        seen = reader.entries(60)
    assert [entry["seq"] for entry in seen] == list(range(seen[0]["seq"], seen[0]["seq"] + 60))
    assert {entry["target"] for entry in seen} == {f"run:r-{number}" for number in range(60)}


def test_bound_readers_see_stubs(either: Desk) -> None:
    """A bound token is told its own tenant's entries and, of others and of notes, the place alone."""
    start = len(exported(either))
    with Reader(either, start, who="bound_operator") as live:
        either.kill("tenant:other", who="operator", reason="canary reason")
        either.kill("tenant:acme", who="operator")
        either.kill("run:r-1", who="operator")
        shapes = [set(entry) == {"seq", "hash"} for entry in live.entries(3)]
    assert shapes == [True, False, False]
    with Reader(either, 0, who="bound_operator") as reader:
        later = reader.entries(start + 3)
    assert all(set(entry) == {"seq", "hash"} for entry in later[: start + 1])
    assert "canary" not in json.dumps(later)
    assert "the-admin" not in json.dumps(later)
    for shown, whole in zip(later, exported(either), strict=True):
        assert (shown["seq"], shown["hash"]) == (whole["seq"], whole["hash"])
        assert shown in (whole, {"seq": whole["seq"], "hash": whole["hash"]})


def test_a_revoked_token_ends_its_streams(either: Desk) -> None:
    """A stream says that its token has ended before it tells anything later than the revocation."""
    token_id = either.tokens["operator"].split("_")[2]
    with Reader(either, who="operator") as reader, Reader(either, who="releaser") as other:
        assert next(iter(reader)).data is None
        either.kill("run:r-1", who="operator")
        reader.entries(1)
        assert either.call("DELETE", f"/v1/tokens/{token_id}").status_code == 204
        assert reader.end() == "token"
        assert [entry["kind"] for entry in other.entries(2)] == ["kill", "note"]
    problem(either.call("GET", "/v1/events", who="operator"), "unauthenticated")


def full(desk: Desk, opening: Callable[[], Any]) -> None:
    """Check that no stream's place is free, and that one is as soon as one is given back."""
    response = desk.call("GET", "/v1/events")
    problem(response, "too_many_exports")
    assert response.headers["Retry-After"] == "5"
    opening().close()
    with desk.call("GET", "/v1/events") as begun:
        assert begun.status_code == 200


def test_at_most_64_streams_and_64_exports(desk: Desk) -> None:
    """The 65th of either is 503, neither takes the other's places, and one that is closed makes room."""
    kinds = ("/v1/events", "/v1/log/export")
    running = {path: [desk.call("GET", path) for _ in range(AT_ONCE)] for path in kinds}
    for path, other in (kinds, kinds[::-1]):
        assert {each.status_code for each in running[path]} == {200}
        problem(desk.call("GET", path), "too_many_exports")
        running[other].pop().close()
        problem(desk.call("GET", path), "too_many_exports")
        running[path].pop().close()
        with desk.call("GET", path) as begun:
            assert begun.status_code == 200
        running[path].append(desk.call("GET", path))
        running[other].append(desk.call("GET", other))
    for each in (*running[kinds[0]], *running[kinds[1]]):
        each.close()


def test_a_crowd_that_is_refused_reads_nothing(tmp_path: Path) -> None:
    """Whoever finds no place is told so before the database is asked where a stream would begin."""
    store = Counted()
    desk = open_desk(tmp_path, store=store)
    try:
        running = [desk.call("GET", "/v1/events") for _ in range(AT_ONCE)]
        before = store.heads
        for _ in range(5):
            problem(desk.call("GET", "/v1/events"), "too_many_exports")
            problem(desk.call("GET", "/v1/events?after=10000"), "too_many_exports")
        assert store.heads == before
        for each in running:
            each.close()
    finally:
        desk.close()


class Counted(MemoryStore):
    """A store that counts how often requests, and not the refresher, ask it where the log stands."""

    heads = 0

    def head(self) -> Head:
        self.heads += threading.current_thread() is threading.main_thread()
        return super().head()


def test_places_are_always_given_back(desk: Desk) -> None:
    """Refusals, HEAD, readers that leave before or in the middle, and streams read to their end hold no place."""
    lasts_s, desk.node.events.lasts_s = desk.node.events.lasts_s, 0.01
    for number in range(2 * AT_ONCE):
        problem(desk.call("GET", "/v1/events?after=99"), "regress")
        with desk.call("HEAD", "/v1/events") as response:
            assert response.get_data() == b""
        desk.call("GET", "/v1/events").close()
        with Reader(desk, 0) as reader:
            if number % 2:
                reader.entries(1)
            else:
                assert reader.end() is None
    desk.node.events.lasts_s = lasts_s
    running = [desk.call("GET", "/v1/events") for _ in range(AT_ONCE)]
    full(desk, running.pop)
    for each in running:
        each.close()


def test_a_stream_ends_by_itself(desk: Desk) -> None:
    """After its time a stream just ends, and its reader goes on where it was."""
    desk.node.events.lasts_s = 0.3
    with Reader(desk, 8) as reader:
        assert [entry["seq"] for entry in reader.entries(1)] == [9]
        assert reader.end() is None
    desk.kill()
    with Reader(desk, 9) as reader:
        assert [entry["seq"] for entry in reader.entries(1)] == [10]


def test_streams_end_when_the_process_does(desk: Desk) -> None:
    """A process that is told to stop ends its streams in time, without a word: their readers resume elsewhere."""
    with Reader(desk) as reader:
        next(iter(reader))
        threading.Timer(0.1, desk.node.events.close).start()
        assert reader.end() is None
    with Reader(desk) as late:
        assert late.end() is None


def test_streams_end_with_the_node(tmp_path: Path) -> None:
    """A stream over a node that is closed ends, and does not spin."""
    desk = open_desk(tmp_path)
    with Reader(desk) as reader:
        next(iter(reader))
        threading.Timer(0.1, desk.node.refresher.close).start()
        assert reader.end() is None
    desk.close()
