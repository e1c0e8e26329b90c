"""Operations: what every route of the API documents alike, so that the OpenAPI document says what really happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import flask_smorest
from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from app.api.problems import CONTENT_TYPE, KINDS, body_of, on_http
from app.api.shown import ProblemOut
from app.api.strict_json import StrictParser

F = TypeVar("F", bound=Callable[..., Any])

READS: Final = ("unauthenticated", "forbidden", "wrong_namespace", "store_unavailable", "diverged")
"""What can go wrong with every route that needs a token and the database."""

QUERIES: Final = (*READS, "invalid_fields")

WRITES: Final = (
    *QUERIES,
    "malformed_body",
    "body_timeout",
    "body_too_large",
    "unsupported_media_type",
    "outcome_unknown",
)
"""What can go wrong with every route that takes a body and changes something."""

ETAG_HEADER: Final = {"ETag": {"description": "names this view", "schema": {"type": "string"}}}

EXAMPLE_HASH: Final = "3f0a" * 16
EXAMPLE_EPOCH: Final = "5f1c0a9be2d34c77"
EXAMPLE_AT: Final = "2026-11-20T20:25:11.123456Z"
EXAMPLE_HOLD: Final = {
    "seq": 42,
    "target": "run:r-42",
    "actor": "ada",
    "at": EXAMPLE_AT,
    "reason": "mails the wrong customers",
    "in_flight": "finish",
    "queued": "discard",
    "flip_id": "f-7",
}
EXAMPLE_HEAD: Final = {"namespace": "default", "epoch": EXAMPLE_EPOCH, "seq": 42, "hash": EXAMPLE_HASH}


class Blueprint(flask_smorest.Blueprint):
    """A group of routes that reads its input strictly."""

    ARGUMENTS_PARSER = StrictParser()

    def route(self, rule: str, **options: Any) -> Callable[[F], F]:
        """Register a view; its name is the operation's id."""
        register = super().route(rule, **options)

        def decorate(view: F) -> F:
            return cast("F", register(self.doc(operationId=view.__name__)(view)))

        return decorate


class Api(flask_smorest.Api):
    """The API: errors are problems, and every one of them is documented where it can happen."""

    ERROR_SCHEMA = ProblemOut
    DEFAULT_ERROR_RESPONSE_NAME = None

    def handle_http_exception(self, error: HTTPException) -> Response:
        """Answer an error that Flask, werkzeug or webargs raised."""
        return on_http(error)


def may_fail(*codes: str) -> Callable[[F], F]:
    """Document the problems that a route can answer with, an example of each."""
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(KINDS[code].status, []).append(code)

    def decorate(view: F) -> F:
        # Written beside what flask-smorest's own decorators note, which would wrap the view once for each status.
        responses = view.__dict__.setdefault("_apidoc", {}).setdefault("response", {}).setdefault("responses", {})
        for status, those in by_status.items():
            noted = {
                "schema": ProblemOut(),
                "content_type": CONTENT_TYPE,
                "description": "; ".join(KINDS[code].title for code in those),
                "examples": {code: {"value": body_of(code)} for code in those},
            }
            if status == 401:
                noted["headers"] = {
                    "WWW-Authenticate": {"description": "how to authenticate", "schema": {"type": "string"}}
                }
            responses.setdefault(status, []).append(noted)
        return view

    return decorate


def configure(app: Flask, *, version: str) -> Api:
    """Return the API of ``app``, with its title, its security scheme and nothing else yet."""
    app.config.update(API_TITLE="Haltline", API_VERSION=version, OPENAPI_VERSION="3.1.0")
    api = Api(
        app,
        spec_kwargs={
            "info": {
                "description": (
                    "A kill switch for fleets of agents and workers: kill flags, and the log of every flip. "
                    "Ids are rejected, never normalised; a target is `scope:id`, split at its first colon, or "
                    "`global`. "
                    "Every error is a problem (RFC 9457) whose `detail` says what to do next."
                ),
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "/"}],
        },
    )
    api.spec.components.security_scheme(
        "bearer", {"type": "http", "scheme": "bearer", "description": "a token, `hlt_...`, in the Authorization header"}
    )
    return api
