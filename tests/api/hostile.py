"""Hostile requests: what each of them is, and what it must be answered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

JSON: Final = (("Content-Type", "application/json"),)

NONCE: Final = "0123456789abcdef"
GOOD: Final[Mapping[str, Mapping[str, Any]]] = {
    "/v1/kills": {"target": "run:r-1", "reason": "why", "flip_id": "f-hostile"},
    "/v1/revives": {"target": "run:r-1", "holds": [1], "reason": "why", "flip_id": "f-hostile"},
    "/v1/tokens": {"subject": "ada", "role": "worker", "tenants": ["acme"], "expires_in_days": 1},
    "/v1/lease": {
        "stream": False,
        "nonce": NONCE,
        "worker": "w-1",
        "instance": "i-1",
        "namespace": "default",
        "epoch": None,
        "seq": 0,
        "hash": None,
    },
    "/v1/outcomes": {
        "outcomes": [
            {
                "run": "r-1",
                "flip": 1,
                "worker": "w-1",
                "instance": "i-1",
                "at": "2026-11-20T20:25:11Z",
                "ended": "cleanup",
                "cleanups": [],
            }
        ],
    },
}
"""A good body for every route that takes one; each hostile body differs from it in one thing."""

ROUTES: Final = (
    ("POST", "/v1/kills", "kill"),
    ("POST", "/v1/revives", "revive"),
    ("GET", "/v1/flags", "read"),
    ("GET", "/v1/flags/global", "read"),
    ("GET", "/v1/flags/run/r-1", "read"),
    ("GET", "/v1/log", "read"),
    ("GET", "/v1/log/1", "read"),
    ("GET", "/v1/log/export", "read"),
    ("GET", "/v1/events", "read"),
    ("POST", "/v1/tokens", "tokens"),
    ("GET", "/v1/tokens", "tokens"),
    ("DELETE", "/v1/tokens/k3v9x0q2m7ab", "tokens"),
    ("POST", "/v1/lease", "lease"),
    ("POST", "/v1/outcomes", "lease"),
    ("GET", "/v1/outcomes", "read"),
)
"""Every route that needs a token: method, path, permission."""

OPEN_ROUTES: Final = (
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
)


@dataclass(frozen=True, slots=True)
class Hostile:
    """One request and its answer.

    Attributes:
        name: what is hostile about it.
        method: the HTTP method.
        path: with its query, percent-encoded, as it stands in the request line.
        status: what it must be answered.
        body: what is sent; None for no body.
        headers: beside the token.
        who: the kind of token that is shown; None for none.
        code: the problem's code; None for a reply that is no problem, or for any code.
        served: the status where an HTTP server stands before the service and refuses first; None for the same.
    """

    name: str
    method: str
    path: str
    status: int
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    who: str | None = "admin"
    code: str | None = None
    served: int | None = None


def text(members: Any) -> bytes:
    """Return a body."""
    return json.dumps(members).encode()


def posted(name: str, path: str, status: int, body: bytes, **more: Any) -> Hostile:
    """Return a request with a body that is declared as JSON."""
    return Hostile(name, "POST", path, status, body, JSON, **more)


NAUGHTY_IDS: Final[Mapping[str, str]] = {
    "empty": "",
    "space": " ",
    "space before": " a",
    "space after": "a ",
    "newline after": "a\n",
    "carriage return": "a\r",
    "header injection": "a\r\nX-Injected: 1",
    "tab": "a\tb",
    "NUL": "a\x00b",
    "escape": "a\x1b[2Kb",
    "delete": "a\x7fb",
    "wildcard": "*",
    "SQL wildcard": "a%",
    "SQL": "a'; DROP TABLE log; --",
    "question mark": "a?b",
    "hash": "a#b",
    "slash": "a/b",
    "backslash": "a\\b",
    "parent": "..",
    "parent path": "../tokens",
    "dot first": ".a",
    "hyphen first": "-a",
    "colon first": ":a",
    "underscore first": "_a",
    "comma": "a,b",
    "quote": 'a"b',
    "less than": "<script>alert(1)</script>",
    "template": "{{7*7}}",
    "percent NUL": "a%00b",
    "plus": "a+b",
    "at": "a@b",
    "Cyrillic": "\u0430dmin",
    "Greek": "\u03b1",
    "fullwidth": "\uff41",
    "dotless i": "\u0131",
    "Kelvin": "\u212a",
    "long s": "\u017f",
    "sharp s": "\u00df",
    "accent": "\u00e9",
    "combining accent": "e\u0301",
    "ligature": "\ufb01",
    "Arabic digit": "\u0661",
    "superscript": "\u00b2",
    "zero width space": "a\u200bb",
    "zero width joiner": "a\u200db",
    "soft hyphen": "a\u00adb",
    "right to left": "a\u202eb",
    "byte order mark": "\ufeffa",
    "no-break space": "a\u00a0",
    "line separator": "a\u2028b",
    "replacement": "\ufffd",
    "beyond the BMP": "\U0001f600",
    "mathematical": "\U0001d41a",
    "tag characters": "a\U000e0061",
    "129 characters": "a" * 129,
    "8 KiB": "a" * 8_192,
}
"""What no id is, wherever an id may stand."""

WRONG_TYPES: Final[Mapping[str, Any]] = {
    "null": None,
    "true": True,
    "number": 7,
    "zero": 0,
    "list": ["run:r-1"],
    "empty list": [],
    "object": {"a": 1},
    "nested": [[[["x"]]]],
}

NAUGHTY_REASONS: Final[Mapping[str, Any]] = {
    "empty": "",
    "blank": "   ",
    "blank by Unicode": "\u00a0\u2003\u3000",
    "501 characters": "x" * 501,
    "501 beyond the BMP": "\U0001f600" * 501,
    "newline": "a\nb",
    "carriage return": "a\rb",
    "NUL": "a\x00b",
    "escape": "\x1b[31mred",
    "C1 control": "a\x9bb",
    "delete": "a\x7f",
    "right to left": "a\u202eb",
    "isolate": "a\u2066b",
    "zero width space": "a\u200bb",
    "byte order mark": "\ufeffa",
    "line separator": "a\u2028b",
    "paragraph separator": "a\u2029b",
    "private use": "a\ue000b",
    "tag characters": "a\U000e0041",
    **WRONG_TYPES,
}

NAUGHTY_POSITIONS: Final[Mapping[str, Any]] = {
    "negative": -1,
    "beyond 2^53": 2**53,
    "text": "1",
    "true": True,
    "list": [1],
    "object": {},
}
