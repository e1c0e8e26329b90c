"""/v1/tokens: make, list and revoke tokens."""

from __future__ import annotations

from typing import Any, Final

from app.api.auth import needs, node, principal
from app.api.operations import EXAMPLE_AT, QUERIES, WRITES, Blueprint, may_fail
from app.api.problems import Problem
from app.api.schemas import TokenBody, TokensQuery
from app.api.shapes import token
from app.api.shown import IssuedOut, TokensOut
from app.domain.access import Permission, Role
from app.domain.tokens import TOKEN_ID_PATTERN, check_binding, is_token_id
from haltline.errors import InvalidTarget

blueprint: Final = Blueprint("tokens", __name__, description="who may what")

EXAMPLE: Final = {
    "token_id": "k3v9x0q2m7ab",
    "subject": "mailer",
    "role": "worker",
    "tenants": ["acme"],
    "created_at": EXAMPLE_AT,
    "expires_at": "2027-02-18T20:25:11.123456Z",
    "revoked_at": None,
}
TOKEN_ID: Final = {
    "in": "path",
    "name": "token_id",
    "required": True,
    "description": "the public id: the part of the token between the second and the third underscore",
    "schema": {"type": "string", "pattern": TOKEN_ID_PATTERN, "minLength": 12, "maxLength": 12},
    "example": "k3v9x0q2m7ab",
}


@blueprint.route("/v1/tokens", methods=["POST"])
@needs(Permission.TOKENS)
@blueprint.arguments(
    TokenBody(), example={"subject": "mailer", "role": "worker", "tenants": ["acme"], "expires_in_days": 90}
)
@blueprint.response(
    201,
    IssuedOut,
    example={**EXAMPLE, "token": "hlt_default_k3v9x0q2m7ab_..."},
    description="The token, shown this once",
)
@may_fail(*WRITES)
def create_token(body: dict[str, Any]) -> dict[str, Any]:
    """Make a token.

    Where the outcome is unknown, list the tokens and revoke what nobody holds the secret of.
    """
    role, tenants = Role(body["role"]), body.get("tenants")
    bound = tuple(tenants) if tenants is not None else None
    try:
        check_binding(role, bound)
    except (ValueError, InvalidTarget) as error:
        raise Problem("invalid_fields", errors={"tenants": [f"{error}."]}) from None
    issued = node().tokens.issue(
        subject=body["subject"],
        role=role,
        actor=principal().subject,
        tenants=bound,
        days=body.get("expires_in_days"),
    )
    return {**token(issued.stored), "token": issued.text}


@blueprint.route("/v1/tokens", methods=["GET"])
@needs(Permission.TOKENS)
@blueprint.arguments(TokensQuery(), location="query")
@blueprint.response(200, TokensOut, example={"tokens": [EXAMPLE], "next_cursor": None})
@may_fail(*QUERIES)
def list_tokens(query: dict[str, Any]) -> dict[str, Any]:
    """List tokens, revoked and expired ones too, never their secrets."""
    limit = query["limit"]
    found = node().tokens.listed(after=query.get("cursor"), limit=limit)
    return {
        "tokens": [token(each) for each in found],
        "next_cursor": found[-1].token_id if len(found) == limit else None,
    }


@blueprint.route("/v1/tokens/<token_id>", methods=["DELETE"], parameters=[TOKEN_ID])
@needs(Permission.TOKENS)
@blueprint.response(204, description="It is revoked")
@may_fail(*QUERIES, "not_found", "outcome_unknown")
def revoke_token(token_id: str) -> None:
    """Revoke a token; leases that were granted to it end within the lease ttl."""
    if not is_token_id(token_id):
        raise Problem("invalid_fields", errors={"token_id": ["A token's id has 12 characters of a-z 0-9."]})
    if not node().tokens.revoke(token_id, actor=principal().subject):
        raise Problem("not_found", "There is no live token of that id.")
