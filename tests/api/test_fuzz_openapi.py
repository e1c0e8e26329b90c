"""The whole API under random requests drawn from its OpenAPI document: no fault, no leak, nothing undocumented."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from haltline.flips import Kill, Revive
from tests.support.counts import NIGHTLY, REQUESTS, SEED
from tests.support.fuzz_openapi import OpenApi
from tests.support.fuzz_service import Fuzzed, fuzzed


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    """Yield a service for the tests of this file."""
    with fuzzed(tmp_path_factory.mktemp("fuzz")) as running:
        yield running


@pytest.fixture
def document(service: Fuzzed) -> OpenApi:
    """Return its OpenAPI document."""
    return OpenApi(service, start=SEED)


def test_every_operation_is_fuzzed(document: OpenApi, service: Fuzzed) -> None:
    """The document has an operation for every route of the API, so that fuzzing it leaves nothing out."""
    rules = {
        f"{method} {rule.rule.replace('<', '{').replace('>', '}')}"
        for rule in service.app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule not in {"/openapi.json", "/docs", "/static/<path:filename>"}
    }
    assert {each.label for each in document.operations} == rules


@pytest.mark.timeout(240)
def test_covering_requests(document: OpenApi) -> None:
    """Each keyword of each schema, kept and broken, and each method that is not listed, is answered as documented."""
    count = 0
    for case in document.covering():
        document.judge(case)
        count += 1
    assert count > 500


@pytest.mark.timeout(1_800 if NIGHTLY else 240)
def test_random_requests(
    document: OpenApi, service: Fuzzed, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """A thousand random requests, ten thousand at night: no 5xx, no traceback, nothing written that was not told."""
    before = service.witness.flips
    already = sum(isinstance(entry, Kill | Revive) for entry in service.exported())
    with capsys.disabled():
        request.config.get_terminal_writer().line(f" {REQUESTS} random requests, HALTLINE_FUZZ_SEED={SEED}")
    done = document.fuzz(REQUESTS)
    assert sum(done.values()) == REQUESTS
    assert set(done) == {each.label for each in document.operations}
    assert min(done.values()) > 0
    flips = [entry for entry in service.exported() if isinstance(entry, Kill | Revive)]
    assert len(flips) - already == service.witness.flips - before
    assert {type(entry) for entry in flips} == {Kill, Revive}
