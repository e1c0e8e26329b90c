"""Schemathesis on the OpenAPI document: cases fixed in number and by a seed, each judged by every check."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import APIOperation, GenerationMode
from schemathesis import Case as AnyCase
from schemathesis.checks import CHECKS, load_all_checks

from app.api.strict_json import BODY_LIMIT
from haltline.scopes import Scope
from tests.support.fuzz_service import Fuzzed

Case: TypeAlias = AnyCase[Any]
Operation: TypeAlias = APIOperation[Any, Any, Any, Any]

ROUND: Final = 50
"""How many cases of one operation and mode are drawn in a row, before the other operations have their turn."""

SETTINGS: Final[dict[str, Any]] = {
    # What the service answers beyond schemathesis' own idea of it: a precondition is part of a valid request too.
    "positive_data_acceptance": {"expected-statuses": ["2xx", "304", "404", "409", "412"]},
    "negative_data_rejection": {"expected-statuses": ["400", "401", "404", "405", "413", "415", "422", "428"]},
    "missing_required_header": {"expected-statuses": ["415", "422", "428"]},
    "not_a_server_error": {"expected-statuses": ["2xx", "304", "4xx"]},
}

NEEDED: Final = frozenset(
    {
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "negative_data_rejection",
        "positive_data_acceptance",
        "missing_required_header",
        "unsupported_method",
        "ignored_auth",
    }
)
"""The checks that make sense here; the others look for resources and links that the document does not describe."""


class OpenApi:
    """The operations of a service, and cases for them.

    Args:
        service: whom to ask.
        start: what every draw follows from.
    """

    def __init__(self, service: Fuzzed, *, start: int) -> None:
        config = schemathesis.Config.from_dict({"checks": SETTINGS})
        schema: Any = schemathesis.openapi.from_wsgi("/openapi.json", service.witness, config=config)
        self._schema = schema
        self._service = service
        self._start = start
        self._random = random.Random(start)
        self._ground: dict[str, Callable[[Case], None]] = {
            "POST /v1/revives": self._real_hold,
            "DELETE /v1/tokens/{token_id}": self._real_token,
            "GET /v1/log/{seq}": self._real_seq,
        }
        load_all_checks()
        self._checks: list[Any] = [check for check in CHECKS.get_all() if check.__name__ in NEEDED]
        assert {check.__name__ for check in self._checks} == NEEDED

    @property
    def operations(self) -> list[Any]:
        """Return every operation of the document."""
        return [each.ok() for each in self._schema.get_all_operations()]

    def judge(self, case: Case) -> None:
        """Send a case as the admin and check the reply in every way that makes sense.

        Raises:
            FailureGroup: what is wrong with it, and the request as a curl command.
            AssertionError: the witness saw what no reply may be.
        """
        headers = {"Authorization": f"Bearer {self._service.tokens['admin']}"}
        checks = [check for check in self._checks if not (_beyond_schema(case) and _wants_success(check))]
        case.call_and_validate(headers=headers, checks=checks)

    def covering(self) -> Iterator[Case]:
        """Yield the cases that cover every keyword of the document, methods that it does not list included."""
        for operation in self.operations:
            yield from self._schema.iter_coverage_cases(
                operation=operation,
                generation_modes=list(GenerationMode),
                generation_config=self._schema.config.generation_for(operation=operation),
            )

    def fuzz(self, total: int) -> dict[str, int]:
        """Judge exactly ``total`` random cases, good and bad ones of every operation; return how many of each."""
        lanes = [(each, mode) for each in self.operations for mode in GenerationMode if _has(each, mode)]
        done = {each.label: 0 for each, _ in lanes}
        turn = 0
        while (left := total - sum(done.values())) > 0:
            operation, mode = lanes[turn % len(lanes)]
            # Where nothing can be varied, one case is all there is.
            wanted = min(ROUND, left, -(-total // len(lanes))) if _varies(operation) else 1
            done[operation.label] += self._run(operation, mode, wanted, start=self._start + turn)
            turn += 1
        return done

    def _run(self, operation: Operation, mode: GenerationMode, wanted: int, *, start: int) -> int:
        count = 0

        @seed(start)
        @settings(
            max_examples=wanted,
            deadline=None,
            derandomize=False,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy(generation_mode=mode))
        def ask(case: Case) -> None:
            nonlocal count
            if mode is GenerationMode.POSITIVE and operation.label in self._ground and self._random.random() < 0.5:
                self._ground[operation.label](case)
            self.judge(case)
            count += 1

        ask()
        return count

    def _real_hold(self, case: Case) -> None:
        """Make a revive name a hold that is there, as it is seen now."""
        killed = self._service.kill(f"run:r-{self._random.randrange(5)}").members
        members: Any = case.body
        case.body = {**members, "target": killed["target"], "holds": [killed["seq"]]}
        case.headers["If-Match"] = killed["etag"]

    def _real_token(self, case: Case) -> None:
        """Make a revocation name a token that is there."""
        made = self._service.call("POST", "/v1/tokens", {"subject": "fuzz", "role": "observer"}).members
        case.path_parameters["token_id"] = made["token_id"]

    def _real_seq(self, case: Case) -> None:
        """Make a look at the log ask for an entry that is there."""
        case.path_parameters["seq"] = self._random.randint(1, self._service.head)


def _wants_success(check: Any) -> bool:
    return bool(check.__name__ == "positive_data_acceptance")


def _varies(operation: Operation) -> bool:
    return bool(list(operation.iter_parameters()) or operation.body)


def _has(operation: Operation, mode: GenerationMode) -> bool:
    """Return whether there are cases of a mode: what takes no input cannot be given bad input."""
    return mode is GenerationMode.POSITIVE or _varies(operation)


def _has_fractions(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_has_fractions, value.values()))
    if isinstance(value, list):
        return any(map(_has_fractions, value))
    return isinstance(value, float)


def _beyond_schema(case: Case) -> bool:
    """Return whether a case breaks a rule that a schema cannot say: to be refused, though it fits the schema."""
    members: Any = case.body
    if _has_fractions(members):
        return True  # 7.0 is an integer for JSON Schema, and none for this protocol
    label = case.operation.label
    if label == "POST /v1/tokens" and isinstance(members, dict):
        return "tenants" in members and members.get("role") not in ("worker", "operator")
    if label == "POST /v1/lease" and isinstance(members, dict):
        return members.get("seq") != 0 and None in (members.get("epoch"), members.get("hash"))
    if label == "POST /v1/outcomes":
        return len(json.dumps(members, default=str)) > BODY_LIMIT
    return _beyond_query(label, case)


def _beyond_query(label: str, case: Case) -> bool:
    """Return the same for what stands in a path, a query or a header."""
    if label == "GET /v1/log/export":
        low, high = str(case.query.get("from", 1)), str(case.query.get("to"))
        return low.isdigit() and high.isdigit() and int(low) > int(high)
    if label == "GET /v1/events":
        header, query = case.headers.get("Last-Event-ID"), case.query.get("after")
        return header is not None and query is not None and str(header) != str(query)
    if label == "GET /v1/flags/{scope}/{id}" and case.path_parameters.get("scope") == Scope.CAPABILITY:
        named = str(case.path_parameters.get("id"))
        return named != named.lower()
    return False
