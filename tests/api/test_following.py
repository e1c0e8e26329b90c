"""The stream that follows another on its connection: granted as the first was, or left to the usual way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from werkzeug.test import create_environ

from app.api.granting import NEAR, StreamReply
from app.service.published import Published
from tests.api.desk import Desk, members

NONCE = "f" * 32
BODY: dict[str, Any] = {
    "stream": True,
    "nonce": NONCE,
    "worker": "mailer",
    "instance": "i-1",
    "epoch": None,
    "seq": 0,
    "hash": None,
}


@contextmanager
def open_stream(desk: Desk, *, who: str = "worker") -> Iterator[StreamReply]:
    """Yield the reply to a request for a stream, as the server has it."""
    headers = {"Authorization": f"Bearer {desk.tokens[who]}", "Content-Type": "application/json"}
    environ = create_environ("/v1/lease", method="POST", data=json.dumps(BODY), headers=headers)
    reply = desk.app.wsgi_app(environ, lambda *_: bytes)
    assert isinstance(reply, StreamReply)
    try:
        yield reply
    finally:
        reply.close()


def read_now(desk: Desk) -> tuple[int, Published]:
    """Return a moment, and what a read of the log has published that began later."""
    received_at_us = desk.node.clocks.raw_us_ceil()
    published = desk.node.refresher.read_after(received_at_us)
    assert isinstance(published, Published)
    return received_at_us, published


def follow(desk: Desk, reply: StreamReply, **body: Any) -> dict[str, Any] | None:
    """Return the first frame of the next stream; None where it is left to the usual way."""
    received_at_us, published = read_now(desk)
    line = reply.follow(json.dumps({**BODY, **body}).encode(), published, received_at_us=received_at_us)
    if line is None:
        return None
    assert line.endswith(b"}\n")
    told = json.loads(line)
    assert isinstance(told, dict)
    assert told["read_at"] > told["received_at"] == received_at_us
    return told


def test_it_goes_on_where_its_worker_is(desk: Desk) -> None:
    """The first frame repeats the nonce and has what the worker lacks; the stream lasts, and its place is one."""
    with open_stream(desk) as reply:
        first = json.loads(reply.first)
        seq = members(desk.kill())["seq"]
        reply.stream.ends_at = 0.0
        position = {name: first[name] for name in ("epoch", "seq", "hash")}
        told = follow(desk, reply, nonce="e" * 32, **position)
        assert told is not None
        assert (told["nonce"], told["from"], told["seq"]) == ("e" * 32, first["seq"], seq)
        assert set(told) == set(first) - {"snapshot"}
        assert reply.stream.cursor == seq
        assert not desk.node.streams.aged(reply.stream, desk.node.streams.now())
        assert desk.node.streams.open == 1
    assert desk.node.streams.open == 0


def test_it_acknowledges_and_is_counted(desk: Desk) -> None:
    """What such a request says of its worker is heard, and it is a request like any other in the metrics."""
    with open_stream(desk) as reply:
        first = json.loads(reply.first)
        seq = members(desk.kill())["seq"]
        told = follow(desk, reply, **{name: first[name] for name in ("epoch", "seq", "hash")})
        assert told is not None
        before = desk.node.acks.count
        assert follow(desk, reply, epoch=told["epoch"], seq=seq, hash=told["hash"]) is not None
        assert desk.node.acks.count == before + 1
    metrics = desk.call("GET", "/metrics").get_data(as_text=True)
    assert 'haltline_requests_total{method="POST",route="/v1/lease",status="200"} 3.0' in metrics


def test_a_bound_worker_sees_no_more_than_before(desk: Desk) -> None:
    """The next stream shows what its token may see."""
    with open_stream(desk, who="bound_worker") as reply:
        first = json.loads(reply.first)
        desk.kill("tenant:other", reason="secret reason")
        told = follow(desk, reply, **{name: first[name] for name in ("epoch", "seq", "hash")})
        assert told is not None
        assert [set(entry) for entry in told["entries"]] == [{"seq", "hash"}]
        assert told["tenants"] == first["tenants"]


def known(reply: StreamReply) -> dict[str, Any]:
    """Return what the worker knows after its first frame."""
    first = json.loads(reply.first)
    return {name: first[name] for name in ("epoch", "seq", "hash")}


@pytest.mark.parametrize(
    "body",
    [
        {"stream": False},
        {"namespace": "staging"},
        {"nonce": "short"},
        {"worker": 7},
        {"more": 1},
        {"seq": 1_000, "hash": "a" * 64},
        {"hash": "a" * 64},
        {"epoch": "of another log"},
        {"epoch": None, "seq": 0, "hash": None},
    ],
)
def test_what_is_not_just_that_is_left(desk: Desk, body: dict[str, Any]) -> None:
    """Whatever would be refused, answered otherwise, or with a snapshot, changes nothing here."""
    with open_stream(desk) as reply:
        reply.stream.ends_at = 0.0
        assert follow(desk, reply, **{**known(reply), **body}) is None
        assert reply.stream.ends_at == 0.0
        assert follow(desk, reply, **known(reply)) is not None


def test_whoever_is_far_behind_is_left(desk: Desk) -> None:
    """What has missed much is answered in the usual way: its frame is large, and nobody else should wait for it."""
    with open_stream(desk) as reply:
        position = known(reply)
        for number in range(NEAR):
            assert desk.kill(f"run:r-{number}").status_code == 201
        assert follow(desk, reply, **position) is not None
        desk.kill("run:one-more")
        assert follow(desk, reply, **position) is None


def test_a_revoked_token_is_not_followed(desk: Desk) -> None:
    """A token that another process has revoked since gets no further stream, though nobody looks it up."""
    with open_stream(desk) as reply:
        token_id = desk.tokens["worker"].split("_")[2]
        assert desk.node.store.revoke_token(token_id, actor="elsewhere", at="2026-11-20T20:25:11.123456Z") is not None
        assert follow(desk, reply, **known(reply)) is None


def test_a_token_that_has_ended_is_not_followed(desk: Desk) -> None:
    """A token whose time is over gets no further stream."""
    with open_stream(desk) as reply:
        reply.stream.who = replace(reply.stream.who, expires_at=desk.node.clocks.wall() - 1)
        assert follow(desk, reply, **known(reply)) is None


def test_a_read_that_began_before_is_no_answer(desk: Desk) -> None:
    """What was read before the request was received grants nothing."""
    with open_stream(desk) as reply:
        _, published = read_now(desk)
        body = json.dumps({**BODY, **known(reply)}).encode()
        assert reply.follow(body, published, received_at_us=published.read_at_us) is None
        assert reply.follow(body, published, received_at_us=published.read_at_us - 1) is not None


def test_a_node_that_goes_away_takes_no_more(desk: Desk) -> None:
    """Once the streams of a node are closed none is followed by another."""
    with open_stream(desk) as reply:
        desk.node.streams.close()
        assert follow(desk, reply, **known(reply)) is None


def test_a_node_whose_log_is_another_takes_no_more(desk: Desk) -> None:
    """Once a node has found its log edited no stream is followed by another, whatever it has read before."""
    with open_stream(desk) as reply:
        received_at_us, published = read_now(desk)
        desk.node.refresher._halted = "edited"  # noqa: SLF001 - as a read that finds it so leaves it
        body = json.dumps({**BODY, **known(reply)}).encode()
        assert reply.follow(body, published, received_at_us=received_at_us) is None
