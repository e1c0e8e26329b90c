"""How the sample finds its service: a free port, the next one that answers, and what waits at a port unread."""

from __future__ import annotations

import contextlib
import http.server
import socket
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from sample.api import Api
from sample.ports import LOOPBACK, free_port, is_free, unread_bytes
from sample.streams import streams
from sample.troubles import Trouble


class Answering(http.server.BaseHTTPRequestHandler):
    """Answers as a node does: with a page of flags, or with metrics."""

    def do_GET(self) -> None:
        """Answer."""
        told = b"# HELP haltline_streams Open\nhaltline_streams 3.0\nhaltline_streams_other 9.0\n"
        if self.path.startswith("/v1/flags"):
            told = b'{"flags": [{"target": "run:r-1", "killed": true}], "next_cursor": null}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def answering() -> Iterator[int]:
    """The port of somebody who answers."""
    with http.server.HTTPServer((LOOPBACK, free_port()), Answering) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_the_next_port_is_asked(answering: int) -> None:
    """Where one control lane is gone, the sample asks the other."""
    gone = free_port()
    assert is_free(gone)
    assert Api([gone, answering], "hlt_x").killed() == {"run:r-1"}


def test_nobody_answers() -> None:
    """Where all are gone, that is a trouble which names the last one asked."""
    first, last = free_port(), free_port()
    with pytest.raises(Trouble, match=f"port {last} did not answer"):
        Api([first, last], "hlt_x").killed()


def test_streams_are_counted_by_the_node(answering: int) -> None:
    """What a node carries is what its metrics say."""
    assert streams(answering) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what waits at a port")
def test_what_waits_unread() -> None:
    """Bytes that came to a port count from when they are there until they are read; an open connection is none."""
    with contextlib.closing(socket.create_server((LOOPBACK, free_port()))) as listening:
        port = listening.getsockname()[1]
        with socket.create_connection((LOOPBACK, port)) as asking:
            assert unread_bytes(port) == 0
            asking.sendall(b"12345")
            until = time.monotonic() + 5
            while (waiting := unread_bytes(port)) == 0 and time.monotonic() < until:
                time.sleep(0.005)
            assert waiting == 5
            taken, _ = listening.accept()
            with taken:
                assert taken.recv(16) == b"12345"
                assert unread_bytes(port) == 0
