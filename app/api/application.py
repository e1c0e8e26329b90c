"""The Flask application over a node: routes, problems, headers, metrics and docs."""

from __future__ import annotations

from typing import Any, Final

import structlog
from flask import Flask, Response, g, request

from app.api import docs, health, lanes, problems
from app.api.auth import EXTENSION
from app.api.metrics import Metrics
from app.api.operations import configure
from app.api.problems import Problem
from app.api.shortcut import FAILED, Shortcut
from app.api.strict_json import BODY_LIMIT
from app.domain.lanes import Lane
from app.service.node import Node

VERSION: Final = "0.1.0"

HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""On every reply. no-store: a lease or a flag that a cache repeats is a lie."""

_log: Final[Any] = structlog.get_logger(__name__)


class Application(Flask):
    """A Flask application whose failures are logged by route, without the path or the body."""

    def log_exception(self, exc_info: Any) -> None:
        """Log a failure of the service; its reply says nothing of it."""
        route = request.url_rule.rule if request.url_rule is not None else "none"
        _log.error("request_failed", route=route, method=request.method, exc_info=exc_info)


def build(node: Node, *, lane: Lane = Lane.ALL) -> Flask:
    """Return the application that serves a node.

    Args:
        node: what it serves.
        lane: which part of it.
    """
    app = Application(__name__)
    # No redirect anywhere: a redirected POST arrives as a GET, and whoever killed would be shown a 200.
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.url_map.redirect_defaults = False
    app.config["MAX_CONTENT_LENGTH"] = BODY_LIMIT
    app.extensions[EXTENSION] = node

    @app.before_request
    def receive() -> None:
        # The request line and headers have been read by now: a lease may be dated against this, never earlier.
        g.received_at_us = node.clocks.raw_us_ceil()

    @app.after_request
    def protect(response: Response) -> Response:
        for name, value in HEADERS.items():
            response.headers[name] = value
        return response

    metrics = Metrics(node)
    metrics.count_requests(app)

    @app.before_request
    def refuse_other_spellings() -> None:
        # Werkzeug would drop the slash; whoever guards paths in front of the service has seen another one.
        if request.environ["PATH_INFO"].startswith("//"):
            raise Problem("not_found")

    @app.before_request
    def raise_again() -> None:
        failed = request.environ.get(FAILED)
        if failed is not None:
            raise failed

    app.extensions[health.METRICS] = metrics
    api = configure(app, version=VERSION)
    for module in lanes.served(lane):
        api.register_blueprint(module.blueprint)
    lanes.refuse_others(app, lane)
    problems.register(app)
    docs.register(app, api)
    if lane is not Lane.CONTROL:
        app.wsgi_app = Shortcut(app.wsgi_app, node, metrics, headers=HEADERS.items())  # type: ignore[method-assign]
    return app
