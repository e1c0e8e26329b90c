"""Many lease streams and many subscriptions in one process, against a server that says what is written here."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any, Final

import pytest

from app.service.frames import Frames, LeaseRequest
from app.service.published import Published, Tail, kept
from app.service.store import Ttl
from bench.agent import EPOCH, NAMESPACE, others
from bench.apply import one_kill
from bench.children import Child, child
from bench.streams_client import known, position
from bench.subscribers import newest
from haltline.canonical import canonical
from haltline.flips import parse_entry
from tests.support.ports import free_port
from tests.support.scripted import END, STREAM, Scripted, chunk, request, whole

HEAR_S: Final = 10.0
ASKED: Final = LeaseRequest("0" * 32, None, 0, None)

_REPLICA: Final = others(3)
_KILL: Final = one_kill(_REPLICA)
_ENTRY: Final = parse_entry(_KILL)
_FRAMES: Final = Frames(namespace=NAMESPACE, timebase="0123456789abcdef")
_BEFORE: Final = Published(_REPLICA, Tail(_REPLICA.position, [], 0), Ttl(1_000), 1)
_AFTER: Final = Published(
    _REPLICA.extend((_ENTRY,)),
    Tail(_REPLICA.position, [kept(_ENTRY, canonical(_KILL).decode("utf-8"))], 1),
    Ttl(1_000),
    2,
)


def first(published: Published) -> bytes:
    """Return the first frame of a stream, as a node sends it."""
    frame = _FRAMES.frame(published, ASKED, view=None, received_at_us=0)
    assert isinstance(frame, bytes)
    return chunk(frame + b"\n")


def flip() -> bytes:
    """Return the frame that brings the kill to whoever knows all before it."""
    line = _FRAMES.next(_AFTER, None, _REPLICA.position.seq)
    assert line is not None
    return chunk(line)


def asked_of(data: bytes) -> dict[str, Any]:
    """Return what a request asks with."""
    members: dict[str, Any] = json.loads(data.partition(b"\r\n\r\n")[2])
    return members


def streams(server: Scripted, size: int) -> Any:
    """Open so many lease streams."""
    return child("bench.streams_client", port=server.port, size=size, secret="hlt_secret")


def counts(readers: Child) -> dict[str, Any]:
    """Return what the crowd has counted since it was last asked."""
    readers.tell()
    return readers.hear_of("messages", seconds=HEAR_S)


@pytest.mark.parametrize(
    ("frame", "knows"),
    [
        (first(_BEFORE), (EPOCH, _REPLICA.position.seq, _REPLICA.position.hash)),
        (flip(), (EPOCH, _ENTRY.position.seq, _ENTRY.position.hash)),
        (first(_BEFORE) + flip(), (EPOCH, _ENTRY.position.seq, _ENTRY.position.hash)),
        (flip() + END, (EPOCH, _ENTRY.position.seq, _ENTRY.position.hash)),
    ],
)
def test_the_position_is_found_in_what_a_node_writes(frame: bytes, knows: tuple[str, int, str]) -> None:
    """Snapshots and entries have seqs and hashes too; the newest frame's own are taken."""
    assert position(frame) == knows[1]
    assert known(frame) == knows


def test_a_worker_that_was_told_nothing_knows_nothing() -> None:
    """Its first request asks for everything."""
    assert known(None) == (None, 0, None)


