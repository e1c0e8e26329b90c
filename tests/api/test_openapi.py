"""The OpenAPI document is valid, complete, and says what really happens; the docs page shows it without a script."""

from __future__ import annotations

import re
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from app.api.problems import KINDS
from tests.api.desk import Desk, members


@pytest.fixture(scope="module")
def document(shared: Desk) -> dict[str, Any]:
    """Return the document."""
    response = shared.call("GET", "/openapi.json", who=None)
    assert response.content_type == "application/json"
    return members(response)


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return every operation and where it is."""
    return [
        (f"{method} {path}", operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    ]


def check(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    """Check a value against a schema of the document."""
    OAS31Validator({**schema, "components": document["components"]}).validate(value)


def test_it_is_valid(document: dict[str, Any]) -> None:
    """The document is valid OpenAPI 3.1."""
    assert document["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(document).validate()


def test_every_operation_is_told(document: dict[str, Any]) -> None:
    """Every operation has a unique id, a summary and a success reply; ids never repeat."""
    ids = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(ids)) == len(ids)
    for where, operation in operations(document):
        assert operation["summary"], where
        assert any(status < "300" for status in operation["responses"]), where


def test_every_body_has_an_example_that_fits(document: dict[str, Any]) -> None:
    """Every JSON body, sent or answered, comes with examples, and each fits the schema beside it."""
    for where, operation in operations(document):
        holders = [("request", operation.get("requestBody", {})), *operation["responses"].items()]
        for what, holder in holders:
            for content_type, media in holder.get("content", {}).items():
                if not content_type.endswith("json"):
                    continue
                examples = [each["value"] for each in media.get("examples", {}).values()]
                examples += [media["example"]] if "example" in media else []
                assert examples, (where, what)
                for example in examples:
                    check(document, media["schema"], example)


def test_problems_are_documented_where_they_happen(document: dict[str, Any]) -> None:
    """Every error reply is a problem, and every kind of problem but the universal ones stands at some operation."""
    shown = set()
    for where, operation in operations(document):
        for status, response in operation["responses"].items():
            if status >= "400":
                assert list(response["content"]) == ["application/problem+json"], (where, status)
                examples = response["content"]["application/problem+json"]["examples"]
                assert all(KINDS[code].status == int(status) for code in examples), (where, status)
                shown |= set(examples)
    everywhere = {
        "bad_request",
        "method_not_allowed",
        "wrong_lane",  # said in place of what another process serves
        "internal",
        "uri_too_long",
        "headers_too_large",
    }
    assert shown == set(KINDS) - everywhere


def test_real_replies_fit_their_schemas(desk: Desk) -> None:
    """What the service really answers is what the document says."""
    document = members(desk.call("GET", "/openapi.json", who=None))
    seq = members(desk.kill())["seq"]
    replies = [
        ("/v1/kills", "post", desk.kill(flip_id="f-1")),
        ("/v1/kills", "post", desk.kill(flip_id="f-1")),
        ("/v1/kills", "post", desk.kill("nonsense")),
        ("/v1/revives", "post", desk.revive("run:r-42", [seq])),
        ("/v1/flags", "get", desk.call("GET", "/v1/flags")),
        ("/v1/flags/{scope}/{id}", "get", desk.call("GET", "/v1/flags/run/r-42")),
        ("/v1/flags/global", "get", desk.call("GET", "/v1/flags/global")),
        ("/v1/log", "get", desk.call("GET", "/v1/log")),
        ("/v1/log/{seq}", "get", desk.call("GET", "/v1/log/10")),
        ("/v1/tokens", "get", desk.call("GET", "/v1/tokens")),
        ("/v1/tokens", "post", desk.call("POST", "/v1/tokens", {"subject": "a", "role": "worker"})),
        ("/v1/settings", "get", desk.call("GET", "/v1/settings")),
        ("/v1/settings", "put", desk.call("PUT", "/v1/settings", {"ttl_ms": 700})),
        ("/v1/settings", "put", desk.call("PUT", "/v1/settings", {"ttl_ms": 700})),
        ("/v1/settings", "put", desk.call("PUT", "/v1/settings", {"ttl_ms": 7})),
        ("/v1/settings", "get", desk.call("GET", "/v1/settings")),
        ("/v1/lease", "post", desk.lease()),
        ("/readyz", "get", desk.call("GET", "/readyz", who=None)),
    ]
    for path, method, response in replies:
        documented = document["paths"][path][method]["responses"][str(response.status_code)]
        media = documented["content"][response.content_type]
        check(document, media["schema"], members(response))


def test_grammars_are_published(document: dict[str, Any]) -> None:
    """Bodies publish the grammar of their fields and that nothing else may stand beside them."""
    schemas = document["components"]["schemas"]
    for name in ("KillBody", "ReviveBody", "TokenBody", "SettingsBody", "LeaseBody", "AckBody"):
        assert schemas[name]["additionalProperties"] is False
        for field, schema in schemas[name]["properties"].items():
            bounded = {"pattern", "enum", "maximum", "items"} & set(schema)
            assert bounded or schema["type"] == "boolean", (name, field)


def test_the_docs_page_needs_nothing_from_elsewhere(shared: Desk) -> None:
    """The page has every operation, no script, no inline style, and no address of another host."""
    response = shared.call("GET", "/docs", who=None)
    page = response.get_data(as_text=True)
    document = members(shared.call("GET", "/openapi.json", who=None))
    for where, operation in operations(document):
        assert f'id="{operation["operationId"]}"' in page, where
    for name in document["components"]["schemas"]:
        assert f'id="schema-{name}"' in page
    assert "<script" not in page
    assert " style=" not in page
    assert "<style" not in page
    assert re.findall(r'(?:src|href)="(?!/|#)', page) == []
    assert "default-src 'self'" in response.headers["Content-Security-Policy"]
    with shared.call("GET", "/static/docs.css", who=None) as css:
        assert css.status_code == 200
        assert "url(" not in css.get_data(as_text=True)
