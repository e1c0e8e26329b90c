"""The lease over HTTP: dated by a later read, shown per view, refused when the node cannot know."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import marshmallow as ma
import pytest

from app.api.granting import Asked
from app.api.schemas import LeaseBody
from app.api.shortcut import asked_by
from app.service.acks import Ack
from app.service.frames import LeaseRequest
from app.service.published import TAIL_LENGTH
from app.service.store import LogDiverged, StoreUnavailable
from haltline.canonical import parse
from haltline.errors import InvalidDocument
from tests.api.desk import Desk, members, open_desk, problem
from tests.unit.service.fakes import MemoryStore


def known(frame: dict[str, Any]) -> dict[str, Any]:
    """Return the position that a frame brings a worker to."""
    return {name: frame[name] for name in ("epoch", "seq", "hash")}


def test_a_frame_is_exact(desk: Desk) -> None:
    """A frame has the exact content type, is read by the strict parser, and is never cached."""
    response = desk.lease()
    assert response.status_code == 200
    assert response.content_type == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    assert isinstance(parse(response.get_data()), dict)


def test_the_read_is_strictly_later(desk: Desk) -> None:
    """read_at is always greater than received_at, and the clock has one name."""
    frames = [members(desk.lease()) for _ in range(50)]
    assert all(frame["read_at"] > frame["received_at"] for frame in frames)
    assert len({frame["timebase"] for frame in frames}) == 1


def test_a_kill_is_in_the_next_frame(desk: Desk) -> None:
    """A frame that is asked for after a kill was acknowledged holds it, every time."""
    position = known(members(desk.lease()))
    for number in range(30):
        seq = members(desk.kill(f"run:r-{number}"))["seq"]
        frame = members(desk.lease(**position))
        assert [entry["seq"] for entry in frame["entries"]] == [seq]
        assert frame["entries"][0]["target"] == f"run:r-{number}"
        position = known(frame)


def test_workers_at_once_share_reads(desk: Desk) -> None:
    """Many workers that ask at once all get frames of reads later than their requests."""
    frames: list[dict[str, Any]] = []

    def ask() -> None:
        frames.extend(members(desk.lease()) for _ in range(5))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(frames) == 40
    assert all(frame["read_at"] > frame["received_at"] for frame in frames)


def test_bound_workers_get_stubs(desk: Desk) -> None:
    """A bound worker learns of another tenant's kill that there was an entry, nothing else."""
    position = known(members(desk.lease(who="bound_worker")))
    desk.kill("tenant:other", reason="secret reason")
    desk.kill("run:r-1")
    response = desk.lease(who="bound_worker", **position)
    entries = members(response)["entries"]
    assert [set(entry) == {"seq", "hash"} for entry in entries] == [True, False]
    assert b"secret reason" not in response.get_data()
    assert b"other" not in desk.lease(who="bound_worker").get_data()


def test_another_epoch(desk: Desk) -> None:
    """A worker of another log is told 409 foreign."""
    position = known(members(desk.lease()))
    problem(desk.lease(**{**position, "epoch": "f" * 16}), "foreign")


def test_another_namespace(desk: Desk) -> None:
    """A worker that expects another namespace is told 409 foreign."""
    problem(desk.lease(namespace="staging"), "foreign")
    assert desk.lease(namespace="default").status_code == 200


@pytest.mark.parametrize("change", [{"seq": 10_000}, {"hash": "a" * 64}])
def test_a_worker_that_knows_more(desk: Desk, change: dict[str, Any]) -> None:
    """A worker that is ahead of the log, or remembers it otherwise, is told 409 regress."""
    position = known(members(desk.lease()))
    response = desk.lease(**{**position, **change})
    problem(response, "regress")
    assert response.status_code == 409


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"stream": 0}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream": "true"}, "stream"),
        ({"stream": None}, "stream"),
        ({"nonce": ""}, "nonce"),
        ({"nonce": "x" * 129}, "nonce"),
        ({"nonce": 'a"bcdefgh'}, "nonce"),
        ({"worker": "a b"}, "worker"),
        ({"instance": None}, "instance"),
        ({"seq": -1}, "seq"),
        ({"seq": "0"}, "seq"),
        ({"seq": True}, "seq"),
        ({"seq": 5}, "seq"),
        ({"epoch": "F" * 16}, "epoch"),
        ({"hash": "a" * 63}, "hash"),
        ({"hash": "a" * 64 + "\n"}, "hash"),
        ({"namespace": "A"}, "namespace"),
        ({"position": 1}, "position"),
    ],
)
def test_bad_requests(shared: Desk, body: dict[str, Any], field: str) -> None:
    """Every field of a lease request has its grammar."""
    assert field in problem(shared.lease(**body), "invalid_fields")["errors"]