def test_a_flip_counts_when_the_last_stream_has_it_whole_and_the_streams_go_on() -> None:
    """A frame in pieces counts at its end; a stream that ends in order is asked for again from where it was."""
    go, half = threading.Event(), threading.Event()
    again: list[dict[str, Any]] = []

    def script(connection: socket.socket) -> None:
        request(connection)
        connection.sendall(STREAM + first(_BEFORE))
        assert go.wait(HEAR_S)
        told = flip() + END
        connection.sendall(told[:40])
        assert half.wait(HEAR_S)
        connection.sendall(told[40:])
        again.append(asked_of(request(connection)))
        connection.sendall(STREAM + first(_AFTER))
        request(connection)

    with Scripted(script) as server, streams(server, 3) as readers:
        assert readers.hear_of("open", seconds=HEAR_S)["open"] == 3
        go.set()
        assert counts(readers)["messages"] == 3  # the first frames: no half of another
        half.set()
        heard = readers.hear_of("seq", seconds=HEAR_S)
        assert heard["seq"] == _ENTRY.position.seq
        assert heard["first"] <= heard["median"] <= heard["last"]
        told = counts(readers)
        assert (told["asked"], told["broken"], told["open"]) == (3, 0, 3)
    assert {(each["epoch"], each["seq"], each["hash"]) for each in again} == {
        (EPOCH, _ENTRY.position.seq, _ENTRY.position.hash)
    }
    assert len({each["nonce"] for each in again}) == 3


def test_a_broken_stream_is_counted_and_goes_on_from_what_its_worker_knows() -> None:
    """What is measured afterwards is still the whole crowd."""
    asked: list[dict[str, Any]] = []

    def script(connection: socket.socket) -> None:
        asked.append(asked_of(request(connection)))
        connection.sendall(STREAM + first(_BEFORE))
        if len(asked) > 1:
            connection.sendall(flip())
            request(connection)

    with Scripted(script) as server, streams(server, 1) as readers:
        assert readers.hear_of("open", seconds=HEAR_S)["open"] == 1
        assert readers.hear_of("seq", seconds=HEAR_S)["seq"] == _ENTRY.position.seq
        assert counts(readers)["broken"] == 1
    assert [each["seq"] for each in asked] == [0, _REPLICA.position.seq]


def test_a_busy_node_is_asked_again() -> None:
    """A worker that is told that there is no place waits, and is counted."""
    replies = iter([whole(b"{}", status=503), STREAM + first(_BEFORE)])

    def script(connection: socket.socket) -> None:
        while request(connection):
            connection.sendall(next(replies))

    with Scripted(script) as server, streams(server, 1) as readers:
        assert readers.hear_of("open", seconds=HEAR_S)["open"] == 1
        assert counts(readers)["refused"] == 1


def test_any_other_refusal_ends_the_measurement(capfd: pytest.CaptureFixture[str]) -> None:
    """A crowd that is not granted leases measures nothing, and says why."""

    def script(connection: socket.socket) -> None:
        request(connection)
        connection.sendall(whole(b'{"code":"unauthorized"}', status=401))
        request(connection)

    with Scripted(script) as server, streams(server, 1) as readers, pytest.raises(RuntimeError, match="status 1"):
        readers.hear_of("open", seconds=HEAR_S)
    assert "unauthorized" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("data", "number"),
    [
        (b"*3\r\n$7\r\nmessage\r\n$3\r\nabc\r\n$2\r\n17\r\n", 17),
        (b"*3\r\n$7\r\nmessage\r\n$3\r\nabc\r\n$2\r\n17", 0),
        (b"*3\r\n$7\r\nmessage\r\n$3\r\nabc\r\n$2\r\n", 0),
        (b"*3\r\n", 0),
    ],
)
def test_a_message_counts_once_it_is_whole(data: bytes, number: int) -> None:
    """The number is taken from the payload, never from a length."""
    assert newest(data) == number


def test_a_silent_child_is_not_waited_for_without_end() -> None:
    """Whoever measures goes on, and the child is ended."""

    def silent(connection: socket.socket) -> None:
        request(connection)
        connection.recv(1)

    with Scripted(silent) as server, streams(server, 1) as readers, pytest.raises(TimeoutError):
        readers.hear_of("open", seconds=0.3)


def test_more_connections_than_a_process_may_open_are_refused(capfd: pytest.CaptureFixture[str]) -> None:
    """The crowd says so before it opens the first of them."""
    with (
        child("bench.streams_client", port=free_port(), size=10_000_000, secret="hlt_secret") as readers,
        pytest.raises(RuntimeError),
    ):
        readers.hear_of("open", seconds=HEAR_S)
    assert "a process here may have" in capfd.readouterr().err
