"""The least that Flask can do: what a renewal is compared with, served exactly as the service is."""

from __future__ import annotations

from flask import Flask, Response, request

app = Flask(__name__)


@app.post("/v1/lease")
def reply() -> Response:
    """Take the body and answer with a few bytes of JSON."""
    request.get_data()
    return Response(b'{"status": "alive"}', content_type="application/json")


@app.get("/readyz")
def ready() -> Response:
    """Tell that the process answers."""
    return Response(b"{}", content_type="application/json")
