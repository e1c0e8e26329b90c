"""Who asks: the bearer token of a request, and whether it may use the route."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar, cast

from flask import current_app, g, request

from app.api.problems import Problem
from app.domain.access import Permission, Principal
from app.service.node import Node
from app.service.tokens import Denied

P = ParamSpec("P")
R = TypeVar("R")

CHALLENGE: Final = 'Bearer realm="haltline"'
EXTENSION: Final = "haltline"


def node() -> Node:
    """Return the node that serves this request."""
    return cast("Node", current_app.extensions[EXTENSION])


def principal() -> Principal:
    """Return who makes this request; only routes with a permission have one."""
    return cast("Principal", g.principal)


def authenticate(here: Node, header: str | None, permission: Permission) -> Principal:
    """Return who makes a request.

    Args:
        here: the node that serves it.
        header: its Authorization header; None if it has none.
        permission: what it needs.

    Raises:
        Problem: there is no valid token, it is of another namespace, or it lacks the permission.
        StoreUnavailable: the token could not be looked up.
    """
    if header is None:
        raise Problem("unauthenticated", headers={"WWW-Authenticate": CHALLENGE})
    scheme, _, text = header.partition(" ")
    shown = here.tokens.admit(text.strip(" ")) if scheme.lower() == "bearer" else Denied.INVALID
    if shown is Denied.INVALID:
        raise Problem("unauthenticated", headers={"WWW-Authenticate": f'{CHALLENGE}, error="invalid_token"'})
    if shown is Denied.FOREIGN:
        raise Problem("wrong_namespace")
    if permission not in shown.permissions:
        raise Problem("forbidden", f"A token of role {shown.role.value} may not {permission.value} here.")
    return shown


def needs(permission: Permission) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a view be used only with a token that has ``permission``; it is asked before the body is read."""

    def decorate(view: Callable[P, R]) -> Callable[P, R]:
        @wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            g.principal = authenticate(node(), request.headers.get("Authorization"), permission)
            return view(*args, **kwargs)

        documented: Any = guarded
        manual = documented.__dict__.setdefault("_apidoc", {}).setdefault("manual_doc", {})
        manual["security"] = [{"bearer": []}]
        manual["x-haltline-permission"] = permission.value
        return guarded

    return decorate
