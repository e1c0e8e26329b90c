"""Scopes, ids and targets: what a kill can name, and the path of targets that stand above a run.

Four rungs, from the narrowest button to the broadest: capability (freeze one tool), run, tenant or feature (one
cohort), global (stop the world). Ids are rejected, never normalised: two ids are the same only if their bytes are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from haltline.errors import InvalidTarget

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", re.ASCII)
_CAPABILITY: Final = re.compile(r"[a-z0-9][a-z0-9._:-]{0,127}", re.ASCII)
_NAMESPACE: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)

ID_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$"
"""The id grammar as an anchored pattern, for schemas in other languages. Python's ``$`` would let a newline pass."""

TARGET_PATTERN: Final = (
    r"^(global|capability:[a-z0-9][a-z0-9._:-]{0,127}|(run|tenant|feature):[A-Za-z0-9][A-Za-z0-9._:-]{0,127})$"
)
"""The target grammar as an anchored pattern, for schemas in other languages; as for :data:`ID_PATTERN`."""


class Scope(StrEnum):
    """What kind of thing a target names."""

    CAPABILITY = "capability"
    RUN = "run"
    TENANT = "tenant"
    FEATURE = "feature"
    GLOBAL = "global"

    @property
    def breadth(self) -> int:
        """How much a kill here stops, as a sort key: 0 is the broadest."""
        return _BREADTH[self]


_BREADTH: Final = {Scope.GLOBAL: 0, Scope.TENANT: 1, Scope.FEATURE: 2, Scope.RUN: 3, Scope.CAPABILITY: 4}


def _shown(text: object) -> str:
    """A bounded, printable form of a rejected value for an error message."""
    if not isinstance(text, str):  # its repr may be anything: megabytes, an integer too large to print, an error
        return f"of type {type(text).__name__}"
    shown = ascii(text[:60])
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def check_id(text: object, what: str = "id") -> str:
    """Return ``text`` if it is a valid id.

    Args:
        text: the candidate; 1 to 128 characters of ``A-Z a-z 0-9 . _ : -``, the first a letter or digit.
        what: the word for it in the error message.

    Raises:
        InvalidTarget: it is not.
    """
    if type(text) is not str or _ID.fullmatch(text) is None:
        raise InvalidTarget(
            f"{what} {_shown(text)} is not valid: 1 to 128 characters of A-Z a-z 0-9 . _ : - are allowed, "
            f"the first a letter or digit"
        )
    return text


def check_capability(text: object) -> str:
    """Return ``text`` if it is a valid capability id: as :func:`check_id`, lower case only.

    Raises:
        InvalidTarget: it is not.
    """
    if type(text) is not str or _CAPABILITY.fullmatch(text) is None:
        raise InvalidTarget(
            f"capability {_shown(text)} is not valid: 1 to 128 characters of a-z 0-9 . _ : - are allowed "
            f"(lower case only), the first a letter or digit"
        )
    return text


def check_namespace(text: object) -> str:
    """Return ``text`` if it is a valid namespace: 1 to 32 characters of ``a-z 0-9 -``, no leading hyphen.

    Raises:
        InvalidTarget: it is not.
    """
    if type(text) is not str or _NAMESPACE.fullmatch(text) is None:
        raise InvalidTarget(
            f"namespace {_shown(text)} is not valid: 1 to 32 characters of a-z 0-9 - are allowed, "
            f"the first a letter or digit"
        )
    return text


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """A scope and an id: ``capability:send_email``, ``run:r-42``, ``tenant:acme``, ``feature:outreach``, ``global``.

    Build one with :func:`parse_target` or :func:`target`; both check the grammar.
    """

    scope: Scope
    id: str = ""

    def __str__(self) -> str:
        """Return the target as it is written in the log, in the API and on the command line."""
        return "global" if self.scope is Scope.GLOBAL else f"{self.scope.value}:{self.id}"


GLOBAL: Final = Target(Scope.GLOBAL)
"""The target that stops the world."""


def target(scope: str | Scope, identifier: str | None = None) -> Target:
    """Return the target of a scope and an id.

    Args:
        scope: ``capability``, ``run``, ``tenant``, ``feature`` or ``global``.
        identifier: the id; none for ``global``.

    Raises:
        InvalidTarget: the scope is unknown, the id outside the grammar, missing, or given for ``global``.
    """
    try:
        known = Scope(scope)
    except ValueError:
        raise InvalidTarget(
            f"scope {_shown(scope)} is unknown: use capability, run, tenant, feature or global"
        ) from None
    if known is Scope.GLOBAL:
        if identifier is not None:
            raise InvalidTarget("global takes no id: it is a target by itself")
        return GLOBAL
    if identifier is None:
        raise InvalidTarget(f"{known.value} needs an id, as in {known.value}:some-id")
    if known is Scope.CAPABILITY:
        return Target(known, check_capability(identifier))
    return Target(known, check_id(identifier, f"{known.value} id"))


def parse_target(text: object) -> Target:
    """Return the target that ``text`` names; it splits at its first colon.

    Raises:
        InvalidTarget: ``text`` is not ``global`` or ``scope:id`` within the grammar.
    """
    if type(text) is not str:
        raise InvalidTarget(f"target {_shown(text)} is not text: write scope:id, or global")
    scope, colon, identifier = text.partition(":")
    return target(scope, identifier if colon else None)


@dataclass(frozen=True, slots=True)
class Path:
    """The targets that stand above an effect of one run, the broadest first, without its capability.

    Attributes:
        targets: global, then tenant and feature if the run has them, then the run's ancestors from the root,
            then the run itself.
        keys: the same as text, which is how a replica is indexed.
    """

    targets: tuple[Target, ...]
    keys: tuple[str, ...]


DEPTH_MAX: Final = 32
"""How many runs a path may have, from the root to the run itself."""


def path(run: str, *, tenant: str | None = None, feature: str | None = None, ancestors: Sequence[str] = ()) -> Path:
    """Return the path of a run.

    Args:
        run: the run's id.
        tenant: the id of the tenant that the run works for, if any.
        feature: the id of the feature that the run belongs to, if any.
        ancestors: the ids of the runs above it, from the root to its parent.

    Raises:
        InvalidTarget: one of the ids is outside the grammar, a run stands above itself, or the path is too deep.
    """
    runs = (*ancestors, run)
    if len(runs) > DEPTH_MAX:
        raise InvalidTarget(
            f"run {_shown(run)} would be {len(runs)} deep: at most {DEPTH_MAX} runs may stand in a path"
        )
    if len(set(runs)) < len(runs):
        raise InvalidTarget(f"run {_shown(run)} would stand above itself: each run of a path has an id of its own")
    targets = [GLOBAL]
    if tenant is not None:
        targets.append(target(Scope.TENANT, tenant))
    if feature is not None:
        targets.append(target(Scope.FEATURE, feature))
    targets.extend(target(Scope.RUN, each) for each in runs)
    return Path(tuple(targets), tuple(str(each) for each in targets))
