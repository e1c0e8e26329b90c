"""Lines of a stream, each by its own deadline; and a connection that outlives its streams, or is interrupted."""

from __future__ import annotations

import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from haltline import ServiceError
from haltline.address import Address, parse_address
from haltline.clocks import Clocks
from haltline.http1 import Response
from haltline.transport import Transport
from tests.support.ports import LOOPBACK, free_port
from tests.support.scripted import END, STREAM, Script, Scripted, chunk, request, whole

LIMIT: Final = 1_000_000


@contextmanager
def scripted(script: Script) -> Iterator[tuple[Scripted, Transport]]:
    """Yield a server and a connection to it."""
    with Scripted(script) as server:
        transport = Transport([parse_address(server.url)], token="t", clocks=Clocks())
        yield server, transport
        transport.close()


def says(*pieces: bytes, pause_s: float = 0.0) -> Script:
    """Return a script that answers each request with these pieces."""

    def script(connection: socket.socket) -> None:
        while request(connection):
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause_s)

    return script


def lines(stream: Response) -> list[bytes]:
    """Return every line of a stream."""
    found = []
    while (line := stream.line(deadline_s=5, limit=LIMIT)) is not None:
        found.append(line)
    return found


def failed(work: Callable[[], object]) -> tuple[ServiceError, float]:
    """Return what ended a call, and how long it took, seconds."""
    begun = time.monotonic()
    with pytest.raises(ServiceError) as caught:
        work()
    return caught.value, time.monotonic() - begun


@pytest.mark.parametrize(
    "pieces",
    [
        [chunk(b"one\ntwo\n\nfour\n")],
        [chunk(b"one\n"), chunk(b"two\n"), chunk(b"\n"), chunk(b"four\n")],
        [chunk(b"o"), chunk(b"ne"), chunk(b"\ntw"), chunk(b"o\n\nfour"), chunk(b"\n")],
        [bytes([byte]) for byte in chunk(b"one\ntwo\n") + chunk(b"\nfour\n")],
    ],
    ids=["one-chunk", "a-chunk-a-line", "torn", "a-byte-a-packet"],
)
def test_lines_come_out_as_they_went_in(pieces: list[bytes]) -> None:
    """However they were cut into chunks and packets; and the next request goes over the same connection."""
    pause_s = 0.001 if len(pieces) > 5 else 0.0
    with scripted(says(STREAM, *pieces, END, pause_s=pause_s)) as (server, transport):
        for _ in range(3):
            stream = transport.stream("/v1/lease", b"{}", deadline_s=5)
            assert (stream.status, stream.content_type, stream.encoded) == (200, "application/jsonl", False)
            assert lines(stream) == [b"one", b"two", b"", b"four"]
            assert stream.line(deadline_s=1, limit=LIMIT) is None
        assert server.connections == 1


def test_a_line_is_handed_over_before_the_next_packet() -> None:
    """A kill's frame waits for nothing: not for the end of its chunk, not for what the service says next."""
    go_on = threading.Event()

    def script(connection: socket.socket) -> None:
        request(connection)
        connection.sendall(STREAM + b"6\r\nkill\n.")
        go_on.wait(5)

    with scripted(script) as (_, transport):
        stream = transport.stream("/v1/lease", b"{}", deadline_s=5)
        assert stream.line(deadline_s=5, limit=LIMIT) == b"kill"
        go_on.set()


def test_what_is_not_a_stream_is_read_whole() -> None:
    """Its type and its encoding are handed on unjudged."""
    reply = whole(b'{"code":"busy"}', status=503, kind=b"application/problem+json")
    with scripted(says(reply)) as (server, transport):
        for _ in range(2):
            stream = transport.stream("/v1/lease", b"{}", deadline_s=5)
            assert (stream.status, stream.content_type) == (503, "application/problem+json")
            assert stream.read(100) == b'{"code":"busy"}'
        assert server.connections == 1
    with scripted(says(b"HTTP/1.1 200 X\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n")) as (_, transport):
        assert transport.stream("/v1/lease", b"{}", deadline_s=5).encoded


@pytest.mark.parametrize("pause_s", [0.0, 0.02])
def test_a_line_ends_by_its_deadline(pause_s: float) -> None:
    """Whether nothing comes or a byte now and then; and the next exchange has a connection of its own."""

    def script(connection: socket.socket) -> None:
        while request(connection):
            connection.sendall(STREAM + chunk(b"one\n"))
            while pause_s:
                time.sleep(pause_s)
                connection.sendall(chunk(b"x"))

    with scripted(script) as (server, transport):
        for _ in range(2):
            stream = transport.stream("/v1/lease", b"{}", deadline_s=5)
            assert stream.line(deadline_s=5, limit=LIMIT) == b"one"
            error, took = failed(lambda: stream.line(deadline_s=0.3, limit=LIMIT))  # noqa: B023  # called at once
            assert 0.25 < took < 1
            assert error.sent
            failed(lambda: stream.line(deadline_s=0.3, limit=LIMIT))  # noqa: B023
        assert server.connections == 2