def test_a_missing_stream_is_refused(shared: Desk) -> None:
    """A request says whether it wants a stream or one frame: there is no default to be mistaken about."""
    body = {"nonce": "0123456789abcdef", "worker": "w", "instance": "i", "epoch": None, "seq": 0, "hash": None}
    response = shared.call("POST", "/v1/lease", body, who="worker")
    assert "stream" in problem(response, "invalid_fields")["errors"]


WHOLE: dict[str, Any] = {
    "stream": False,
    "nonce": "0123456789abcdef",
    "worker": "mailer",
    "instance": "i-1",
    "namespace": "default",
    "epoch": "0123456789abcdef",
    "seq": 5,
    "hash": "a" * 64,
}
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 5, 2**53 - 1, 2**53, 1.0, [], {}, [0], ["a"], {"a": 1}),
    *("", " ", "a", "A", "-", "0", "5", "true", "a b", "a:b", "a.b", "a/b", "\u00e9", "\u0661" * 16, "\ud800", "\x00"),
    *("a" * length for length in (7, 8, 15, 16, 17, 32, 33, 63, 64, 65, 128, 129)),
    *(text + "\n" for text in ("a", "a" * 16, "a" * 64)),
    *("F" * length for length in (16, 64)),
)


def bodies() -> Iterator[bytes]:
    """Yield bodies, right and wrong ones: each member left out, and given every odd value; others added."""
    known_nothing = {**WHOLE, "seq": 0, "epoch": None, "hash": None}
    for whole in (WHOLE, known_nothing):
        yield json.dumps(whole).encode()
        for name in WHOLE:
            yield json.dumps({key: value for key, value in whole.items() if key != name}).encode()
            yield from (json.dumps({**whole, name: value}).encode() for value in ODD)
        for name in ("", "Seq", "seq ", "position", "stream\x00"):
            yield json.dumps({**whole, name: 0}).encode()
        yield json.dumps(whole)[:-1].encode()
        yield json.dumps(whole).encode() + b"{}"
        yield json.dumps(whole).encode("utf-16")
        yield json.dumps(whole).replace('"seq"', '"seq": 1, "seq"').encode()
    yield from (json.dumps(value).encode() for value in ODD)
    yield b""


def accepted(data: bytes) -> Asked | None:
    """Return what the documented schema makes of a body."""
    try:
        loaded: Any = LeaseBody().load(parse(data))
    except (ma.ValidationError, InvalidDocument):
        return None
    request = LeaseRequest(loaded["nonce"], loaded["epoch"], loaded["seq"], loaded["hash"])
    ack = Ack(loaded["worker"], loaded["instance"], loaded["seq"]) if loaded["seq"] else None
    return Asked(request, loaded.get("namespace"), ack, loaded["stream"])


def test_the_shortcut_takes_exactly_what_the_schema_takes() -> None:
    """The check in the shortcut and the documented schema accept the same bodies, and understand them alike."""
    outcomes = [(asked_by(data), accepted(data), data) for data in bodies()]
    assert [each for each in outcomes if each[0] != each[1]] == []
    taken = sum(asked is not None for asked, _, _ in outcomes)
    assert 50 < taken < len(outcomes) - 200


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8"])
def test_the_shortcut_and_the_route_answer_alike(desk: Desk, content_type: str) -> None:
    """What the shortcut answers and what the route answers differ in nothing; the content type chooses between them."""
    body = {**WHOLE, "epoch": None, "seq": 0, "hash": None}
    both = [
        desk.call("POST", "/v1/lease", body, who="worker", headers={"Content-Type": each})
        for each in (content_type, "application/json; charset=utf-8")
    ]
    assert [response.status_code for response in both] == [200, 200]
    assert dict(both[0].headers) == dict(both[1].headers)
    frames = [{**members(response), "read_at": 0, "received_at": 0} for response in both]
    assert frames[0] == frames[1]


def test_leases_are_counted(desk: Desk) -> None:
    """Granted and refused leases are counted alike, by route and status."""
    desk.lease()
    desk.lease(namespace="staging")
    counted = desk.call("GET", "/metrics", who=None).get_data(as_text=True)
    for status in (200, 409):
        line = f'haltline_requests_total{{method="POST",route="/v1/lease",status="{status}"}} 1.0'
        assert line in counted
    assert 'haltline_request_seconds_count{route="/v1/lease"} 2.0' in counted


