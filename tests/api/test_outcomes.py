"""/v1/outcomes: told by workers, kept once, listed for who may read, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
from werkzeug.test import TestResponse

from app.domain.access import Role
from app.service.outcomes import BATCH, CLEANUPS
from app.service.store import OutcomeUnknown, StoreUnavailable
from tests.api.desk import Desk, members, open_desk, problem
from tests.unit.service.fakes import MemoryStore

CLEANUP: Final = {"name": "close the browser", "outcome": "done", "ms": 180}
OUTCOME: Final = {
    "run": "r-42",
    "flip": 1,
    "worker": "mailer-1",
    "instance": "5b0c6f2e",
    "at": "2026-11-20T20:25:11.123456Z",
    "ended": "cleanup",
    "cleanups": [CLEANUP, {"name": "release", "outcome": "failed", "ms": 0, "detail": "refused"}],
}


def tell(desk: Desk, *outcomes: Any, who: str | None = "worker") -> TestResponse:
    """Tell of outcomes."""
    return desk.call("POST", "/v1/outcomes", {"outcomes": list(outcomes)}, who=who)


def listed(desk: Desk, query: str, *, who: str = "observer") -> list[dict[str, Any]]:
    """Return one page of outcomes."""
    response = desk.call("GET", f"/v1/outcomes?{query}", who=who)
    assert response.status_code == 200, response.get_data()
    found = members(response)["outcomes"]
    assert isinstance(found, list)
    return found


def test_outcomes_are_told_and_listed(desk: Desk) -> None:
    """As they were told, and with who told them; by flip, by run, and by both."""
    seq = members(desk.kill("run:r-42"))["seq"]
    told = {**OUTCOME, "flip": seq}
    assert members(tell(desk, told, {**told, "run": "r-43", "ended": "killed", "cleanups": []})) == {
        "kept": 2,
        "repeated": 0,
    }
    (first,) = listed(desk, f"flip={seq}&run=r-42")
    assert {name: first[name] for name in told} == told
    assert first["subject"] == "the-worker"
    assert first["kept_at"].endswith("Z")
    assert "tenants" not in first
    assert [each["run"] for each in listed(desk, f"flip={seq}")] == ["r-42", "r-43"]
    assert [each["ended"] for each in listed(desk, "run=r-43")] == ["killed"]
    assert listed(desk, "run=r-44") == []
    assert listed(desk, "flip=999") == []
    assert len(listed(desk, "")) == 2


def test_no_entry_is_written(desk: Desk) -> None:
    """Outcomes stand beside the log, however many there are."""
    head = desk.node.store.head()
    tell(desk, *({**OUTCOME, "run": f"r-{number}"} for number in range(20)))
    assert desk.node.store.head() == head


def test_what_is_told_again_changes_nothing(desk: Desk) -> None:
    """In the same batch and in another: the first word of a run and flip stays."""
    assert members(tell(desk, OUTCOME, {**OUTCOME, "worker": "second"})) == {"kept": 1, "repeated": 1}
    assert members(tell(desk, {**OUTCOME, "worker": "third"}, {**OUTCOME, "run": "r-1"})) == {"kept": 1, "repeated": 1}
    assert [each["worker"] for each in listed(desk, "run=r-42")] == ["mailer-1"]


def test_a_moment_may_have_fewer_digits(desk: Desk) -> None:
    """It is kept as the log writes moments."""
    tell(desk, {**OUTCOME, "at": "2026-11-20T20:25:11.5Z"})
    assert listed(desk, "run=r-42")[0]["at"] == "2026-11-20T20:25:11.500000Z"


def test_outcomes_are_listed_page_by_page(desk: Desk) -> None:
    """Each once, and the last page says that it is the last."""
    runs = sorted(f"r-{number}" for number in range(23))
    tell(desk, *({**OUTCOME, "run": run} for run in runs))
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        more = f"&cursor={cursor}" if cursor else ""
        page = members(desk.call("GET", f"/v1/outcomes?flip=1&limit=5{more}", who="observer"))
        seen += [each["run"] for each in page["outcomes"]]
        cursor = page["next_cursor"]
    assert seen == runs


def test_a_bound_reader_sees_what_its_tenants_workers_told(desk: Desk) -> None:
    """And learns of nothing else, not that it is there: an unbound worker's runs may be anybody's."""
    other = desk.node.tokens.issue(subject="theirs", role=Role.WORKER, actor="setup", tenants=("beta",)).text
    desk.tokens["other_worker"] = other
    for run, who in (("r-acme", "bound_worker"), ("r-beta", "other_worker"), ("r-any", "worker")):
        assert tell(desk, {**OUTCOME, "run": run}, who=who).status_code == 200
    assert [each["run"] for each in listed(desk, "flip=1", who="bound_operator")] == ["r-acme"]
    assert listed(desk, "run=r-beta", who="bound_operator") == []
    page = members(desk.call("GET", "/v1/outcomes?flip=1&limit=1", who="bound_operator"))
    assert page["next_cursor"] == "1:r-acme"
    assert listed(desk, "flip=1&limit=1&cursor=1:r-acme", who="bound_operator") == []
    assert [each["run"] for each in listed(desk, "flip=1")] == ["r-acme", "r-any", "r-beta"]


@pytest.mark.parametrize("who", ["observer", "operator", "bound_operator", "releaser", "gateway"])
def test_only_workers_tell(shared: Desk, who: str) -> None:
    """Any other token is refused, and nothing is kept."""
    problem(tell(shared, {**OUTCOME, "run": f"by-{who}"}, who=who), "forbidden")
    problem(tell(shared, OUTCOME, who=None), "unauthenticated")
    assert listed(shared, f"run=by-{who}") == []


@pytest.mark.parametrize("who", ["worker", "bound_worker", "gateway"])
def test_workers_read_none(shared: Desk, who: str) -> None:
    """Nor whoever else may not read."""
    problem(shared.call("GET", "/v1/outcomes?run=r-42", who=who), "forbidden")


def without(name: str) -> dict[str, Any]:
    """Return an outcome that lacks a member."""
    return {key: value for key, value in OUTCOME.items() if key != name}


def cleaned(**changes: Any) -> dict[str, Any]:
    """Return an outcome with one cleanup that is changed; ... takes a member away."""
    return {**OUTCOME, "cleanups": [{key: value for key, value in {**CLEANUP, **changes}.items() if value is not ...}]}


TOKEN: Final = "hlt_default_abcdefghijkl_" + "a" * 49
RUNS: Final[tuple[Any, ...]] = ("", "a b", "-r", "r" * 129, 7, None, TOKEN)
FLIPS: Final[tuple[Any, ...]] = (0, -1, "1", True, None)
MOMENTS: Final[tuple[Any, ...]] = ("", "now", "2026-13-20T20:25:11Z", 1_800_000_000, None)
CLEANED: Final[tuple[Any, ...]] = (None, {}, "none", [7], ["done"])
NAMES: Final[tuple[Any, ...]] = ("", "n" * 129, "a\nb", "\x1b[2J", "\u202eb", 7, TOKEN)
DETAILS: Final[tuple[Any, ...]] = ("d" * 257, "a\nb", "\x00", None, 7, TOKEN)
TIMES: Final[tuple[Any, ...]] = (-1, "1", True, None, 86_400_001)
BAD: Final[dict[str, Any]] = {
    **{f"without {name}": without(name) for name in OUTCOME},
    "more": {**OUTCOME, "more": 1},
    "no object": "r-42",
    "null": None,
    **{f"run {value!r:.20}": {**OUTCOME, "run": value} for value in RUNS},
    **{f"flip {value!r}": {**OUTCOME, "flip": value} for value in FLIPS},
    **{f"worker {value!r}": {**OUTCOME, "worker": value} for value in ("", "a b", None)},
    **{f"instance {value!r}": {**OUTCOME, "instance": value} for value in ("", "a b", None)},
    **{f"at {value!r}": {**OUTCOME, "at": value} for value in MOMENTS},
    "at in another zone": {**OUTCOME, "at": "2026-11-20T20:25:11+01:00"},
    **{f"ended {value!r}": {**OUTCOME, "ended": value} for value in ("", "done", "Cleanup", None, True)},
    **{f"cleanups {value!r}": {**OUTCOME, "cleanups": value} for value in CLEANED},
    "too many cleanups": {**OUTCOME, "cleanups": [{"name": "c", "outcome": "done", "ms": 1}] * (CLEANUPS + 1)},
    "cleanup with more": cleaned(more=1),
    "cleanup without a name": cleaned(name=...),
    "cleanup without an outcome": cleaned(outcome=...),
    "cleanup without ms": cleaned(ms=...),
    **{f"name {value!r:.20}": cleaned(name=value) for value in NAMES},
    **{f"detail {value!r:.20}": cleaned(detail=value) for value in DETAILS},
    **{f"outcome {value!r}": cleaned(outcome=value) for value in ("", "ok", "Done", None, True)},
    **{f"ms {value!r}": cleaned(ms=value) for value in TIMES},
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_outcome_is_refused_by_name(shared: Desk, case: str) -> None:
    """With the whole batch, and the field is named by where it stands."""
    good = {**OUTCOME, "run": "beside-a-bad-one"}
    told = problem(tell(shared, good, BAD[case]), "invalid_fields")
    assert all(field.startswith("outcomes.1") for field in told["errors"])
    assert TOKEN not in str(told)
    assert listed(shared, "run=beside-a-bad-one") == []


@pytest.mark.parametrize(
    "body", [{}, {"outcomes": []}, {"outcomes": {}}, {"outcomes": None}, {"outcomes": [], "a": 1}, []]
)
def test_a_bad_batch_is_refused(shared: Desk, body: Any) -> None:
    """Empty, of another shape, or with something beside it."""
    problem(shared.call("POST", "/v1/outcomes", body, who="worker"), "invalid_fields")


def test_a_batch_is_bounded(shared: Desk) -> None:
    """A hundred are taken, one more is not; nor a body beyond 16 KiB; nor a fraction, which this protocol has not."""
    small = {**OUTCOME, "worker": "w", "instance": "i", "cleanups": []}
    batch = [{**small, "run": f"b-{number}"} for number in range(BATCH + 1)]
    problem(tell(shared, *batch), "invalid_fields")
    assert members(tell(shared, *batch[:BATCH]))["kept"] == BATCH
    problem(tell(shared, *(cleaned(detail="d" * 256) for _ in range(BATCH))), "body_too_large")
    problem(tell(shared, cleaned(ms=0.5)), "malformed_body")


def test_every_limit_may_be_reached(shared: Desk) -> None:
    """The longest name, detail and time, and as many cleanups as an outcome may have."""
    longest = {"name": "n" * 128, "outcome": "timed_out", "ms": 86_400_000, "detail": "\u00e9" * 256}
    most = [{"name": "c", "outcome": "done", "ms": 1, "detail": ""}] * CLEANUPS
    assert tell(shared, {**OUTCOME, "run": "longest", "cleanups": [longest]}).status_code == 200
    assert tell(shared, {**OUTCOME, "run": "most", "cleanups": most}).status_code == 200
    assert listed(shared, "run=longest")[0]["cleanups"] == [longest]
    assert listed(shared, "run=most")[0]["cleanups"] == most


def test_a_flip_that_the_log_does_not_have_is_a_conflict(desk: Desk) -> None:
    """The batch is refused; a flip that this node has not read yet is waited for."""
    seq = members(desk.kill())["seq"]
    assert tell(desk, {**OUTCOME, "flip": seq}).status_code == 200
    problem(tell(desk, OUTCOME, {**OUTCOME, "flip": seq + 1}), "regress")
    problem(tell(desk, {**OUTCOME, "flip": 2**53 - 1}), "regress")
    assert listed(desk, "flip=1") == []


@pytest.mark.parametrize(
    "query",
    [
        "flip=0",
        "flip=-1",
        "flip=01",
        "flip=x",
        "run=",
        "run=a%20b",
        "flip=1&limit=0",
        "flip=1&limit=1001",
        "flip=1&cursor=1",
        "flip=1&cursor=r-1",
        "flip=1&cursor=0:r-1",
        "flip=1&cursor=1:",
        "flip=1&cursor=1:a%20b",
        "flip=1&flip=2",
        "flip=1&tenant=acme",
    ],
)
def test_a_bad_query_is_refused(shared: Desk, query: str) -> None:
    """By the field that is wrong with it."""
    problem(shared.call("GET", f"/v1/outcomes?{query}", who="observer"), "invalid_fields")


def test_what_cannot_be_kept_is_said(tmp_path: Path) -> None:
    """Nothing was kept, or nobody knows; or too many tell of outcomes just now. Telling it again is safe."""
    store = MemoryStore()
    desk = open_desk(tmp_path, store=store)
    assert desk.lease().status_code == 200
    store.failure = StoreUnavailable("gone")
    problem(tell(desk, OUTCOME), "store_unavailable")
    store.failure = OutcomeUnknown("lost")
    problem(tell(desk, OUTCOME), "outcome_unknown")
    store.failure = None
    assert members(tell(desk, OUTCOME)) == {"kept": 1, "repeated": 0}
    desk.close()


def test_outcomes_are_counted(desk: Desk) -> None:
    """By how runs ended and what became of cleanups, without an id among the labels."""
    tell(desk, OUTCOME, {**OUTCOME, "run": "r-1", "ended": "killed"})
    text = desk.call("GET", "/metrics", who=None).get_data(as_text=True)
    assert 'haltline_outcomes_total{ended="cleanup"} 1.0' in text
    assert 'haltline_outcomes_total{ended="killed"} 1.0' in text
    assert 'haltline_cleanups_total{outcome="done"} 2.0' in text
    assert 'haltline_cleanups_total{outcome="failed"} 2.0' in text
    assert "r-42" not in text
