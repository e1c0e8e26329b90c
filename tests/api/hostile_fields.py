"""Hostile fields: every field of every body with what it must not hold, missing, or beside one that is unknown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tests.api.hostile import (
    GOOD,
    NAUGHTY_IDS,
    NAUGHTY_POSITIONS,
    NAUGHTY_REASONS,
    WRONG_TYPES,
    Hostile,
    posted,
    text,
)

ID_FIELDS: Final = (
    ("/v1/kills", "target", "run:{}"),
    ("/v1/kills", "target", "tenant:{}"),
    ("/v1/kills", "target", "feature:{}"),
    ("/v1/kills", "target", "capability:{}"),
    ("/v1/kills", "flip_id", "{}"),
    ("/v1/revives", "target", "run:{}"),
    ("/v1/revives", "flip_id", "{}"),
    ("/v1/tokens", "subject", "{}"),
    ("/v1/tokens", "tenants", None),
    ("/v1/lease", "worker", "{}"),
    ("/v1/lease", "instance", "{}"),
)

SCOPES: Final = ("", "Run", "RUN", "runs", "user", "global", "GLOBAL", "*", "r\u0443n", "run ", "run\x00", "__proto__")
"""What is no scope that takes an id."""


def bad_ids() -> Iterator[Hostile]:
    """Yield a bad id in every field of every body where an id stands."""
    for path, field, shape in ID_FIELDS:
        for name, value in NAUGHTY_IDS.items():
            put = [value] if shape is None else shape.replace("{}", value)
            body = text({**GOOD[path], field: put})
            yield posted(f"{path} {field} {shape} {name}", path, 422, body, code="invalid_fields")
    for path in ("/v1/kills", "/v1/revives"):
        for scope in SCOPES:
            body = text({**GOOD[path], "target": f"{scope}:r-1"})
            yield posted(f"{path} scope {scope!r}", path, 422, body, code="invalid_fields")
        body = text({**GOOD[path], "target": "capability:Send"})
        yield posted(f"{path} upper case capability", path, 422, body, code="invalid_fields")
        body = text({**GOOD[path], "target": "run:" + "a" * 1_000_000})
        yield posted(f"{path} id of 1 MB", path, 413, body, code="body_too_large")


def bad_fields() -> Iterator[Hostile]:
    """Yield every field of every body with each wrong type and value, missing, and beside one that is unknown."""
    for path, good in GOOD.items():
        for field in good:
            for name, value in _bad_values(path, field):
                body = text({**good, field: value})
                # 2^53 is no integer of this protocol at all.
                status, code = (400, "malformed_body") if name.endswith("beyond 2^53") else (422, "invalid_fields")
                yield posted(f"{path} {field} {name}", path, status, body, code=code)
        for field in _required(path):
            body = text({name: value for name, value in good.items() if name != field})
            yield posted(f"{path} without {field}", path, 422, body, code="invalid_fields")
        for field in ("force", "drill", "", "Target", "__proto__", "\u0442arget", "x" * 1_000, "_schema"):
            body = text({**good, field: True})
            yield posted(f"{path} with {field[:20]!r}", path, 422, body, code="invalid_fields")
        for query in ("drill=true", "target=run:r-1", "token=x", "a=1&a=2"):
            yield posted(f"{path} with the query {query}", f"{path}?{query}", 422, text(good), code="invalid_fields")
    for field, value in (("drill", True), ("drill", False)):
        body = text({**GOOD["/v1/kills"], field: value})
        yield posted(f"kill with {field} {value}", "/v1/kills", 422, body, code="invalid_fields")


def _required(path: str) -> tuple[str, ...]:
    optional = {"flip_id", "tenants", "expires_in_days", "namespace"}
    return tuple(field for field in GOOD[path] if field not in optional)


def _bad_values(path: str, field: str) -> Iterator[tuple[str, Any]]:
    if field == "reason":
        yield from NAUGHTY_REASONS.items()
    elif field == "seq":
        yield from NAUGHTY_POSITIONS.items()
        yield "without its hash", 7
    elif field == "holds":
        wrong = {name: value for name, value in WRONG_TYPES.items() if not isinstance(value, list)}
        yield from wrong.items()
        yield from ((f"of {name}", [value]) for name, value in NAUGHTY_POSITIONS.items())
        yield from (("empty", []), ("of zero", [0]), ("twice", [1, 1]), ("1001", list(range(1, 1_002))))
    elif field == "tenants":
        yield from ((name, value) for name, value in WRONG_TYPES.items() if not isinstance(value, list))
        yield from (("none", []), ("twice", ["a", "a"]), ("65", [f"t-{n}" for n in range(65)]), ("of a number", [7]))
    elif field == "expires_in_days":
        yield from NAUGHTY_POSITIONS.items()
        yield from (("zero", 0), ("367", 367))
    elif field == "role":
        yield from WRONG_TYPES.items()
        yield from ((each, each) for each in ("", "root", "Admin", "admin ", "admin\x00", "ope\u0433ator", "*"))
        yield "that is never bound", "admin"
    elif field == "stream":
        yield from ((name, value) for name, value in WRONG_TYPES.items() if type(value) is not bool)
        yield "false as text", "false"
    else:
        nullable = path == "/v1/lease" and field in {"epoch", "hash"}
        yield from ((name, value) for name, value in WRONG_TYPES.items() if not (nullable and value is None))
        if field in {"nonce", "namespace", "epoch", "hash"}:
            # A nonce may have more characters than an id has.
            naughty = {name: value for name, value in NAUGHTY_IDS.items() if (field, name) != ("nonce", "parent path")}
            yield from ((f"as {name}", value) for name, value in naughty.items())