@pytest.mark.parametrize(
    ("end", "told"),
    [(b"", "broke off"), (END, "inside a line"), (b"zz\r\n", "broke off"), (chunk(b"x" * 70_000), "longer than")],
    ids=["cut", "ended-inside", "garbage", "too-long"],
)
def test_what_is_no_orderly_end_is_an_error(end: bytes, told: str) -> None:
    """A half line is no line, and a connection of which that is known is not used again."""

    def script(connection: socket.socket) -> None:
        request(connection)
        connection.sendall(STREAM + chunk(b"one\nhal") + end)
        if end:
            connection.recv(1)  # the other end closes it

    with scripted(script) as (server, transport):
        stream = transport.stream("/v1/lease", b"{}", deadline_s=5)
        assert stream.line(deadline_s=5, limit=65_536) == b"one"
        error, took = failed(lambda: stream.line(deadline_s=5, limit=65_536))
        assert told in str(error)
        assert took < 2
        server.script = says(whole(b"{}"))
        assert transport.post("/v1/lease", b"{}", deadline_s=5, limit=10).status == 200
        assert server.connections == 2


def test_a_stream_given_up_half_way_costs_its_connection() -> None:
    """The rest of it must not be taken for the reply to the next request."""
    with scripted(says(STREAM, chunk(b'{"old":1}\n'), chunk(b"more\n"))) as (server, transport):
        stream = transport.stream("/v1/lease", b"{}", deadline_s=5)
        assert stream.line(deadline_s=5, limit=LIMIT) == b'{"old":1}'
        again = transport.stream("/v1/lease", b"{}", deadline_s=5)
        assert server.connections == 2
        error, _ = failed(lambda: lines(stream))
        assert "given up" in str(error)
        assert again.line(deadline_s=5, limit=LIMIT) == b'{"old":1}'


def test_a_large_line_is_read_in_time_and_space_proportional_to_it() -> None:
    """Eight times the line takes about eight times as long, and the line is in memory twice at most."""

    def script(connection: socket.socket) -> None:
        while asked := request(connection):
            size = int(asked.rpartition(b"\r\n\r\n")[2])
            connection.sendall(STREAM)
            for _ in range(size // 65_536):
                connection.sendall(chunk(b"x" * 65_536))
            connection.sendall(chunk(b"\n") + END)

    def took(transport: Transport, size: int) -> float:
        begun = time.process_time()
        stream = transport.stream("/v1/lease", b"%d" % size, deadline_s=30)
        line = stream.line(deadline_s=30, limit=size)
        assert line is not None
        assert len(line) == size
        assert stream.line(deadline_s=30, limit=size) is None
        return time.process_time() - begun

    with scripted(script) as (_, transport):
        small, large = 1 << 20, 1 << 23
        took(transport, small)
        least = min(took(transport, small) for _ in range(3))
        assert took(transport, large) < 8 * 4 * least
        tracemalloc.start()
        took(transport, large)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2.5 * large


@pytest.mark.parametrize("where", ["head", "line", "body"])
def test_an_interrupt_wakes_whoever_waits(where: str) -> None:
    """At once, with an error; and the transport works again."""

    def script(connection: socket.socket) -> None:
        request(connection)
        if where == "line":
            connection.sendall(STREAM + chunk(b"hal"))
        elif where == "body":
            connection.sendall(b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\nhal")
        connection.recv(1)

    with scripted(script) as (server, transport):
        timer = threading.Timer(0.2, transport.interrupt)
        timer.start()
        error, took = failed(lambda: transport.stream("/v1/lease", b"{}", deadline_s=20).line(deadline_s=20, limit=99))
        assert 0.15 < took < 5
        assert "interrupted" in str(error)
        server.script = says(whole(b"{}"))
        assert transport.post("/v1/lease", b"{}", deadline_s=5, limit=10).status == 200
        timer.join()


def test_an_interrupt_ends_an_attempt_to_connect() -> None:
    """Also one to an address that swallows packets, and no other address is tried after it."""
    with (
        socket.create_server((LOOPBACK, free_port()), backlog=0) as full,
        socket.create_connection(full.getsockname()),
        Scripted(says(whole(b"{}"))) as server,
    ):
        hole = Address(*full.getsockname())
        transport = Transport([hole, parse_address(server.url)], token="t", clocks=Clocks())
        timer = threading.Timer(0.2, transport.interrupt)
        timer.start()
        error, took = failed(lambda: transport.post("/v1/lease", b"{}", deadline_s=30, limit=10))
        assert not error.sent
        assert took < 5
        assert server.connections == 0
        timer.join()
        transport.close()


def test_an_interrupt_of_nobody_costs_no_request() -> None:
    """Before the first connection, between two exchanges, and after the last one."""
    with scripted(says(whole(b"{}"))) as (_, transport):
        transport.interrupt()
        for _ in range(3):
            assert transport.post("/v1/lease", b"{}", deadline_s=5, limit=10).status == 200
            transport.interrupt()
        transport.close()
        transport.interrupt()


def test_interrupts_without_end_break_nothing_else() -> None:
    """Another thread interrupts as fast as it can while connections come and go: no other file is ever shut down."""
    done = threading.Event()
    with scripted(says(STREAM, chunk(b"one\n"), END)) as (_, transport):

        def pester() -> None:
            while not done.is_set():
                transport.interrupt()

        thread = threading.Thread(target=pester)
        thread.start()
        ours, theirs = socket.socketpair()
        got = 0
        try:
            for _ in range(300):
                try:
                    got += lines(transport.stream("/v1/lease", b"{}", deadline_s=5)) == [b"one"]
                except ServiceError as error:
                    assert "time" not in str(error)  # noqa: PT017  # some calls fail, some do not
                ours.close()
                theirs.close()
                ours, theirs = socket.socketpair()
                ours.sendall(b"x")
                assert theirs.recv(1) == b"x"
        finally:
            done.set()
            thread.join()
            ours.close()
            theirs.close()
        assert lines(transport.stream("/v1/lease", b"{}", deadline_s=5)) == [b"one"]
