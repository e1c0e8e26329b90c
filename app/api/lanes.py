"""The lanes: which routes a process serves, and what it says to whoever asks it for one of the others.

A route of the other lane is not there at all: in its place stands a view that can do nothing but refuse.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any, Final, NoReturn

from flask import Flask, request

from app.api import (
    acks,
    events,
    flags,
    health,
    kills,
    lease,
    log,
    outcomes,
    outcomes_listed,
    revives,
    settings,
    tokens,
)
from app.api.problems import Problem
from app.domain.lanes import Lane

_ROUTES: Final[dict[Lane, tuple[ModuleType, ...]]] = {
    Lane.CONTROL: (kills, revives, flags, log, events, outcomes_listed, tokens, settings),
    Lane.WORKER: (lease, acks, outcomes),
}
_BOTH: Final = (health,)
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_AUTOMATIC: Final = frozenset({"HEAD", "OPTIONS"})

_WHAT_TO_DO: Final = {
    Lane.CONTROL: "Send it to the address of a control lane: name that in HALTLINE_URL or --url.",
    Lane.WORKER: "Send it to the address of a worker lane: name that in the worker's HALTLINE_URL.",
}


def served(lane: Lane) -> Iterator[ModuleType]:
    """Yield the modules whose routes a process serves.

    Args:
        lane: the lane of the process.
    """
    for each, modules in _ROUTES.items():
        if lane in {Lane.ALL, each}:
            yield from modules
    yield from _BOTH


def refuse_others(app: Flask, lane: Lane) -> None:
    """Have ``app`` answer every route of the other lane, whatever the method, with where it is."""
    for other, modules in _ROUTES.items():
        if lane in {Lane.ALL, other}:
            continue
        here = _rules(_ROUTES[lane])
        for rule, methods in sorted(_rules(modules).items()):
            # Where both lanes have the rule, each with methods of its own, only those of the other are refused.
            refused = methods - _AUTOMATIC if rule in here else _METHODS
            app.add_url_rule(
                rule, f"{other}:{rule}", _refusal(lane, other), methods=refused, provide_automatic_options=False
            )


def _rules(modules: tuple[ModuleType, ...]) -> dict[str, frozenset[str]]:
    """Return the rules of some modules' routes, and their methods: found by registering them where nobody serves."""
    nowhere = Flask(__name__, static_folder=None)
    for module in modules:
        nowhere.register_blueprint(module.blueprint)
    found: dict[str, frozenset[str]] = {}
    for rule in nowhere.url_map.iter_rules():
        found[rule.rule] = found.get(rule.rule, frozenset()) | (rule.methods or frozenset())
    return found


def _refusal(lane: Lane, other: Lane) -> Any:
    def refuse(**_ids: str) -> NoReturn:
        raise Problem(
            "wrong_lane",
            f"This process serves the {lane} lane; {request.url_rule} is served by the {other} lane. "
            f"{_WHAT_TO_DO[other]}",
            lane=other,
        )

    return refuse
