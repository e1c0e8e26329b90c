"""Problems: every error body of the API (RFC 9457), in one place.

Each says what happened and what to do next. ``code`` is for programs and never changes its meaning; ``type`` is the
same as a URN. Nothing internal is ever told: a fault of the service is logged and answered with a bare 500.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from app.domain.tokens import mask
from app.service.store import LogDiverged, OutcomeUnknown, StoreUnavailable

CONTENT_TYPE: Final = "application/problem+json"

_log: Final[Any] = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem.

    Attributes:
        status: its HTTP status.
        title: what it is, in a few words; the same every time.
        detail: what to do next, where nothing better is known.
    """

    status: int
    title: str
    detail: str


KINDS: Final[Mapping[str, Kind]] = {
    "malformed_body": Kind(400, "The body is not JSON", "Send one JSON object in UTF-8."),
    "malformed_header": Kind(
        400, "A header is malformed", 'Send If-Match as quoted ETags, as in "0123456789abcdef.42".'
    ),
    "bad_request": Kind(400, "The request is malformed", "Send a well-formed HTTP request."),
    "unauthenticated": Kind(
        401,
        "No valid token",
        "Send a token as `Authorization: Bearer hlt_...`; ask an admin for a new one if it has ended.",
    ),
    "forbidden": Kind(403, "The token may not do this", "Use a token of a role that may."),
    "wrong_namespace": Kind(403, "The token is of another namespace", "Use a token that this service has issued."),
    "not_found": Kind(404, "There is no such thing", "Check the path; /openapi.json lists every one."),
    "wrong_lane": Kind(404, "The other lane serves this", "Send it to the address of the lane that `lane` names."),
    "method_not_allowed": Kind(405, "The method is not allowed here", "Use one of the methods in the Allow header."),
    "body_timeout": Kind(408, "The body came too slowly", "Send the request again, in one piece."),
    "flip_id_taken": Kind(409, "The flip_id belongs to another flip", "Use a new flip_id for a new flip."),
    "no_such_hold": Kind(
        409, "A hold is not active on the target", "Read the target's flag and name holds that it lists."
    ),
    "too_many_holds": Kind(409, "Too many active holds", "Kill something broader, or revive what is no longer needed."),
    "foreign": Kind(
        409, "The worker knows another log", "Check that client and service belong together, then restart the worker."
    ),
    "regress": Kind(
        409,
        "The worker has seen more than this log holds",
        "Find out whether the database was restored or replaced before anything runs again.",
    ),
    "clocks_apart": Kind(
        409,
        "The clocks of node and database differ by over a second",
        "Set the time service of both hosts right, then change it again; nothing was changed.",
    ),
    "stale_view": Kind(412, "The target was flipped since you looked", "Read its flag again, then decide anew."),
    "body_too_large": Kind(413, "The body is too large", "Send at most 16 KiB."),
    "uri_too_long": Kind(414, "The address is too long", "Send a shorter one."),
    "unsupported_media_type": Kind(415, "The body is not declared as JSON", "Send Content-Type: application/json."),
    "invalid_fields": Kind(422, "Some fields are not valid", "Mend the fields that are listed under errors."),
    "if_match_missing": Kind(
        428, "The view that you saw is missing", "Send the target's ETag, from GET /v1/flags/..., as If-Match."
    ),
    "headers_too_large": Kind(431, "The headers are too large", "Send fewer and shorter headers."),
    "internal": Kind(500, "The service failed", "Nothing more is told here; the service's log has the details."),
    "store_unavailable": Kind(
        503, "The database could not be used", "Nothing was changed. Send the same request again in a moment."
    ),
    "outcome_unknown": Kind(
        503,
        "It is not known whether this happened",
        "Send the very same again, a flip with the same flip_id, until you get another answer: it is never done twice.",
    ),
    "stale": Kind(
        503, "The log could not be read recently enough", "Ask again; no lease is granted until it can be read."
    ),
    "diverged": Kind(
        503,
        "The database holds another log than before",
        "This process grants no lease any more. Find out what happened to the database, then restart the service.",
    ),
    "busy": Kind(503, "The node has as much to do as it takes", "Ask another node, or this one again in a second."),
    "too_many_exports": Kind(
        503, "Too many exports or event streams run already", "Ask again when one of them has ended."
    ),
}


