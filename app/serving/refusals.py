"""Refusals: what is answered before the application is asked, as the same problems that it would answer with."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Final

from gunicorn.http import errors

REFUSALS: Final = (
    (errors.LimitRequestLine, "uri_too_long"),
    (errors.LimitRequestHeaders, "headers_too_large"),
    (errors.ParseException, "bad_request"),
)
"""What gunicorn raises where bytes are not a request, and the problem that answers it."""


def code_of(error: BaseException) -> str:
    """Return the problem that answers what gunicorn raised."""
    return next((code for kind, code in REFUSALS if isinstance(error, kind)), "internal")


def problem(code: str) -> tuple[str, list[tuple[str, str]], bytes]:
    """Return the status, headers and body of a problem that is answered before the application is asked."""
    from app.api.problems import CONTENT_TYPE, KINDS, body_of

    told = json.dumps(body_of(code)).encode("ascii")
    headers = [
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        ("Content-Type", CONTENT_TYPE),
        ("Content-Length", str(len(told))),
    ]
    status = HTTPStatus(KINDS[code].status)
    return f"{status.value} {status.phrase}", headers, told


def refusal(code: str) -> bytes:
    """Return the whole reply to what is not a request at all; the connection ends with it."""
    status, headers, told = problem(code)
    lines = [f"HTTP/1.1 {status}", "Connection: close", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("ascii") + told
