"""Hostile bodies and headers: JSON that parsers disagree about, types, tokens, methods and views, on every route."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from tests.api.hostile import GOOD, JSON, OPEN_ROUTES, ROUTES, Hostile, posted, text

GOOD_KILL: Final = text(GOOD["/v1/kills"])

BODIES: Final[Mapping[str, tuple[bytes, int]]] = {
    "empty": (b"", 400),
    "blank": (b"  \n", 400),
    "a form": (b"target=run:r-1&reason=why", 400),
    "XML": (b"<?xml version='1.0'?><kill/>", 400),
    "truncated": (GOOD_KILL[:-1], 400),
    "two documents": (GOOD_KILL + GOOD_KILL, 400),
    "JSON lines": (GOOD_KILL + b"\n" + GOOD_KILL, 400),
    "NUL after it": (GOOD_KILL + b"\x00", 400),
    "comma at the end": (GOOD_KILL[:-1] + b",}", 400),
    "single quotes": (GOOD_KILL.replace(b'"', b"'"), 400),
    "a comment": (b"/* */" + GOOD_KILL, 400),
    "names without quotes": (b"{target: 1}", 400),
    "duplicate key": (b'{"target": "run:r-1", "target": "global", "reason": "why"}', 400),
    "duplicate key by escape": (b'{"target": "run:r-1", "t\\u0061rget": "global", "reason": "why"}', 400),
    "duplicate key below": (b'{"target": {"a": 1, "a": 2}}', 400),
    "NaN": (b'{"target": NaN}', 400),
    "Infinity": (b'{"target": Infinity}', 400),
    "-Infinity": (b'{"target": -Infinity}', 400),
    "1e400": (b'{"seq": 1e400}', 400),
    "1e2": (b'{"seq": 1e2}', 400),
    "fraction": (b'{"seq": 1.0}', 400),
    "minus zero fraction": (b'{"seq": -0.0}', 400),
    "leading zero": (b'{"seq": 01}', 400),
    "hexadecimal": (b'{"seq": 0x1}', 400),
    "5000 digits": (b'{"seq": ' + b"9" * 5_000 + b"}", 400),
    "16000 digits": (b'{"seq": ' + b"9" * 16_000 + b"}", 400),
    "2^53": (b'{"seq": 9007199254740992}', 400),
    "UTF-16": (GOOD_KILL.decode().encode("utf-16"), 400),
    "UTF-16 without a mark": (GOOD_KILL.decode().encode("utf-16-le"), 400),
    "UTF-32": (GOOD_KILL.decode().encode("utf-32"), 400),
    "byte order mark": (b"\xef\xbb\xbf" + GOOD_KILL, 400),
    "latin-1": ('{"reason": "caf\u00e9"}'.encode("latin-1"), 400),
    "overlong UTF-8": (b'{"reason": "\xc0\xaf"}', 400),
    "surrogate in UTF-8": (b'{"reason": "\xed\xa0\x80"}', 400),
    "lone surrogate": (b'{"reason": "\\ud800"}', 400),
    "lone low surrogate": (b'{"reason": "\\udc00x"}', 400),
    "surrogate as a name": (b'{"\\ud800": 1}', 400),
    "control character in text": (b'{"reason": "a\nb"}', 400),
    "bad escape": (b'{"reason": "\\x41"}', 400),
    "9 levels": (b"[" * 9 + b"]" * 9, 400),
    "8000 levels": (b"[" * 8_000 + b"]" * 8_000, 400),
    "8000 levels, open": (b"[" * 8_000, 400),
    "objects 2000 deep": (b'{"a":' * 2_000 + b"1" + b"}" * 2_000, 400),
    "200000 levels": (b"[" * 200_000 + b"]" * 200_000, 413),
    "one byte too many": (b" " * (16_385 - len(GOOD_KILL)) + GOOD_KILL, 413),
    "1 MB": (b" " * 1_000_000, 413),
    "a list": (b"[1]", 422),
    "a list of it": (b"[" + GOOD_KILL + b"]", 422),
    "text": (b'"kill"', 422),
    "number": (b"7", 422),
    "null": (b"null", 422),
    "true": (b"true", 422),
    "empty object": (b"{}", 422),
    "empty name": (b'{"": 1}', 422),
    "5000 members": (b"{" + b",".join(b'"a%d":1' % n for n in range(1_500)) + b"}", 422),
}
"""What is no JSON object of this protocol, whatever the route."""

CONTENT_TYPES: Final = (
    None,
    "",
    "application",
    "application/json; charset=latin-1",
    "application/json; charset=utf-16",
    "application/json; charset=utf-7",
    'application/json; charset="utf-8"; x=y',
    "application/json; version=2",
    "application/jsonp",
    "application/json-seq",
    "application/problem+json",
    "application/vnd.api+json",
    "application/json, application/json",
    "text/json",
    "text/plain",
    "text/html",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "multipart/form-data",
    "application/octet-stream",
    "*/*",
    "a" * 2_000,
)

AUTHORIZATIONS: Final[Mapping[str, str]] = {
    "no scheme": "{admin}",
    "another scheme": "Token {admin}",
    "basic": "Basic YWRtaW46YWRtaW4=",
    "basic with the token": "Basic {admin}",
    "digest": 'Digest username="admin"',
    "bearer alone": "Bearer",
    "bearer and a space": "Bearer ",
    "two tokens": "Bearer {admin} {admin}",
    "two tokens, a comma": "Bearer {admin}, Bearer {admin}",
    "quoted": 'Bearer "{admin}"',
    "a comma after": "Bearer {admin},",
    "a tab between": "Bearer\t{admin}",
    "assigned": "Bearer token={admin}",
    "not Bearer": "Bearerer {admin}",
    "nothing": "",
    "injection": "Bearer ' OR 1=1 --",
    "JWT": "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.",
}

DENIED: Final = (
    "revoked",
    "expired",
    "unknown",
    "wrong secret",
    "wrong checksum",
    "other case",
    "truncated",
    "doubled",
    "changed",
    "long",
    "empty",
)
"""Tokens that open nothing and do not say why."""

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "KILL", "PROPFIND", "QUERY")

PERMITTED: Final[Mapping[str, frozenset[str]]] = {
    "observer": frozenset({"read"}),
    "worker": frozenset({"lease"}),
    "operator": frozenset({"read", "kill"}),
    "releaser": frozenset({"read", "revive"}),
    "gateway": frozenset(),
}
"""What each role but the admin may do, written out anew: a table that is wrong in the service is wrong here."""


def bad_bodies() -> Iterator[Hostile]:
    """Yield every bad body on every route that takes one."""
    for path in GOOD:
        for name, (body, status) in BODIES.items():
            yield posted(f"{path} {name}", path, status, body)


def bad_types() -> Iterator[Hostile]:
    """Yield a good body that is declared as something else, or compressed."""
    for path, good in GOOD.items():
        for declared in CONTENT_TYPES:
            headers: tuple[tuple[str, str], ...] = () if declared is None else (("Content-Type", declared),)
            name = f"{path} not declared" if declared is None else f"{path} declared {declared[:40]!r}"
            yield Hostile(name, "POST", path, 415, text(good), headers, code="unsupported_media_type")
        for coding in ("gzip", "deflate", "br", "identity, gzip", "x"):
            coded = (*JSON, ("Content-Encoding", coding))
            yield Hostile(f"{path} coded {coding}", "POST", path, 415, text(good), coded)


def bad_tokens() -> Iterator[Hostile]:
    """Yield good requests to every route without a good token, or with one that may not."""
    for method, path, permission in ROUTES:
        body = text(GOOD[path]) if method == "POST" else None
        headers = JSON if body is not None else ()
        request: Any = {"method": method, "path": path, "body": body}
        where = f"{method} {path}"
        for name, value in AUTHORIZATIONS.items():
            shown = (*headers, ("Authorization", value))
            yield Hostile(f"{where} {name}", **request, status=401, headers=shown, who=None, code="unauthenticated")
        yield Hostile(f"{where} no token", **request, status=401, headers=headers, who=None, code="unauthenticated")
        for who in DENIED:
            yield Hostile(f"{where} {who}", **request, status=401, headers=headers, who=who, code="unauthenticated")
        yield Hostile(f"{where} foreign", **request, status=403, headers=headers, who="foreign", code="wrong_namespace")
        for who, granted in PERMITTED.items():
            if permission not in granted:
                yield Hostile(f"{where} as {who}", **request, status=403, headers=headers, who=who, code="forbidden")
        for name in ("token", "access_token", "Authorization", "api_key"):
            there = {**request, "path": f"{path}?{name}={{admin}}"}
            yield Hostile(f"{where}, {name} in the query", **there, status=401, headers=headers, who=None)
        for name in ("Cookie", "X-Api-Key", "X-Auth-Token", "Proxy-Authorization", "X-Forwarded-Authorization"):
            shown = (*headers, (name, "Bearer {admin}"))
            yield Hostile(f"{where}, token as {name}", **request, status=401, headers=shown, who=None)
    for target, status in (("tenant:other", 404), ("run:r-1", 404), ("global", 403), ("feature:f", 403)):
        body = text({"target": target, "reason": "why"})
        yield posted(f"{target} by a bound operator", "/v1/kills", status, body, who="bound")


def bad_methods() -> Iterator[Hostile]:
    """Yield every method on every route, and every header that pretends to be another method."""
    everywhere: dict[str, set[str]] = {}
    for method, path in (*((method, path) for method, path, _ in ROUTES), *OPEN_ROUTES):
        everywhere.setdefault(path, set()).add(method)
    for path, allowed in everywhere.items():
        implied = {"OPTIONS"} | ({"HEAD"} if "GET" in allowed else set())
        for method in METHODS:
            if method in implied:
                yield Hostile(f"{method} {path}", method, path, 200)
            elif method not in allowed:
                body, headers = (text(GOOD[path]), JSON) if path in GOOD else (None, ())
                yield Hostile(f"{method} {path}", method, path, 405, body, headers, code="method_not_allowed")
    for name in ("X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method", "X-Original-Method"):
        posing = (*JSON, (name, "POST"))
        yield Hostile(f"GET as POST by {name}", "GET", "/v1/kills", 405, GOOD_KILL, posing, code="method_not_allowed")
        yield Hostile(f"GET as DELETE by {name}", "GET", "/v1/log", 200, None, ((name, "DELETE"),))
    for name in ("X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Prefix", "X-Forwarded-Path"):
        yield Hostile(f"another path by {name}", "GET", "/livez", 200, None, ((name, "/v1/tokens"),))


def bad_hosts() -> Iterator[Hostile]:
    """Yield requests that lie about where they came from or went to: nothing of it may come back."""
    for name, value in (
        ("Host", "evil.example"),
        ("Host", "localhost:99999"),
        ("Host", "evil.example:80@127.0.0.1"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("Forwarded", "host=evil.example;proto=https"),
        ("Origin", "https://evil.example"),
        ("Referer", "https://evil.example/"),
        ("Accept", "text/html"),
        ("Accept-Language", "evil.example"),
        ("If-None-Match", '"evil.example"'),
        ("If-Modified-Since", "Fri, 20 Nov 2099 20:25:11 GMT"),
        ("Range", "bytes=0-1"),
    ):
        for path, status in (("/v1/flags/global", 200), ("/v1/flags/run/r-1/", 200), ("/nowhere", 404)):
            yield Hostile(f"{name}: {value} at {path}", "GET", path, status, None, ((name, value),))
