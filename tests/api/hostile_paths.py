"""Hostile request lines: ids, positions, queries and paths that are not quite what they should be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from tests.api.hostile import GOOD, NAUGHTY_IDS, Hostile, posted, text

PATHS: Final[Mapping[str, int]] = {
    "/": 404,
    "//": 404,
    "/v1": 404,
    "/v2/flags": 404,
    "/V1/flags": 404,
    "//v1/flags": 404,
    "/v1//flags": 404,
    "/v1/flags//run/a": 404,
    "/v1/flags/run//a": 404,
    "/v1/flags/run/a/b": 404,
    "/v1/flags/run/a%2Fb": 404,
    "/v1/flags/run/a%252Fb": 422,
    "/v1/flags/run/a%2500": 422,
    "/v1/flags/run/%2e%2e": 422,
    "/v1/flags/run/..%2f..%2ftokens": 404,
    "/v1/flags/../tokens": 422,
    "/v1/flags/./global": 422,
    "/v1/flags/%2e%2e/tokens": 422,
    "/v1/flags/run/%FF%FE": 422,
    "/v1/flags/run/%C0%AF": 422,
    "/v1/flags/run/%ED%A0%80": 422,
    "/v1/flags/run/%F4%90%80%80": 422,
    "/v1/flags/run/a%00": 422,
    "/v1/flags/run/a%0D%0ASet-Cookie:%20a=b": 422,
    "/v1/flags/run/a;b": 422,
    "/v1/flags/run/%": 422,
    "/v1/flags/run/%zz": 422,
    "/v1/flags/Run/a": 422,
    "/v1/flags/process/a": 422,
    "/v1/flags/global/a": 422,
    "/v1/flags/global%00": 404,
    "/v1/flags/%67lobal/x": 422,
    "/v1/flags/capability/Send": 422,
    "/v1/flags/run/" + "a" * 1_000_000: 422,
    "/v1/log/0": 422,
    "/v1/log/-1": 422,
    "/v1/log/+1": 422,
    "/v1/log/1.0": 422,
    "/v1/log/1e3": 422,
    "/v1/log/01": 422,
    "/v1/log/0x1": 422,
    "/v1/log/%201": 422,
    "/v1/log/1%00": 422,
    "/v1/log/1%0A": 422,
    "/v1/log/%D9%A1": 422,
    "/v1/log/%C2%B2": 422,
    "/v1/log/9007199254740991": 404,
    "/v1/log/9007199254740992": 422,
    "/v1/log/" + "9" * 1_000: 422,
    "/v1/log/Export": 422,
    "/v1/log?limit=0": 422,
    "/v1/log?limit=-1": 422,
    "/v1/log?limit=1001": 422,
    "/v1/log?limit=": 422,
    "/v1/log?limit=1e2": 422,
    "/v1/log?limit=1_0": 422,
    "/v1/log?limit=%D9%A1": 422,
    "/v1/log?limit=%2B1": 422,
    "/v1/log?limit=1&limit=1": 422,
    "/v1/log?limit[]=1": 422,
    "/v1/log?Limit=1": 422,
    "/v1/log?cursor=9007199254740992": 422,
    "/v1/log?cursor=" + "9" * 1_000: 422,
    "/v1/log?cursor=NaN": 422,
    "/v1/log?cursor=Infinity": 422,
    "/v1/log?order=random": 422,
    "/v1/log?since=yesterday": 422,
    "/v1/log?since=2026-02-30T00:00:00Z": 422,
    "/v1/log?since=2026-11-20T24:00:01Z": 422,
    "/v1/log?since=2026-11-20T20:25:11%2B00:00": 422,
    "/v1/log?since=%D9%A2026-11-20T20:25:11Z": 422,
    "/v1/log?since=0000-01-01T00:00:00Z": 422,
    "/v1/log?kind=permit": 422,
    "/v1/log?kind=kill%00": 422,
    "/v1/log?scope=Run": 422,
    "/v1/log?target=global:x": 422,
    "/v1/log?%FF=1": 422,
    "/v1/log?=": 422,
    "/v1/log?unknown=1": 422,
    "/v1/log?" + "x" * 3_000 + "=1": 422,
    "/v1/log/export?format=csv": 422,
    "/v1/log/export?format=": 422,
    "/v1/log/export?from=0": 422,
    "/v1/log/export?from=2&to=1": 422,
    "/v1/log/export?to=x": 422,
    "/v1/flags?limit=99999999999999999999": 422,
    "/v1/flags?cursor=zzz": 422,
    "/v1/tokens?limit=1.5": 422,
    "/v1/tokens?cursor=K3V9X0Q2M7AB": 422,
    "/static/../operations.py": 404,
    "/static/%2e%2e/operations.py": 404,
    "/static/..%5coperations.py": 404,
    "/static//etc/passwd": 404,
    "/static/%00": 404,
    "/.env": 404,
    "/openapi.yaml": 404,
}

NOT_QUITE_KILLS: Final = (
    "//v1/kills",
    "/v1//kills",
    "/v1/kills//",
    "/v1/Kills",
    "/V1/KILLS",
    "/v1/kills%00",
    "/v1/kills%20",
    "/v1/kills.json",
    "/v1/kill",
    "/v1/kills/run/r-1",
    "/v1/./kills",
    "/v1/../v1/kills",
    "/kills",
)


def bad_paths() -> Iterator[Hostile]:
    """Yield a bad id, scope, position or path in every request line."""
    for scope in ("run", "capability"):
        for name, value in NAUGHTY_IDS.items():
            yield _looked_up(f"{scope} {name}", f"/v1/flags/{scope}/", value)
    for name, value in NAUGHTY_IDS.items():
        # An id that is too long for a request line is refused before the service sees it.
        quoted, long = _quoted(value), len(value) > 1_000
        for route, field, before in (("log", "target", "run:"), ("log", "actor", ""), ("flags", "cursor", "run:")):
            path = f"/v1/{route}?{field}={before}{quoted}"
            yield Hostile(f"{route} {field} {name}", "GET", path, 422, served=414 if long else None)
        yield Hostile(f"cursor {name}", "GET", f"/v1/tokens?cursor={quoted}", 422, served=414 if long else None)
        yield replace(_looked_up(f"revoke {name}", "/v1/tokens/", value), method="DELETE")
    for path, status in PATHS.items():
        yield Hostile(f"path {path[:60]}", "GET", path, status, served=414 if len(path) > 4_000 else None)
    for path in NOT_QUITE_KILLS:
        yield posted(f"kill at {path}", path, 404, text(GOOD["/v1/kills"]), code="not_found")


def _quoted(value: str) -> str:
    return "".join(f"%{byte:02X}" for byte in value.encode()) if len(value) < 1_000 else value


def _looked_up(name: str, prefix: str, value: str) -> Hostile:
    # A slash makes two segments of it, however it is written, and no segment is no id: no such route.
    nowhere = "/" in value or value == ""
    status = 404 if nowhere else 422
    if value == "" and prefix == "/v1/tokens/":
        status = 405  # the list of tokens, which cannot be deleted
    return Hostile(name, "GET", prefix + _quoted(value), status, served=414 if len(value) > 1_000 else None)
