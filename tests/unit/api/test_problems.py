"""Problems: flat field errors, one body for each status, nothing secret in any."""

from __future__ import annotations

import pytest
from werkzeug.exceptions import HTTPException, MethodNotAllowed, default_exceptions

from app.api.problems import KINDS, Problem, body_of, flat, of_http, reply
from app.domain.tokens import Token


def test_every_kind_says_what_to_do() -> None:
    """Each kind of problem has an error status, a title and a next step."""
    for code, kind in KINDS.items():
        assert 400 <= kind.status < 600, code
        assert kind.title, code
        assert kind.detail.endswith((".", '".', "`.")), code


def test_nested_errors_become_one_list_a_field() -> None:
    """Marshmallow's nested messages are flattened, names joined by dots."""
    messages = {"holds": {0: ["a"], 2: ["b", "c"]}, "_schema": ["d"], "reason": "e", "x": {"y": {"z": ["f"]}}}
    assert flat(messages) == {
        "holds.0": ["a"],
        "holds.2": ["b", "c"],
        "body": ["d"],
        "reason": ["e"],
        "x.y.z": ["f"],
    }


@pytest.mark.parametrize("status", sorted(default_exceptions))
def test_any_http_error_is_a_problem(status: int) -> None:
    """Whatever Flask or werkzeug raise becomes a known problem of the same class of status."""
    problem = of_http(default_exceptions[status]())
    assert KINDS[problem.code].status // 100 == status // 100


def test_an_error_without_a_status_is_ours() -> None:
    """An HTTP error that names no status is our fault, not the caller's."""
    assert of_http(HTTPException()).code == "internal"


def test_allow_is_kept() -> None:
    """A 405 says which methods are allowed."""
    assert of_http(MethodNotAllowed(valid_methods=["POST"])).headers == {"Allow": "POST"}


def test_members_cannot_replace_what_every_problem_has() -> None:
    """A problem's own members stand beside the common ones."""
    assert body_of("stale_view", "x", holds=[])["holds"] == []
    assert body_of("stale_view", "x")["detail"] == "x"


def test_a_token_in_a_message_is_masked() -> None:
    """A message that repeats a token shows its id only."""
    token = Token("default", "k3v9x0q2m7ab", "S" * 43)
    body = reply(Problem("not_found", f"There is no {token.text}.")).get_data(as_text=True)
    assert "k3v9x0q2m7ab" in body
    assert "SSS" not in body
