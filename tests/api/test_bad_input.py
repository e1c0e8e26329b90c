"""Bad input: what naive services answer with 500, or accept in silence."""

from __future__ import annotations

import json

import pytest

from tests.api.desk import Desk, members, problem

GOOD = b'{"target": "run:r-1", "reason": "why"}'

BODIES = {
    "empty": (b"", 400),
    "not JSON": (b"target=run:r-1", 400),
    "truncated": (GOOD[:-1], 400),
    "two documents": (GOOD + GOOD, 400),
    "duplicate key": (b'{"target": "run:r-1", "target": "global", "reason": "why"}', 400),
    "NaN": (b'{"target": "run:r-1", "reason": NaN}', 400),
    "Infinity": (b'{"target": "run:r-1", "reason": -Infinity}', 400),
    "fraction": (b'{"target": "run:r-1", "reason": 1.5}', 400),
    "huge integer": (b'{"target": "run:r-1", "reason": ' + b"9" * 5000 + b"}", 400),
    "UTF-16": (GOOD.decode().encode("utf-16"), 400),
    "byte order mark": (b"\xef\xbb\xbf" + GOOD, 400),
    "invalid UTF-8": (b'{"target": "run:r-1", "reason": "\xff"}', 400),
    "lone surrogate": (b'{"target": "run:r-1", "reason": "\\ud800"}', 400),
    "nested": (b"[" * 8_000 + b"]" * 8_000, 400),
    "nested past the cap": (b"[" * 100_000 + b"]" * 100_000, 413),
    "too large": (b'{"target": "run:r-1", "reason": "' + b"x" * 16_384 + b'"}', 413),
    "a list": (b"[1]", 422),
    "null": (b"null", 422),
    "text": (b'"kill"', 422),
    "NUL in the reason": (b'{"target": "run:r-1", "reason": "a\\u0000b"}', 422),
    "NUL in the target": (b'{"target": "run:a\\u0000b", "reason": "why"}', 422),
    "a dict as reason": (b'{"target": "run:r-1", "reason": {"a": 1}}', 422),
    "a list as target": (b'{"target": ["run:r-1"], "reason": "why"}', 422),
    "missing reason": (b'{"target": "run:r-1"}', 422),
    "null reason": (b'{"target": "run:r-1", "reason": null}', 422),
    "blank reason": (b'{"target": "run:r-1", "reason": "  "}', 422),
    "reason that turns text": (b'{"target": "run:r-1", "reason": "a\\u202eb"}', 422),
    "missing target": (b'{"reason": "why"}', 422),
    "unknown field": (b'{"target": "run:r-1", "reason": "why", "force": true}', 422),
    "name that is not ASCII": ('{"target": "run:r-1", "reason": "why", "ré": 1}'.encode(), 422),
}


@pytest.mark.parametrize("name", BODIES)
def test_bad_bodies(shared: Desk, name: str) -> None:
    """A body that is not exactly what was asked for is a clear problem, never a fault and never a kill."""
    body, status = BODIES[name]
    before = members(shared.call("GET", "/v1/log"))["seq"]
    response = shared.call("POST", "/v1/kills", raw=body)
    assert response.status_code == status, response.get_data()
    assert response.content_type == "application/problem+json"
    assert members(shared.call("GET", "/v1/log"))["seq"] == before


@pytest.mark.parametrize("member", ["reason", "target", "flip_id"])
def test_a_token_is_not_written_into_the_log(shared: Desk, member: str) -> None:
    """A token pasted by mistake would stay in an append-only log: it is refused, and the refusal does not repeat it."""
    token = shared.tokens["worker"]
    body = {"target": "run:r-1", "reason": "why", "flip_id": "f-token"}
    body[member] = f"run:{token}" if member == "target" else token
    before = members(shared.call("GET", "/v1/log"))["seq"]
    response = shared.call("POST", "/v1/kills", body)
    assert response.status_code == 422
    assert "token" in problem(response, "invalid_fields")["errors"][member][0]
    assert token.rpartition("_")[2] not in response.get_data(as_text=True)
    assert members(shared.call("GET", "/v1/log"))["seq"] == before