def test_a_fault_in_the_lane_is_an_internal_error(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A fault that nobody foresaw is answered as everywhere else: 500, a problem, nothing told."""
    store = MemoryStore()
    desk = open_desk(tmp_path_factory.mktemp("fault"), store=store)
    store.failure = RuntimeError("secret detail")
    response = desk.lease()
    problem(response, "internal")
    assert b"secret" not in response.get_data()
    desk.close()


def test_no_lease_without_the_database(tmp_path_factory: pytest.TempPathFactory) -> None:
    """While the log cannot be read there is no lease and no readiness; afterwards there is."""
    store = MemoryStore(ttl_ms=200)
    desk = open_desk(tmp_path_factory.mktemp("stale"), store=store)
    assert desk.lease().status_code == 200
    assert desk.call("GET", "/readyz", who=None).status_code == 200
    store.failure = StoreUnavailable("gone")
    response = desk.lease()
    # Whichever notices first: the look-up of the token, or the read that stays away.
    assert response.status_code == 503
    assert members(response)["code"] in {"stale", "store_unavailable"}
    problem(desk.call("GET", "/readyz", who=None), "stale")
    assert desk.call("GET", "/livez", who=None).status_code == 200
    store.failure = None
    assert desk.lease().status_code == 200
    desk.close()


def test_no_lease_from_another_log(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Once the database has held another log, this process grants nothing any more, and says so."""
    store = MemoryStore(ttl_ms=200)
    desk = open_desk(tmp_path_factory.mktemp("diverged"), store=store)
    assert desk.lease().status_code == 200
    store.failure = LogDiverged("shorter than before")
    desk.call("GET", "/readyz", who=None)
    store.failure = None
    problem(desk.lease(), "diverged")
    problem(desk.call("GET", "/readyz", who=None), "diverged")
    assert desk.kill().status_code == 201  # stopping is never refused
    desk.close()


def test_a_revocation_elsewhere_ends_leases_with_the_read_that_brings_it(desk: Desk) -> None:
    """A token that another process revoked gets no frame of a read that includes the revocation."""
    assert desk.lease().status_code == 200
    token_id = desk.tokens["worker"].split("_")[2]
    desk.node.store.revoke_token(token_id, actor="elsewhere", at="2026-11-20T20:25:11.123456Z")
    problem(desk.lease(), "unauthenticated")


def test_a_restart_continues_those_who_were_there(tmp_path: Path) -> None:
    """After a restart of the node a worker goes on where it was: it gets what it lacks, and no snapshot."""
    desk = open_desk(tmp_path)
    position = known(members(desk.lease()))
    seq = members(desk.kill())["seq"]
    desk.close()
    again = open_desk(tmp_path)
    frame = members(again.lease(**position))
    assert "snapshot" not in frame
    assert frame["entries"][0]["seq"] == seq
    again.close()


def test_no_lease_for_another_history_after_a_restart(tmp_path: Path) -> None:
    """A worker that saw a kill which the restored log does not have is refused, however far that log has gone on."""
    desk = open_desk(tmp_path)
    desk.node.store.close()
    backup = (tmp_path / "haltline.db").read_bytes()
    desk = open_desk(tmp_path)
    desk.kill("run:lost")
    seen = known(members(desk.lease()))
    desk.close()
    (tmp_path / "haltline.db").write_bytes(backup)
    restored = open_desk(tmp_path)
    for number in range(3):
        restored.kill(f"run:r-{number}")
    assert members(restored.lease())["seq"] >= seen["seq"]
    problem(restored.lease(**seen), "regress")
    restored.close()


def test_old_positions_are_compared_too(tmp_path: Path) -> None:
    """Before the tail in memory, too, only who remembers the log as it is gets a snapshot of it."""
    store = MemoryStore(ttl_ms=5_000)
    old = store.append("note", topic="log_opened").position
    for _ in range(TAIL_LENGTH):
        store.append("note", topic="something")
    desk = open_desk(tmp_path, store=store)
    desk.kill()
    assert desk.node.refresher.wait_beyond(0, 20) is not None  # it has read ten thousand entries first
    position: dict[str, Any] = {"epoch": store.epoch, "seq": old.seq, "hash": old.hash}
    frame = members(desk.lease(**position))
    assert frame["from"] == frame["snapshot"]["seq"] == len(store.rows)
    problem(desk.lease(**{**position, "hash": "a" * 64}), "regress")
    problem(desk.lease(**{**position, "seq": 2}), "regress")
    desk.close()


@pytest.mark.parametrize("how", ["moved", "replaced", "removed"])
def test_no_lease_when_the_file_is_gone(tmp_path: Path, how: str) -> None:
    """If the database file is taken away or replaced under the service, it is not ready and grants nothing more."""
    desk = open_desk(tmp_path)
    assert desk.lease().status_code == 200
    path = tmp_path / "haltline.db"
    path.rename(tmp_path / "moved.db")
    if how == "replaced":
        shutil.copy(tmp_path / "moved.db", path)
    elif how == "removed":
        (tmp_path / "moved.db").unlink()
    problem(desk.call("GET", "/readyz", who=None), "diverged")
    problem(desk.lease(), "diverged")
    assert desk.kill().status_code == 503
    if how == "moved":
        (tmp_path / "moved.db").rename(path)
    problem(desk.lease(), "diverged")
    desk.close()
