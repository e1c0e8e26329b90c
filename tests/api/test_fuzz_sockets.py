"""Hostile bytes to a real server: every one answered with its exact status, none of them written or repeated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

import pytest

from tests.api.hostile import JSON
from tests.api.test_fuzz_hostile import TABLES, wrong
from tests.e2e.server import Server
from tests.support.fuzz_raw import answers, exchange, request
from tests.support.fuzz_witness import complaints

KILL: Final = b'{"target": "run:r-1", "reason": "why"}'
SIZE: Final = str(len(KILL)).encode()
START: Final = b"POST /v1/kills HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
TYPED: Final = START + b"Content-Type: application/json\r\n"
FLAG: Final = b"GET /v1/flags/global HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
CHUNKED: Final = TYPED + b"Transfer-Encoding: chunked\r\n\r\n"
WHOLE: Final = b"%x\r\n%s\r\n" % (len(KILL), KILL)
FRAMED: Final = b"Content-Length: " + SIZE + b"\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield a running server, and see that its journal told nothing that it should not."""
    with Server(tmp_path_factory.mktemp("sockets"), more={"HALTLINE_TTL_MS": "5000"}) as running:
        yield running
        assert running.token.split("_")[3] not in running.err
        assert "Traceback" not in running.err


def head(server: Server) -> int:
    """Return the seq of the log's newest entry."""
    return int(server.call("GET", "/v1/flags/global").members["seq"])


