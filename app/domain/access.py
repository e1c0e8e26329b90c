"""Who may what: roles, permissions, and what a tenant-bound token can see."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final

from haltline.scopes import Scope, Target


class Role(StrEnum):
    """What a token is for."""

    OBSERVER = "observer"
    WORKER = "worker"
    OPERATOR = "operator"
    RELEASER = "releaser"
    GATEWAY = "gateway"
    ADMIN = "admin"


class Permission(StrEnum):
    """What a route asks of a token."""

    READ = "read"
    LEASE = "lease"
    KILL = "kill"
    REVIVE = "revive"
    TOKENS = "tokens"
    SETTINGS = "settings"


_GRANTS: Final[dict[Role, frozenset[Permission]]] = {
    Role.OBSERVER: frozenset({Permission.READ}),
    Role.WORKER: frozenset({Permission.LEASE}),
    Role.OPERATOR: frozenset({Permission.READ, Permission.KILL}),
    Role.RELEASER: frozenset({Permission.READ, Permission.REVIVE}),
    Role.GATEWAY: frozenset(),
    Role.ADMIN: frozenset({Permission.READ, Permission.TOKENS, Permission.SETTINGS}),
}


def permissions(role: Role, *, embedded: bool) -> frozenset[Permission]:
    """Return what a role may do.

    Args:
        role: the token's role.
        embedded: whether this is an embedded install (SQLite, one person): there an admin may do everything, so that
            one token is enough to begin with.
    """
    if role is Role.ADMIN and embedded:
        return frozenset(Permission)
    return _GRANTS[role]


class Reach(Enum):
    """Whether a token may kill a target."""

    ALLOWED = "allowed"
    HIDDEN = "hidden"
    """The target is not known to be this token's: answered as if it did not exist."""
    FORBIDDEN = "forbidden"
    """The target is everybody's: a tenant-bound token may not touch it."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who makes a request: a verified token, without its secret.

    Attributes:
        token_id: the token's public id.
        subject: the person or machine it names; persons are compared by subject.
        role: what it is for.
        tenants: the tenants it is bound to, sorted; None where it is not bound.
        permissions: what it may do on this install.
        expires_at: when it ends, seconds since the Unix epoch.
    """

    token_id: str
    subject: str
    role: Role
    tenants: tuple[str, ...] | None
    permissions: frozenset[Permission]
    expires_at: float

    def sees(self, target: Target) -> bool:
        """Return whether entries and flags of ``target`` are shown in full.

        A tenant-bound token sees everything but what is known to be another tenant's.
        """
        return self.tenants is None or target.scope is not Scope.TENANT or target.id in self.tenants

    def reaches(self, target: Target) -> Reach:
        """Return whether this token may kill ``target``; permission KILL is asked elsewhere."""
        if self.tenants is None:
            return Reach.ALLOWED
        if target.scope is Scope.TENANT:
            return Reach.ALLOWED if target.id in self.tenants else Reach.HIDDEN
        if target.scope is Scope.RUN:
            return Reach.HIDDEN
        return Reach.FORBIDDEN
