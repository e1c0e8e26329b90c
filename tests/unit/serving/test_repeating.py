"""Requests that repeat: the same head with another body is known again, anything else is parsed as ever."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from gunicorn import http
from gunicorn.config import Config
from gunicorn.http import errors, wsgi

from app.serving.repeating import HEAD_MAX, Requests

HEAD = b"POST /v1/lease HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\nContent-Length: %d\r\n\r\n"
PEER = ("127.0.0.1", 4_711)
NAME = ("127.0.0.1", 8_787)


class Line:
    """A connection, and how many of its requests were parsed and how many known again."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.settimeout(5)
        self.requests = Requests(http.get_parser(Config(), self.ours, PEER), self.ours)

    def send(self, data: bytes) -> None:
        """Send what may be a request, or a part of one."""
        self.theirs.sendall(data)

    def take(self) -> tuple[bool, dict[str, Any], bytes]:
        """Return whether the next request was known again, its environment, and its body."""
        again = self.requests.again()
        if again is not None:
            return True, again[1], again[1]["wsgi.input"].read()
        request = self.requests.parsed()
        _, environ = wsgi.create(request, self.ours, PEER, NAME, Config())
        self.requests.remember(request, environ)
        return False, environ, environ["wsgi.input"].read()


def request(body: bytes, head: bytes = HEAD) -> bytes:
    """Return a request as it is sent."""
    return head % len(body) + body


@pytest.fixture
def line() -> Iterator[Line]:
    """Return a connection."""
    made = Line()
    yield made
    made.ours.close()
    made.theirs.close()


def test_the_same_head_is_known_again(line: Line) -> None:
    """A second request with the same head and a body of the same length has its own body and the same environment."""
    line.send(request(b"one"))
    first = line.take()
    line.send(request(b"two"))
    second = line.take()
    assert [first[0], second[0]] == [False, True]
    assert [first[2], second[2]] == [b"one", b"two"]
    assert {**first[1], "wsgi.input": 0} == {**second[1], "wsgi.input": 0}


@pytest.mark.parametrize("body", [b"a body of another length", b"", b"x" * 1_000])
def test_a_body_of_another_length_is_one_too(line: Line, body: bytes) -> None:
    """The length of the body may differ: it is the body's, and what the application reads."""
    line.send(request(b"one"))
    line.take()
    line.send(request(body))
    known, environ, read = line.take()
    assert (known, read, environ["CONTENT_LENGTH"]) == (True, body, str(len(body)))
    line.send(request(b"two"))
    assert line.take()[::2] == (True, b"two")


@pytest.mark.parametrize("stated", [b"+3", b" 3", b"3 ", b"0x3", b"-3", b"3,3", b"", b"\xb2"])
def test_a_length_that_is_none_is_gunicorns_to_judge(line: Line, stated: bytes) -> None:
    """Only digits are taken for a length here."""
    line.send(request(b"one"))
    line.take()
    line.send(request(b"two").replace(b"Length: 3", b"Length: " + stated))
    assert line.requests.again() is None


def test_a_length_beyond_what_came_is_not_guessed(line: Line) -> None:
    """A request whose body has not all come, or with more behind it, is read as ever."""
    line.send(request(b"one"))
    line.take()
    line.send(request(b"one").replace(b"Length: 3", b"Length: 2"))
    known, _, body = line.take()
    assert (known, body) == (False, b"on")


def test_a_part_of_a_body_is_not_taken_for_a_head(line: Line) -> None:
    """A request of which a part has come is not remembered, whatever the lengths happen to be."""
    head = HEAD % 100_000
    for length in (len(head) + 2 * 40 - 3, len(head) + 2 * 40):
        head = HEAD % length
        whole = head + b"x" * length
        first = whole[: len(head) + (length - len(head)) // 2]
        line.send(first)
        request_ = line.requests.again() or line.requests.parsed()
        _, environ = wsgi.create(request_, line.ours, PEER, NAME, Config())
        line.requests.remember(request_, environ)
        assert line.requests.body_of is None
        line.send(whole[len(first) :])
        assert environ["wsgi.input"].read() == b"x" * length
        assert line.requests.body_of is None


def test_what_came_with_the_next_request_is_known_to_be_there(line: Line) -> None:
    """While a part of the next request is read already, nobody else may read from the socket."""
    line.send(request(b"one"))
    line.take()
    assert line.requests.body_of is not None
    line.requests._reader.unread(b"POST")  # noqa: SLF001 - as a parser that has read too far leaves it
    assert line.requests.body_of is None


def test_what_is_forgotten_is_parsed(line: Line) -> None:
    """Once told to forget, it parses what comes next, and remembers that."""
    line.send(request(b"one"))
    line.take()
    line.requests.forget()
    line.send(request(b"two"))
    assert line.take()[::2] == (False, b"two")
    line.send(request(b"six"))
    assert line.take()[::2] == (True, b"six")


def test_what_was_done_to_the_environment_is_not_repeated(line: Line) -> None:
    """What an application wrote into an environment is not in that of the next request."""
    line.send(request(b"one"))
    line.take()[1]["haltline.failed"] = True
    line.send(request(b"two"))
    known, environ, _ = line.take()
    assert known
    assert "haltline.failed" not in environ


@pytest.mark.parametrize(
    "other",
    [
        request(b"two", HEAD.replace(b"Bearer t", b"Bearer u")),
        request(b"two", HEAD.replace(b"/v1/lease", b"/v1/leasE")),
        request(b"two", HEAD.replace(b"Host: x", b"Host: y")),
        b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_anything_else_is_parsed(line: Line, other: bytes) -> None:
    """A head that differs in one byte is parsed, and is what is compared with from then on."""
    line.send(request(b"one"))
    line.take()
    line.send(other)
    known, environ, body = line.take()
    assert not known
    assert other.endswith(body)
    assert environ["RAW_URI"].encode() in other
    line.send(other)
    assert line.take()[0] is (b"POST" in other)


def test_two_at_once_are_two(line: Line) -> None:
    """Requests that come in one piece are told apart, and none is taken for the body of another."""
    line.send(request(b"one") + request(b"two") + request(b"six"))
    assert [line.take()[2] for _ in range(3)] == [b"one", b"two", b"six"]
    line.send(request(b"ten"))
    assert line.take()[2] == b"ten"


def test_a_body_that_comes_later_is_waited_for(line: Line) -> None:
    """A repeated head without its body is parsed, and the body read as ever."""
    line.send(request(b"one"))
    line.take()
    whole = request(b"two")
    line.send(whole[:-2])
    line.send(whole[-2:])
    assert line.take()[2] == b"two"
    line.send(request(b"six"))
    assert line.take()[2] == b"six"


def test_a_head_in_pieces_is_put_together(line: Line) -> None:
    """A head that comes in parts is parsed whole, whatever was remembered."""
    line.send(request(b"one"))
    line.take()
    whole = request(b"two")
    line.send(whole[:20])
    line.send(whole[20:])
    assert line.take()[2] == b"two"


def test_a_long_head_is_not_kept(line: Line) -> None:
    """What is remembered for each connection is bounded."""
    head = HEAD.replace(b"Host: x", b"Host: " + b"x" * HEAD_MAX)
    line.send(request(b"one", head))
    line.take()
    line.send(request(b"two", head))
    known, _, body = line.take()
    assert (known, body) == (False, b"two")


def test_the_end_of_the_connection_is_its_end(line: Line) -> None:
    """When nothing comes any more there is no request, repeated or not."""
    line.send(request(b"one"))
    line.take()
    line.theirs.close()
    with pytest.raises((StopIteration, errors.NoMoreData)):
        line.take()
