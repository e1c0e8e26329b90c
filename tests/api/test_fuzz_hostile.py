"""Every hostile request of the tables, in process: its exact status, a problem, and not one entry in the log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import pytest

from tests.api.hostile import Hostile
from tests.api.hostile_bodies import bad_bodies, bad_hosts, bad_methods, bad_tokens, bad_types
from tests.api.hostile_fields import bad_fields, bad_ids
from tests.api.hostile_paths import bad_paths
from tests.support.fuzz_service import Fuzzed, fuzzed
from tests.support.fuzz_witness import Answer

TABLES: Final[dict[str, Callable[[], Iterator[Hostile]]]] = {
    "ids": bad_ids,
    "fields": bad_fields,
    "paths": bad_paths,
    "bodies": bad_bodies,
    "types": bad_types,
    "tokens": bad_tokens,
    "methods": bad_methods,
    "hosts": bad_hosts,
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    """Yield a service for the tests of this file."""
    with fuzzed(tmp_path_factory.mktemp("hostile")) as running:
        yield running


def send(service: Fuzzed, each: Hostile) -> Answer:
    """Send one hostile request; its witness fails on a leak, a fault, or an entry that nobody was told of."""
    admin = service.tokens["admin"]
    headers = [(name, value.replace("{admin}", admin)) for name, value in each.headers]
    if each.who is not None:
        headers.append(("Authorization", f"Bearer {service.tokens[each.who]}"))
    path = each.path.replace("{admin}", admin)
    return service.ask(each.method, path, body=each.body, headers=tuple(headers))


def wrong(each: Hostile, answer: Answer, *, status: int) -> str | None:
    """Return what is wrong with an answer; None if it is what the table says."""
    if answer.status != status:
        return f"{each.name}: {answer.status} instead of {status}: {answer.body[:300]!r}"
    if each.code is not None and answer.method != "HEAD" and answer.members.get("code") != each.code:
        return f"{each.name}: {answer.members.get('code')} instead of {each.code}"
    told = f"{answer.headers}{answer.body!r}"
    if "evil.example" in told or "X-Injected" in answer.headers or "Set-Cookie" in answer.headers:
        return f"{each.name}: it comes back in the reply"
    return None


@pytest.mark.timeout(180)
@pytest.mark.parametrize("table", TABLES)
def test_hostile_requests(service: Fuzzed, table: str) -> None:
    """Whatever is sent, the answer is the one that the table says, and the log is as it was."""
    head = service.head
    found = []
    for each in TABLES[table]():
        try:
            found.append(wrong(each, send(service, each), status=each.status))
        except AssertionError as error:
            found.append(f"{each.name}: {error}")
    assert "\n".join(each for each in found if each is not None) == ""
    assert service.head == head
    assert len(found) > 40


def test_there_are_enough_of_them() -> None:
    """The tables hold more requests than a person would write by hand, each named once."""
    names = [f"{table} {each.method} {each.name}" for table, make in TABLES.items() for each in make()]
    assert len(names) > 2_500
    assert sorted({name for name in names if names.count(name) > 1}) == []
