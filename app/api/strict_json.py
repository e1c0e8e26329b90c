"""Strict input: a body is one JSON object as the protocol has it, and a query has no field twice.

What Flask would let pass, silently: NaN, a member named twice (the last one wins), UTF-16, a body that is nested until
the parser's stack ends, a form posted as if it were JSON.
"""

from __future__ import annotations

from typing import Any, Final

import marshmallow as ma
from flask import Request
from webargs.flaskparser import FlaskParser

from app.api.problems import Problem
from haltline.canonical import parse
from haltline.errors import InvalidDocument

BODY_LIMIT: Final = 16 * 1024
"""The largest body, bytes."""


class StrictParser(FlaskParser):
    """Reads bodies and queries for flask-smorest."""

    DEFAULT_UNKNOWN_BY_LOCATION: dict[str, str | None] = {  # noqa: RUF012 - webargs' name
        "json": ma.RAISE,
        "query": ma.RAISE,
    }

    def load_json(self, req: Request, schema: ma.Schema) -> Any:  # noqa: ARG002 - webargs' signature
        """Return the members of the body.

        Raises:
            Problem: it is not declared as JSON, too large, not JSON, or not an object.
        """
        parameters = {name: value.lower() for name, value in req.mimetype_params.items()}
        if req.mimetype != "application/json" or parameters not in ({}, {"charset": "utf-8"}):
            raise Problem("unsupported_media_type")
        if req.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Problem("unsupported_media_type", "Send the body as it is: compressed bodies are not accepted.")
        if req.args:
            # A kill with `?drill=true` would otherwise be a real one.
            raise Problem("invalid_fields", errors={name[:128]: ["Send it in the body."] for name in req.args})
        data = req.get_data(cache=False)
        if req.content_length is None and len(data) >= BODY_LIMIT:
            # werkzeug cuts a body of unknown length at the limit without a word; what is left may still be JSON.
            raise Problem("body_too_large")
        try:
            members = parse(data)
        except InvalidDocument as error:
            raise Problem("malformed_body", f"The body is {error}.") from None
        if not isinstance(members, dict):
            raise Problem("invalid_fields", errors={"body": ["Send one JSON object."]})
        return members

    def load_querystring(self, req: Request, schema: ma.Schema) -> Any:  # noqa: ARG002 - webargs' signature
        """Return the fields of the query.

        Raises:
            Problem: one of them stands twice.
        """
        twice = [name for name, values in req.args.lists() if len(values) > 1]
        if twice:
            raise Problem("invalid_fields", errors={name[:128]: ["Send it once."] for name in twice})
        return req.args.to_dict()