@pytest.mark.parametrize("member", ["subject", "tenants"])
def test_a_token_is_not_written_into_the_note_of_another(shared: Desk, member: str) -> None:
    """The note of a new token names its subject and tenants: neither may be a token."""
    token = shared.tokens["worker"]
    body = {"subject": "ada", "role": "worker", "tenants": ["acme"]}
    body[member] = [token] if member == "tenants" else token
    response = shared.call("POST", "/v1/tokens", body)
    (field,) = problem(response, "invalid_fields")["errors"]
    assert field.partition(".")[0] == member
    assert token.rpartition("_")[2] not in response.get_data(as_text=True)


TARGETS = [
    "",
    ":",
    "run",
    "run:",
    ":r-1",
    "global:",
    "global:x",
    "Run:r-1",
    "RUN:r-1",
    "runs:r-1",
    "process:r-1",
    "run: r-1",
    "run:r-1 ",
    "run:r-1\n",
    "\trun:r-1",
    "run:*",
    "run:r%",
    "run:-r",
    "run:.r",
    "run:r/1",
    "run:r\\1",
    "run:\uff52-1",
    "run:r\u0131",
    "run:\u0435-1",
    "run:\u0661",
    "run:a\u0301",
    "run:a\u200b",
    "run:" + "a" * 129,
    "run:" + "a" * 10_000,
    "capability:Send_Email",
    "capability:send email",
]


@pytest.mark.parametrize("target", TARGETS, ids=range(len(TARGETS)))
def test_bad_targets(shared: Desk, target: str) -> None:
    """A target outside the grammar is refused by name, never trimmed, folded or normalised into another."""
    told = problem(shared.kill(target), "invalid_fields")
    assert "target" in told["errors"]
    assert len(json.dumps(told)) < 1_000


@pytest.mark.parametrize("flip_id", ["", " ", "a b", "é", "a" * 129, "-a", 7, None, {"a": 1}])
def test_bad_flip_ids(shared: Desk, flip_id: object) -> None:
    """A flip_id has the id grammar."""
    assert "flip_id" in problem(shared.kill(flip_id=flip_id), "invalid_fields")["errors"]


@pytest.mark.parametrize(
    "holds", [[], [0], [-1], ["1"], [1.0], [True], [None], [2**53], [1, 1], "1", {"1": 1}, None, list(range(1, 1_002))]
)
def test_bad_holds(shared: Desk, holds: object) -> None:
    """Holds is a list of positions, each once."""
    body = {"target": "run:r-1", "holds": holds, "reason": "why"}
    response = shared.call("POST", "/v1/revives", body, headers={"If-Match": '"x"'})
    # Fractions and integers beyond 2^53 - 1 are not even JSON of this protocol.
    assert response.status_code == (400 if str(holds) in {"[1.0]", "[9007199254740992]"} else 422)


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 201),
        ("application/json; charset=utf-8", 201),
        ("application/json;charset=UTF-8", 201),
        ("application/json; charset=latin-1", 415),
        ("application/json; version=2", 415),
        ("application/vnd.api+json", 415),
        ("text/json", 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("", 415),
    ],
)
def test_content_types(shared: Desk, content_type: str, status: int) -> None:
    """Only a body that is declared as JSON in UTF-8 is read."""
    response = shared.call("POST", "/v1/kills", raw=GOOD, headers={"Content-Type": content_type})
    assert response.status_code == status


