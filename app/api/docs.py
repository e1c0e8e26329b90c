"""The OpenAPI document, and a page that shows it to people: plain HTML, no script, nothing from elsewhere."""

from __future__ import annotations

import json
from typing import Any, Final

from flask import Flask, Response, render_template

from app.api.operations import Api

METHODS: Final = ("get", "post", "put", "patch", "delete")


def register(app: Flask, api: Api) -> None:
    """Serve /openapi.json and /docs; call it when every route is registered."""
    document: dict[str, Any] = json.loads(json.dumps(api.spec.to_dict()))
    text = json.dumps(document)

    @app.get("/openapi.json")
    def openapi() -> Response:
        return Response(text, content_type="application/json")

    @app.get("/docs")
    def docs() -> str:
        return render_template("docs.html", document=document, operations=operations(document))


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the operations of an OpenAPI document as the page shows them, examples as indented JSON."""
    found = []
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                operation = item[method]
                found.append(
                    {
                        "method": method.upper(),
                        "path": path,
                        "anchor": operation["operationId"],
                        "summary": operation.get("summary", ""),
                        "description": operation.get("description", ""),
                        "permission": operation.get("x-haltline-permission"),
                        "parameters": [*item.get("parameters", []), *operation.get("parameters", [])],
                        "request": _content(operation.get("requestBody", {})),
                        "responses": [_response(status, each) for status, each in operation["responses"].items()],
                    }
                )
    return found


def _response(status: str, response: dict[str, Any]) -> dict[str, Any]:
    return {"status": status, "description": response.get("description", ""), **_content(response)}


def _content(holder: dict[str, Any]) -> dict[str, Any]:
    for content_type, media in holder.get("content", {}).items():
        examples = [each["value"] for each in media.get("examples", {}).values()]
        if "example" in media:
            examples.insert(0, media["example"])
        reference = media.get("schema", {}).get("$ref", "")
        return {
            "type": content_type,
            "schema": reference.rpartition("/")[2],
            "examples": [json.dumps(each, indent=2, ensure_ascii=False) for each in examples],
        }
    return {}