class Problem(Exception):
    """A problem to be answered.

    Args:
        code: which one, a key of :data:`KINDS`.
        detail: what happened and what to do next; None for the kind's own.
        headers: further headers of the reply.
        members: further members of its body.
    """

    def __init__(
        self,
        code: str,
        detail: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members


def body_of(code: str, detail: str | None = None, /, **members: Any) -> dict[str, Any]:
    """Return the body of a problem."""
    kind = KINDS[code]
    return {
        "type": f"urn:haltline:problem:{code}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail or kind.detail,
        "code": code,
        **members,
    }


def reply(problem: Problem) -> Response:
    """Return the HTTP reply of a problem."""
    # Masked: a message may repeat what was sent, and somebody will send a token where an id belongs.
    response = Response(
        mask(json.dumps(body_of(problem.code, problem.detail, **problem.members))),
        status=KINDS[problem.code].status,
        content_type=CONTENT_TYPE,
    )
    response.headers.extend(problem.headers)
    return response


def unavailable() -> Problem:
    """Return the problem of a store that could not do its work: nothing was changed."""
    return Problem("store_unavailable", headers={"Retry-After": "1"}, outcome="not_committed")


def unknown() -> Problem:
    """Return the problem of a commit whose outcome nobody knows."""
    return Problem("outcome_unknown", headers={"Retry-After": "1"}, outcome="unknown")


_LEASE: Final = "/v1/lease"

_BY_STATUS: Final = {
    400: "bad_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "body_timeout",
    413: "body_too_large",
    414: "uri_too_long",
    415: "unsupported_media_type",
    422: "invalid_fields",
}


def flat(messages: Any, name: str = "") -> dict[str, list[str]]:
    """Return marshmallow's nested messages as one list a field, nested names joined by dots."""
    if isinstance(messages, dict):
        found: dict[str, list[str]] = {}
        for key, value in messages.items():
            inner = str(key) if key != "_schema" else "body"
            found.update(flat(value, f"{name}.{inner}" if name else inner))
        return found
    listed = messages if isinstance(messages, list) else [messages]
    return {name or "body": [str(each) for each in listed]}


def of_http(error: HTTPException) -> Problem:
    """Return the problem of an error that Flask, werkzeug or webargs raised."""
    status = error.code or 500
    messages = (getattr(error, "data", None) or {}).get("messages")
    if status == 422 and isinstance(messages, dict):
        # webargs nests by where the field stood: json, query, headers.
        inner = next(iter(messages.values())) if len(messages) == 1 else messages
        return Problem("invalid_fields", errors=flat(inner))
    headers = {name: value for name, value in error.get_headers() if name == "Allow"}
    return Problem(_BY_STATUS.get(status, "internal" if status >= 500 else "bad_request"), headers=headers)


def register(app: Flask) -> None:
    """Have every error of ``app`` answered as a problem."""
    app.register_error_handler(Problem, reply)
    app.register_error_handler(StoreUnavailable, _on_unavailable)
    app.register_error_handler(OutcomeUnknown, _on_unknown)
    app.register_error_handler(LogDiverged, _on_diverged)
    app.register_error_handler(HTTPException, on_http)


def on_http(error: HTTPException) -> Response:
    """Answer an error that Flask, werkzeug or webargs raised."""
    return reply(of_http(error))


def _route() -> str:
    return request.url_rule.rule if request.url_rule is not None else "none"


def _on_unavailable(error: StoreUnavailable) -> Response:
    _log.warning("store_unavailable", route=_route(), detail=str(error))
    problem = unavailable()
    if request.path == _LEASE:
        # A database that was away for a moment must not cost a worker its lease: it asks again by its own rules.
        problem.headers.pop("Retry-After")
    return reply(problem)


def _on_unknown(error: OutcomeUnknown) -> Response:
    _log.error("outcome_unknown", route=_route(), detail=str(error))
    return reply(unknown())


def _on_diverged(error: LogDiverged) -> Response:
    _log.critical("log_diverged", route=_route(), detail=str(error))
    return reply(Problem("diverged", outcome="not_committed"))
