"""Stamp keys of real nodes on one database: all give out the same, and a new one each day, whoever makes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from haltline.keys import StampKey, parse_keys
from tests.e2e.server import Server
from tests.support.fleet import Fleet, eventually
from tests.support.places import Place
from tests.support.postgres import SERVICE, PostgresServer


@dataclass(frozen=True)
class Setting:
    """A fleet, its database as the owner sees it, and a worker's token."""

    fleet: Fleet
    place: Place
    token: str

    def first(self, node: Server, *, stream: bool = False) -> tuple[StampKey, ...]:
        """Return the keys that a worker is given at a node."""
        asked: dict[str, Any] = {"nonce": "0123456789abcdef", "worker": "w", "instance": "i", "stream": stream}
        connection = node.connect()
        try:
            body = json.dumps({**asked, "epoch": None, "seq": 0, "hash": None})
            headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
            connection.request("POST", "/v1/lease", body, headers)
            response = connection.getresponse()
            assert response.status == 200
            line = response.readline() if stream else response.read()
            return parse_keys(json.loads(line)["stamp_keys"])
        finally:
            connection.close()

    def age(self, seconds: int) -> None:
        """Have every secret be that much older."""
        self.place.execute(f"UPDATE stamp_secrets SET made_at = made_at - {seconds:d}")  # noqa: S608 - a number

    def secrets(self) -> list[str]:
        """Return the ids of the secrets, the newest first."""
        return [row[0] for row in self.place.execute("SELECT id FROM stamp_secrets ORDER BY number DESC")]


@pytest.fixture(scope="module")
def setting(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer, postgres_template: str
) -> Iterator[Setting]:
    """Yield a fleet on a fresh database, which the tests of this file share."""
    database = postgres_server.create_database(template=postgres_template)
    place = Place(postgres_server.url(database, user=SERVICE), postgres_server.url(database))
    with Fleet(tmp_path_factory.mktemp("fleet"), place.url, together=(2, 2)) as running:
        yield Setting(running, place, running.worker_token)
    postgres_server.drop_database(database)


def test_nodes_give_out_one_set_of_keys(setting: Setting) -> None:
    """From the newest secret on, the first of which the log began with; one rotation is all nodes', within seconds."""
    one, other = setting.fleet.workers
    begun = setting.secrets()
    assert len(begun) == 1
    before = setting.first(one)
    assert [key.id for key in before] == begun
    assert setting.first(other) == setting.first(one, stream=True) == before
    setting.age(86_400)

    def rotated() -> bool:
        return len(setting.first(one)) == len(setting.first(other, stream=True)) == 2

    assert eventually(rotated, 30)
    after = setting.first(one)
    assert setting.first(other) == after
    assert [key.id for key in after] == setting.secrets()
    assert (after[1].id, after[1].key) == (before[0].id, before[0].key)
    said = "".join(server.err + server.out for server in (*setting.fleet.workers, *setting.fleet.control))
    assert said.count("stamp_secret_made") == 1
    for key in after:
        assert key.key.hex() not in said
    kinds = {json.loads(line)["event"] for line in said.splitlines() if line.startswith("{")}
    assert "chore_failed" not in kinds
    assert "stamp_keys_unreadable" not in kinds


def test_an_emptied_table_is_a_new_beginning(setting: Setting) -> None:
    """What an owner does who wants all stamps void: a new key within seconds, and none of before."""
    one, other = setting.fleet.workers
    before = {key.key for key in setting.first(one)}
    assert {key.key for key in setting.first(other)} == before
    setting.place.execute("DELETE FROM stamp_secrets")

    def anew() -> bool:
        found = setting.first(one)
        return not before & {key.key for key in found} and found == setting.first(other)

    assert eventually(anew, 30)
    (key,) = setting.first(one)
    assert setting.secrets() == [key.id]
