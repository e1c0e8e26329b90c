"""Lease streams through the application: the first frame, those after it, the end, and the cap."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from app.config import Config
from app.service.store import StoreUnavailable
from app.service.turns import AT_ONCE
from haltline.canonical import parse
from tests.api.desk import Desk, members, open_desk, problem
from tests.unit.service.fakes import MemoryStore


@contextmanager
def streaming(desk: Desk, **body: Any) -> Iterator[tuple[TestResponse, Iterator[dict[str, Any]]]]:
    """Yield the reply to a request for a stream, and its frames as they come."""
    response = desk.lease(stream=True, **body)
    try:
        yield response, (json.loads(line) for line in response.response)
    finally:
        response.close()


def test_the_first_frame_answers_and_later_ones_follow(desk: Desk) -> None:
    """The first line is the reply of one frame; a kill is in the next line; none is cached or buffered."""
    with streaming(desk) as (response, frames):
        assert response.status_code == 200
        assert response.content_type == "application/jsonl"
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Accel-Buffering"] == "no"
        first = next(frames)
        one = members(desk.lease())
        assert set(first) == set(one) | {"ack_within_ms"}
        assert first["ack_within_ms"] == 50
        assert first["read_at"] > first["received_at"]
        seq = members(desk.kill())["seq"]
        told = next(frame for frame in frames if frame["seq"] >= seq)
        assert [entry["seq"] for entry in told["entries"]] == [seq]
        assert set(told) == set(one) - {"nonce", "received_at", "snapshot", "stamp_keys"}
        assert told["timebase"] == first["timebase"]


def test_each_line_is_strict_json(desk: Desk) -> None:
    """Every line is read by the strict parser, and is one line."""
    response = desk.lease(stream=True)
    lines = iter(response.response)
    for _ in range(3):
        line = next(lines)
        assert isinstance(line, bytes)
        assert line.endswith(b"\n")
        assert isinstance(parse(line[:-1]), dict)
    response.close()


def test_frames_come_without_a_flip(desk: Desk) -> None:
    """Every quarter of a ttl there is a frame, each of a newer read than the one before."""
    with streaming(desk) as (_, frames):
        reads = [next(frames)["read_at"] for _ in range(5)]
    assert reads == sorted(set(reads))
    assert reads[-1] - reads[0] < 4 * 1_000_000


def test_a_bound_worker_gets_stubs(desk: Desk) -> None:
    """A stream shows what its token may see, in every frame."""
    with streaming(desk, who="bound_worker") as (_, frames):
        next(frames)
        desk.kill("tenant:other", reason="secret reason")
        desk.kill("run:r-1")
        entries: list[dict[str, Any]] = []
        while len(entries) < 2:
            entries += next(frames)["entries"]
    assert [set(entry) == {"seq", "hash"} for entry in entries] == [True, False]


def test_a_revoked_token_ends_its_stream(desk: Desk) -> None:
    """The stream of a token that another process revokes ends with the read that brings the revocation."""
    with streaming(desk) as (_, frames):
        next(frames)
        token_id = desk.tokens["worker"].split("_")[2]
        row = desk.node.store.revoke_token(token_id, actor="elsewhere", at="2026-11-20T20:25:11.123456Z")
        assert row is not None
        assert all(frame["seq"] < row.position.seq for frame in frames)
    problem(desk.lease(stream=True), "unauthenticated")


def test_refusals_are_the_same_as_for_one_frame(desk: Desk) -> None:
    """Before the first frame a request for a stream is refused like any other, with a problem."""
    problem(desk.lease(stream=True, namespace="staging"), "foreign")
    problem(desk.lease(stream=True, who="observer"), "forbidden")
    frame = members(desk.lease())
    problem(desk.lease(stream=True, epoch=frame["epoch"], seq=frame["seq"], hash="a" * 64), "regress")
    assert desk.node.streams.open == 0


def test_a_node_that_cannot_read_ends_its_streams(tmp_path: Path) -> None:
    """When the log cannot be read the stream ends instead of falling silent, and asking anew is answered 503."""
    store = MemoryStore(ttl_ms=200)
    desk = open_desk(tmp_path, store=store)
    with streaming(desk) as (_, frames):
        next(frames)
        store.failure = StoreUnavailable("gone")
        assert sum(1 for _ in frames) < 10
    assert desk.lease(stream=True).status_code == 503
    assert desk.node.streams.open == 0
    store.failure = None
    desk.close()


def test_there_is_a_cap_on_streams(tmp_path: Path) -> None:
    """Beyond the cap a stream is refused as busy, while one frame is still answered; a stream that ends makes room."""
    desk = open_desk(tmp_path, config=Config(streams_max=1))
    with streaming(desk) as (_, frames):
        next(frames)
        response = desk.lease(stream=True)
        problem(response, "busy")
        assert response.headers["Retry-After"] == "1"
        assert desk.lease().status_code == 200
    with streaming(desk) as (response, frames):
        assert response.status_code == 200
        next(frames)
    desk.close()


def test_a_stream_that_nobody_reads_gives_its_place_back(desk: Desk) -> None:
    """A reply that is closed before its first byte was sent counts no longer."""
    for _ in range(3):
        desk.lease(stream=True).close()
    assert desk.node.streams.open == 0


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8"])
def test_a_node_that_has_enough_to_do_says_so(tmp_path: Path, content_type: str) -> None:
    """When no turn comes in half a ttl a request of a worker is refused as busy; a kill is not, nor an open stream."""
    desk = open_desk(tmp_path, config=Config(ttl_ms=200))
    body = {"nonce": "0123456789abcdef", "worker": "w", "instance": "i", "epoch": None, "seq": 0, "hash": None}
    headers = {"Content-Type": content_type}
    with streaming(desk) as (_, frames):
        next(frames)
        turns = [desk.node.turns.take(0.0) for _ in range(AT_ONCE)]
        assert all(turns)
        for stream in (False, True):
            refused = desk.call("POST", "/v1/lease", {**body, "stream": stream}, who="worker", headers=headers)
            problem(refused, "busy")
            assert refused.headers["Retry-After"] == "1"
        seq = members(desk.kill())["seq"]
        assert any(frame["seq"] >= seq for frame in frames)
    for _ in turns:
        desk.node.turns.give()
    assert desk.lease().status_code == 200
    desk.close()