def test_compressed_bodies_are_refused(shared: Desk) -> None:
    """A compressed body is not unpacked: it could be a bomb."""
    response = shared.call("POST", "/v1/kills", raw=GOOD, headers={"Content-Encoding": "gzip"})
    problem(response, "unsupported_media_type")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/flags/run/a%00b", 422),
        ("/v1/flags/run/%ff%fe", 422),
        ("/v1/flags/run/%EF%BF%BD", 422),
        ("/v1/flags/run/a%20b", 422),
        ("/v1/flags/run/a%0A", 422),
        ("/v1/flags/run/" + "a" * 129, 422),
        ("/v1/flags/Run/a", 422),
        ("/v1/flags/process/a", 422),
        ("/v1/flags/global/a", 422),
        ("/v1/flags/capability/Send", 422),
        ("/v1/flags/run/a%2Fb", 404),
        ("/v1/flags/run/", 404),
        ("/v1/flags/run//a", 404),
        ("//v1/flags", 404),
        ("/v1//flags", 404),
        ("/v1/flags/../tokens", 422),
        ("/v1/log/0", 422),
        ("/v1/log/-1", 422),
        ("/v1/log/1.0", 422),
        ("/v1/log/01", 422),
        ("/v1/log/%D9%A1", 422),
        ("/v1/log/" + "9" * 400, 422),
        ("/v1/log?limit=0", 422),
        ("/v1/log?limit=1001", 422),
        ("/v1/log?limit=", 422),
        ("/v1/log?limit=1e2", 422),
        ("/v1/log?limit=%D9%A1", 422),
        ("/v1/log?limit=1&limit=2", 422),
        ("/v1/log?cursor=-1", 422),
        ("/v1/log?cursor=9007199254740992", 422),
        ("/v1/log?since=yesterday", 422),
        ("/v1/log?since=2026-02-30T00:00:00Z", 422),
        ("/v1/log?kind=permit", 422),
        ("/v1/log?scope=Run", 422),
        ("/v1/log?target=run:a%00", 422),
        ("/v1/log?actor=%27%20OR%201=1", 422),
        ("/v1/log?unknown=1", 422),
        ("/v1/flags?cursor=zzz", 422),
        ("/v1/tokens?cursor=zzz", 422),
        ("/static/../operations.py", 404),
        ("/static/%2e%2e/operations.py", 404),
    ],
)
def test_bad_paths_and_queries(shared: Desk, path: str, status: int) -> None:
    """A path or query outside its grammar is refused; nothing is collapsed, merged or redirected."""
    response = shared.call("GET", path)
    assert response.status_code == status, response.get_data()
    assert response.content_type == "application/problem+json"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "TRACE", "KILL"])
def test_only_post_kills(shared: Desk, method: str) -> None:
    """A redirected or mistyped kill is 405 and says what is allowed; it never looks as if it had killed."""
    response = shared.call(method, "/v1/kills")
    assert response.status_code == 405
    assert "POST" in response.headers["Allow"]


@pytest.mark.parametrize("path", ["/v1/kills/", "/v1//kills", "//v1/kills", "/v1/kills//", "/V1/kills", "/v1/kills%2F"])
def test_no_kill_is_redirected(shared: Desk, path: str) -> None:
    """A kill to a path that is almost right either kills or is refused; it is never sent elsewhere."""
    response = shared.call("POST", path, {"target": "run:r-1", "reason": "why"})
    assert response.status_code in {201, 404}
    assert "seq" in members(response) or members(response)["code"] == "not_found"


def test_a_slash_at_the_end_kills_too(shared: Desk) -> None:
    """Where other frameworks redirect, or lose the kill, this one just kills."""
    assert shared.call("POST", "/v1/kills/", {"target": "run:r-1", "reason": "why"}).status_code == 201


def test_no_route_redirects(shared: Desk) -> None:
    """No route, with or without a slash at its end, ever answers with a redirect."""
    for rule in shared.app.url_map.iter_rules():
        path = rule.rule.replace("<path:filename>", "docs.css").replace("<scope>", "run").replace("<id>", "a")
        path = path.replace("<seq>", "1").replace("<token_id>", "a" * 12)
        for each in (path, path + "/", path.replace("/", "//"), path.upper()):
            for method in ("GET", "POST", "DELETE"):
                with shared.call(method, each) as response:
                    assert not 300 <= response.status_code < 400, (method, each)