REFUSED: Final[dict[str, tuple[bytes, int]]] = {
    # What is no request line.
    "nothing but a method": (b"GET\r\n\r\n", 400),
    "no version": (b"GET /livez\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /livez HTTP/0.9\r\n\r\n", 400),
    "HTTP/9.9": (b"GET /livez HTTP/9.9\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "TLS": (bytes.fromhex("16030100c8010000c40303") + b"\x00" * 189 + b"\r\n\r\n", 400),
    "binary": (b"\x00\x01\x02\xff\xfe\r\n\r\n", 400),
    "a word too many": (b"GET /livez HTTP/1.1 x\r\n\r\n", 400),
    "a space in the path": (b"GET /v1/flags/run/a b HTTP/1.1\r\n\r\n", 400),
    "a method in lower case": (START.replace(b"POST", b"post") + FRAMED + b"\r\n" + KILL, 400),
    "a method with a space": (b"PO ST /v1/kills HTTP/1.1\r\n\r\n", 400),
    "CONNECT": (b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    "a request line of 5 kB": (b"GET /" + b"a" * 5_000 + b" HTTP/1.1\r\n\r\n", 414),
    "a request line of 1 MB": (b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n", 414),
    # Headers.
    "100 headers": (FLAG + b"".join(b"X-%d: 1\r\n" % n for n in range(100)) + b"\r\n", 431),
    "a header of 8 kB": (FLAG + b"X: " + b"a" * 8_000 + b"\r\n\r\n", 431),
    "a token of 8 kB": (b"GET /v1/flags HTTP/1.1\r\nAuthorization: Bearer " + b"a" * 8_000 + b"\r\n\r\n", 431),
    "headers of 1 MB": (FLAG + b"X: 1\r\n" * 200_000 + b"\r\n", 431),
    "no colon": (FLAG + b"nonsense\r\n\r\n", 400),
    "a space before the colon": (FLAG + b"X : 1\r\n\r\n", 400),
    "a folded header": (FLAG + b"X: 1\r\n 2\r\n\r\n", 400),
    "NUL in a header": (FLAG + b"X: a\x00b\r\n\r\n", 400),
    "NUL in the token": (b"GET /v1/flags HTTP/1.1\r\nAuthorization: Bearer {token}\x00\r\n\r\n", 400),
    "a lone carriage return": (FLAG + b"X: a\rX-Injected: b\r\n\r\n", 400),
    "lone line feeds": (FLAG.replace(b"\r\n", b"\n") + b"\n", 400),
    "an empty header name": (FLAG + b": 1\r\n\r\n", 400),
    "a header name that is not ASCII": (FLAG + "\u00e9: 1\r\n\r\n".encode(), 400),
    "another expectation": (TYPED + FRAMED + b"Expect: a-miracle\r\n\r\n" + KILL, 400),
    # How long the body is.
    "length twice, different": (TYPED + FRAMED + b"Content-Length: 1\r\n\r\n" + KILL, 400),
    "length as a list": (TYPED + b"Content-Length: " + SIZE + b", 1\r\n\r\n" + KILL, 400),
    "length negative": (TYPED + b"Content-Length: -1\r\n\r\n" + KILL, 400),
    "length signed": (TYPED + b"Content-Length: +" + SIZE + b"\r\n\r\n" + KILL, 400),
    "length in hexadecimal": (TYPED + b"Content-Length: 0x26\r\n\r\n" + KILL, 400),
    "length as a fraction": (TYPED + b"Content-Length: 38.0\r\n\r\n" + KILL, 400),
    "length no number": (TYPED + b"Content-Length: many\r\n\r\n" + KILL, 400),
    "length in Arabic digits": (TYPED + "Content-Length: \u0663\u0668\r\n\r\n".encode() + KILL, 400),
    "length of 4000 digits": (TYPED + b"Content-Length: " + b"9" * 4_000 + b"\r\n\r\n" + KILL, 413),
    "length and chunked": (TYPED + FRAMED + b"Transfer-Encoding: chunked\r\n\r\n" + WHOLE + b"0\r\n\r\n", 400),
    "chunked, then gzip": (TYPED + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + WHOLE + b"0\r\n\r\n", 400),
    "chunked twice": (TYPED + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n" + WHOLE + b"0\r\n\r\n", 400),
    "another coding": (TYPED + b"Transfer-Encoding: xchunked\r\n\r\n" + WHOLE + b"0\r\n\r\n", 400),
    "no length": (TYPED + b"\r\n" + KILL, 400),
    "length too small": (TYPED + b"Content-Length: 10\r\n\r\n" + KILL, 400),
    "length too large": (TYPED + b"Content-Length: 500\r\n\r\n" + KILL, 400),
    "length of 20 kB, a kill": (TYPED + b"Content-Length: 20000\r\n\r\n" + KILL, 413),
    "length of 1 TB": (TYPED + b"Content-Length: 1000000000000\r\n\r\n" + KILL, 413),
    "a chunk of no size": (CHUNKED + b"\r\n" + KILL + b"\r\n0\r\n\r\n", 400),
    "a chunk size that is none": (CHUNKED + b"zz\r\n" + KILL + b"\r\n0\r\n\r\n", 400),
    "a negative chunk size": (CHUNKED + b"-26\r\n" + KILL + b"\r\n0\r\n\r\n", 400),
    "a chunk size of 200 digits": (CHUNKED + b"f" * 200 + b"\r\n" + KILL, 0),
    "a chunk too short": (CHUNKED + b"5\r\n" + KILL + b"\r\n0\r\n\r\n", 400),
    "chunks without an end": (CHUNKED + WHOLE, 0),
    "chunks of 20 kB": (CHUNKED + (b"1000\r\n" + b" " * 4_096 + b"\r\n") * 5 + WHOLE + b"0\r\n\r\n", 413),
    # Headers that stand twice, or that look like others.
    "two good tokens": (FLAG + b"Authorization: Bearer {token}\r\n\r\n", 401),
    "a bad token, then a good one": (FLAG.replace(b"Host", b"Authorization: Bearer x\r\nHost") + b"\r\n", 401),
    "a token by another name": (b"GET /v1/flags HTTP/1.1\r\nHTTP_AUTHORIZATION: Bearer {token}\r\n\r\n", 401),
    "type twice": (TYPED + b"Content-Type: application/json\r\n" + FRAMED + b"\r\n" + KILL, 400),
    "type twice, different": (TYPED + b"Content-Type: text/plain\r\n" + FRAMED + b"\r\n" + KILL, 400),
    "type by another name": (START + b"CONTENT_TYPE: application/json\r\n" + FRAMED + b"\r\n" + KILL, 415),
    "invalid UTF-8 in the path": (b"GET /v1/flags/run/\xff HTTP/1.1\r\nAuthorization: Bearer {token}\r\n\r\n", 400),
    "UTF-8 in the path": ("GET /v1/flags/run/\u00e9 HTTP/1.1\r\nAuthorization: Bearer {token}\r\n\r\n".encode(), 400),
    "a fragment": (b"GET /v1/flags/global#/../x HTTP/1.1\r\nHost: localhost\r\n\r\n", 401),
    "an absolute address, no token": (b"POST http://evil.example/v1/kills HTTP/1.1\r\nHost: x\r\n\r\n", 401),
    "an asterisk": (b"GET * HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "forwarded path": (b"GET /nowhere HTTP/1.1\r\nPATH_INFO: /v1/flags\r\nSCRIPT_NAME: /nowhere\r\n\r\n", 404),
}
"""What is sent, ``{token}`` standing for a good one, and the status of the first reply; 0 for none.

There is none where a request never ended. Nothing is ever killed."""


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_bytes(server: Server, name: str) -> None:
    """Bytes that are no good request are answered with a problem, and nothing comes of them."""
    sent, status = REFUSED[name]
    before = head(server)
    got = exchange(server.port, sent.replace(b"{token}", server.token.encode()))
    found = answers("GET", "/", got)
    assert (found[0].status if found else 0) == status, got[:500]
    for answer in found:
        assert complaints(answer) == [], got[:500]
        assert answer.status >= 400
    assert b"evil.example" not in got
    assert head(server) == before


@pytest.mark.timeout(240)
@pytest.mark.parametrize("table", TABLES)
def test_hostile_requests_over_the_network(server: Server, table: str) -> None:
    """What is refused in process is refused with the same status by the server as it is run."""
    before = head(server)
    found = []
    for each in TABLES[table]():
        if each.who not in {None, "admin"} or any(not value.isascii() for _, value in each.headers):
            continue
        headers = [(name, value.replace("{admin}", server.token)) for name, value in each.headers]
        if each.who == "admin":
            headers.append(("Authorization", f"Bearer {server.token}"))
        path = each.path.replace("{admin}", server.token)
        method = each.method
        sent = request(method, path, headers=(*headers, ("Connection", "close")), body=each.body)
        got = answers(method, each.path.partition("?")[0], exchange(server.port, sent, half_close=False))
        if len(got) != 1:
            found.append(f"{each.name}: {len(got)} replies")
            continue
        status = each.served if each.served is not None else each.status
        found += [text for text in (wrong(each, got[0], status=status), *complaints(got[0])) if text is not None]
    assert "\n".join(found) == ""
    assert head(server) == before


def test_pipelined_kills(server: Server) -> None:
    """Two kills in one packet are two kills, answered in their order."""
    one, two = (
        request(
            "POST",
            "/v1/kills",
            headers=(*JSON, ("Authorization", f"Bearer {server.token}")),
            body=json.dumps({"target": f"run:pipe-{number}", "reason": "why"}).encode(),
        )
        for number in (1, 2)
    )
    found = answers("POST", "/v1/kills", exchange(server.port, one + two))
    assert [answer.status for answer in found] == [201, 201]
    assert [answer.members["target"] for answer in found] == ["run:pipe-1", "run:pipe-2"]


def test_a_kill_and_garbage(server: Server) -> None:
    """Garbage after a good kill takes nothing back and adds nothing: one kill, one refusal."""
    before = head(server)
    kill = TYPED.replace(b"{token}", server.token.encode()) + FRAMED + b"\r\n" + KILL
    found = answers("POST", "/v1/kills", exchange(server.port, kill + b"\x00garbage\r\n\r\n"))
    assert [answer.status for answer in found] == [201, 400]
    assert head(server) == before + 1


def test_good_requests_in_odd_shapes(server: Server) -> None:
    """Chunks, one byte at a time, an absolute address and a slash at the end are all good kills."""
    token = server.token.encode()
    small = b"".join(b"1\r\n%c\r\n" % byte for byte in KILL) + b"0\r\n\r\n"
    shapes = {
        "chunks of one byte": CHUNKED + small,
        "a chunk with an extension": CHUNKED + WHOLE.replace(b"\r\n", b";a=b\r\n", 1) + b"0\r\n\r\n",
        "trailers": CHUNKED + WHOLE + b"0\r\nX: 1\r\n\r\n",
        "an absolute address": TYPED.replace(b" /v1", b" http://evil.example/v1") + FRAMED + b"\r\n" + KILL,
        "a slash at the end": TYPED.replace(b"kills", b"kills/") + FRAMED + b"\r\n" + KILL,
        "HTTP/1.0": TYPED.replace(b"HTTP/1.1", b"HTTP/1.0") + FRAMED + b"\r\n" + KILL,
        "expecting to go on": TYPED + FRAMED + b"Expect: 100-continue\r\n\r\n" + KILL,
    }
    for name, sent in shapes.items():
        before = head(server)
        got = exchange(server.port, sent.replace(b"{token}", token))
        got = got.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        (answer,) = answers("POST", "/v1/kills", got)
        assert (answer.status, complaints(answer)) == (201, []), name
        assert b"evil" not in got
        assert head(server) == before + 1, name


def test_the_server_goes_on(server: Server) -> None:
    """After all of it, the same process still answers."""
    assert server.call("GET", "/readyz").status == 200
    assert server.kill("run:last").status == 201
