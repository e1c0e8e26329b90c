"""The first admin token: one for a log, however many control lanes begin it together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.server import TOKEN, Server
from tests.support.counts import NIGHTLY
from tests.support.postgres import SERVICE, PostgresServer

ROUNDS: Final = 20 if NIGHTLY else 5
LANES: Final = 2

pytestmark = pytest.mark.timeout(600 if NIGHTLY else 180)


@contextmanager
def begun_together(folder: Path, database_url: str) -> Iterator[list[Server]]:
    """Start control lanes at once on an empty database, and end them."""
    lanes = []
    for number in range(LANES):
        (folder / str(number)).mkdir(parents=True)
        lanes.append(Server(folder / str(number), {"HALTLINE_DATABASE_URL": database_url}, ("--lane", "control")))
    with ExitStack() as ending, ThreadPoolExecutor(LANES) as starting:
        begun = [starting.submit(lane.start) for lane in lanes]
        for lane, started in zip(lanes, begun, strict=True):
            started.exception()  # waited for; raised below, once every lane can be ended
            ending.callback(lane.end)
        for started in begun:
            started.result()
        yield lanes


def test_lanes_that_begin_together_print_one_token(
    tmp_path: Path, postgres_server: PostgresServer, postgres_template: str
) -> None:
    """One of two control lanes prints the admin token, which works at both; the other says where it was printed."""
    for number in range(ROUNDS):
        database = postgres_server.create_database(template=postgres_template)
        with begun_together(tmp_path / str(number), postgres_server.url(database, user=SERVICE)) as lanes:
            printed = [TOKEN.findall(lane.out) for lane in lanes]
            assert sorted(map(len, printed)) == [0, 1], f"round {number}: {[lane.out for lane in lanes]}"
            winner, loser = lanes if printed[0] else reversed(lanes)
            loser.token = winner.token
            for lane in lanes:
                assert lane.call("GET", "/v1/flags").status == 200
            tokens = winner.call("GET", "/v1/tokens").members["tokens"]
            assert [each["role"] for each in tokens] == ["admin"]
            assert re.search(rf"printed by\n.*: \S+, 127\.0\.0\.1:{winner.port}\. See", loser.out), loser.out
            assert tokens[0]["token_id"] in loser.out
        postgres_server.drop_database(database)
