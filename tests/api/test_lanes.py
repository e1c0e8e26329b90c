"""What a process of one lane serves, and what it says of the other lane's routes."""

from __future__ import annotations

from typing import Any, Final

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from app.api.application import build
from app.domain.lanes import Lane
from tests.api.desk import Desk, members, problem

LEASE: Final = {"/v1/lease": {"post"}, "/v1/acks": {"post"}, "/v1/outcomes": {"post"}}
BOTH: Final = {"/livez", "/readyz", "/metrics"}
SHARED: Final = "/v1/outcomes"
"""Told at the worker lane, listed at the control lane."""


@pytest.fixture(scope="module", params=[Lane.CONTROL, Lane.WORKER])
def lane(request: pytest.FixtureRequest) -> Lane:
    """Return each lane in turn."""
    return Lane(request.param)


@pytest.fixture(scope="module")
def laned(shared: Desk, lane: Lane) -> Desk:
    """Return a process of one lane, on the log that the file shares."""
    return Desk(build(shared.node, lane=lane), shared.tokens)


def paths(desk: Desk) -> dict[str, set[str]]:
    """Return the paths that a process documents, and their methods."""
    document = members(desk.call("GET", "/openapi.json", who=None))
    OpenAPIV31SpecValidator(document).validate()
    return {path: {method for method in item if method != "parameters"} for path, item in document["paths"].items()}


def test_the_lanes_are_the_whole(shared: Desk) -> None:
    """Every route is served by exactly one lane, but those for whoever runs the service, which both serve."""
    control = paths(Desk(build(shared.node, lane=Lane.CONTROL), {}))
    worker = paths(Desk(build(shared.node, lane=Lane.WORKER), {}))
    assert {path: worker[path] for path in worker.keys() - BOTH} == LEASE
    assert control.keys() & worker.keys() == {*BOTH, SHARED}
    assert (control.pop(SHARED), worker.pop(SHARED)) == ({"get"}, {"post"})
    assert {**control, **worker, SHARED: {"get", "post"}} == paths(shared)


def test_the_other_lane_is_named(shared: Desk, laned: Desk, lane: str) -> None:
    """Every route of the other lane answers 404 wrong_lane: which lane has it and what to do, token or not."""
    other = "worker" if lane == "control" else "control"
    here = paths(laned)
    missing = {path: methods for path, methods in paths(shared).items() if path not in here}
    assert missing
    for path, methods in missing.items():
        asked = path.replace("{scope}", "run").replace("{id}", "r-42").replace("{token_id}", "abcdefghijkl")
        for method in (*methods, "delete", "options", "put"):
            for who in ("admin", None):
                told = problem(laned.call(method.upper(), asked, who=who), "wrong_lane")
                assert told["status"] == 404
                assert told["lane"] == other
                assert f"serves the {lane} lane" in told["detail"]
                assert f"by the {other} lane. Send it to the address of a {other} lane" in told["detail"]


def test_each_lane_has_its_part_of_outcomes(shared: Desk) -> None:
    """What the other one serves is refused by name, at the same path; what neither does is not allowed."""
    control, worker = (Desk(build(shared.node, lane=lane), shared.tokens) for lane in (Lane.CONTROL, Lane.WORKER))
    told = problem(control.call("POST", SHARED, {"outcomes": []}, who="worker"), "wrong_lane")
    assert told["lane"] == "worker"
    told = problem(worker.call("GET", f"{SHARED}?flip=1", who="observer"), "wrong_lane")
    assert told["lane"] == "control"
    assert control.call("GET", f"{SHARED}?flip=1", who="observer").status_code == 200
    problem(worker.call("POST", SHARED, {"outcomes": []}, who="worker"), "invalid_fields")
    for desk in (control, worker):
        problem(desk.call("DELETE", SHARED), "method_not_allowed")


def test_a_kill_at_the_worker_lane_kills_nothing(shared: Desk) -> None:
    """A well-formed kill and revive with every right, sent to a worker lane, leave the log as it is."""
    worker = Desk(build(shared.node, lane=Lane.WORKER), shared.tokens)
    head = shared.node.store.head().position
    problem(worker.kill("run:r-9"), "wrong_lane")
    body: dict[str, Any] = {"target": "run:r-9", "holds": [1], "reason": "ok"}
    problem(worker.call("POST", "/v1/revives", body, headers={"If-Match": '"x.1"'}), "wrong_lane")
    assert shared.node.store.head().position == head


def test_a_lease_at_the_control_lane_is_refused(shared: Desk) -> None:
    """A well-formed lease request is not answered before Flask either: the control lane grants nothing."""
    control = Desk(build(shared.node, lane=Lane.CONTROL), shared.tokens)
    problem(control.lease(), "wrong_lane")
    assert control.kill("run:r-10").status_code == 201


def test_the_worker_lane_grants(shared: Desk) -> None:
    """The worker lane verifies tokens and grants leases as one process for both does."""
    worker = Desk(build(shared.node, lane=Lane.WORKER), shared.tokens)
    assert worker.lease().status_code == 200
    problem(worker.lease(who="observer"), "forbidden")
    worker.tokens = {**worker.tokens, "worker": "hlt_default_nobody"}
    problem(worker.lease(), "unauthenticated")


def test_both_lanes_are_watched(laned: Desk) -> None:
    """Health, readiness, metrics and the docs page are at every process; a refused route is counted by its rule."""
    laned.call("POST", "/v1/kills")
    laned.call("POST", "/v1/lease")
    for path in ("/livez", "/readyz", "/metrics", "/docs", "/openapi.json"):
        assert laned.call("GET", path, who=None).status_code == 200, path
    text = laned.call("GET", "/metrics", who=None).get_data(as_text=True)
    assert 'status="404"' in text


def test_what_no_lane_has_is_not_found(laned: Desk) -> None:
    """A path that is no route of either lane is told as before."""
    problem(laned.call("GET", "/v1/nothing"), "not_found")
    problem(laned.call("POST", "//v1/kills"), "not_found")
