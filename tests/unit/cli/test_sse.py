"""The reader of server-sent events: cut anywhere, whole or nothing, and only what the service writes is taken."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haltline.cli.sse import Event, InvalidStream, Parser

STREAM = (
    b'retry: 1000\nid: 41\n\n: ping\n\nid: 42\nevent: kill\ndata: {"a":"\xc3\xa9: x"}\n\n'
    b'id: 43\nevent: stub\ndata: {}\n\nevent: end\ndata: {"reason": "token"}\n\n'
)
EVENTS = [
    Event("", 41, None),
    Event("kill", 42, '{"a":"é: x"}'),
    Event("stub", 43, "{}"),
    Event("end", None, '{"reason": "token"}'),
]


def read(*chunks: bytes, limit: int = 1_000) -> list[Event]:
    """Return the events of a stream that comes in these pieces."""
    parser = Parser(limit=limit)
    return [event for chunk in chunks for event in parser.take(chunk)]


@given(st.sets(st.integers(0, len(STREAM))))
def test_cuts_do_not_matter(cuts: set[int]) -> None:
    """However a stream is cut, the same events come out."""
    edges = [0, *sorted(cuts), len(STREAM)]
    assert read(*(STREAM[low:high] for low, high in pairwise(edges))) == EVENTS


@pytest.mark.parametrize("length", range(len(STREAM)))
def test_a_part_of_an_event_is_none(length: int) -> None:
    """A stream that ends anywhere has given whole events only, and those that it would have given."""
    found = read(STREAM[:length])
    assert found == EVENTS[: len(found)]


@pytest.mark.parametrize(
    ("stream", "event"),
    [
        (b"id:7\nevent:note\ndata:x\n\n", Event("note", 7, "x")),
        (b"data:  two spaces\n\n", Event("", None, " two spaces")),
        (b"data\n\n", Event("", None, "")),
        (b"id: 9007199254740991\n\n", Event("", 9007199254740991, None)),
        (b"\n\n\n: id: 1\nretry: 5\nfuture: x\nid: 0\n\n", Event("", 0, None)),
        (b"data: a:b: c\n\n", Event("", None, "a:b: c")),
    ],
)
def test_the_format(stream: bytes, event: Event) -> None:
    """One space behind the colon belongs to the format; comments and fields that are not ours are passed over."""
    assert read(stream) == [event]


@pytest.mark.parametrize(
    "stream",
    [
        b"id: 01\n\n",
        b"id: -1\n\n",
        b"id: +1\n\n",
        b"id: 1.0\n\n",
        b"id:  1\n\n",
        b"id: 1 \n\n",
        b"id: \n\n",
        b"id: 9007199254740992\n\n",
        b"id: 99999999999999999999\n\n",
        b"id: \xd9\xa1\n\n",
        b"id: 1\nid: 2\n\n",
        b"data: a\ndata: b\n\n",
        b"event: a\nevent: a\n\n",
        b"id: 1\r\n\r\n",
        b"data: a\rid: 9\n\n",
        b"data: a\x00\n\n",
        b"data: \xff\n\n",
        b"data: \xed\xa0\x80\n\n",
        b"x" * 1_001,
        b"data: " + b"x" * 1_000 + b"\n\n",
    ],
)
def test_what_is_refused(stream: bytes) -> None:
    """Ids that are no positions, doubled fields, other line ends, other encodings and endless lines end the stream."""
    with pytest.raises(InvalidStream):
        read(stream)
    with pytest.raises(InvalidStream):
        read(*(bytes([each]) for each in stream))


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_noise(chunks: list[bytes]) -> None:
    """Whatever comes, it is events or one kind of error, and no more than a line is kept."""
    parser = Parser(limit=100)
    try:
        for chunk in chunks:
            for event in parser.take(chunk):
                assert event.id is None or event.id >= 0
    except InvalidStream:
        return


def test_comments_without_end_take_no_memory() -> None:
    """A megabyte of comments between two fields is passed over as it comes."""
    parser = Parser(limit=100)
    assert list(parser.take(b"id: 1\n")) == []
    for _ in range(10_000):
        assert list(parser.take(b": " + b"x" * 90 + b"\n")) == []
    assert list(parser.take(b"\n")) == [Event("", 1, None)]
