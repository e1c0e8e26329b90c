"""Exports and event streams read old entries over connections of their own: none that a kill or a lease needs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import make_url

from app.domain.lanes import Lane
from app.storage.postgres import PostgresDatabase
from app.storage.postgres_pools import LANES
from app.storage.sql_store import SqlStore
from tests.api.desk import Desk, members, open_desk, problem
from tests.api.reader import Reader
from tests.support.places import Place

TIMEOUT: Final = 1.0
BULK: Final = LANES[Lane.ALL].bulk


@pytest.fixture
def database(postgres_place: Place) -> PostgresDatabase:
    """Return a database with the pools of a node that serves both lanes."""
    return PostgresDatabase(make_url(postgres_place.url), timeout=TIMEOUT, pools=LANES[Lane.ALL])


@pytest.fixture
def desk(tmp_path: Path, database: PostgresDatabase) -> Iterator[Desk]:
    """Yield a service over it."""
    made = open_desk(tmp_path, store=SqlStore(database, max_active_holds=1_000), url="postgresql://unused")
    assert made.node.refresher.wait_beyond(0, 10.0) is not None  # its start reads old entries, once
    yield made
    made.close()


@contextmanager
def taken(database: PostgresDatabase) -> Iterator[None]:
    """Hold every connection for bulk reads, as that many exports do whose pages never come."""
    holding, ended = threading.Barrier(BULK + 1), threading.Event()

    def hold() -> None:
        def work(_: object) -> None:
            holding.wait(10)
            ended.wait(30)

        database.glance(work, use="bulk")

    with ThreadPoolExecutor(BULK) as pool:
        held = [pool.submit(hold) for _ in range(BULK)]
        try:
            holding.wait(10)
            yield
        finally:
            ended.set()
        for each in held:
            each.result(10)


def test_exports_that_stand_still_hold_up_nobody_else(desk: Desk, database: PostgresDatabase) -> None:
    """While no bulk read gets through, kills, flags, leases and the news of a stream do; an export is told 503."""
    with Reader(desk, who="operator") as reader, taken(database):
        began = time.monotonic()
        problem(desk.call("GET", "/v1/log/export", who="operator"), "store_unavailable")
        assert time.monotonic() - began >= TIMEOUT / 2 * 0.9  # it waited for a connection of that kind
        seqs = []
        for number in range(10):
            seqs.append(members(desk.kill(f"run:r-{number}", who="operator"))["seq"])
            told = desk.call("GET", "/v1/flags", who="observer")
            assert told.status_code == 200, told.get_data()
            assert members(told)["seq"] == members(desk.lease())["seq"] == seqs[-1]
        assert [entry["seq"] for entry in reader.entries(10)] == seqs
    with desk.call("GET", "/v1/log/export", who="operator") as response:
        assert [json.loads(line)["seq"] for line in response.get_data().splitlines()] == list(range(1, seqs[-1] + 1))


def test_kills_go_through_while_every_place_is_taken(desk: Desk, postgres_place: Place) -> None:
    """With 60 streams open and exports without a pause, no kill and no look at a flag fails, on 15 connections."""
    ended = threading.Event()

    def exporting() -> int:
        count = 0
        while not ended.is_set():
            with desk.call("GET", "/v1/log/export", who="operator") as response:
                assert response.status_code == 200, response.get_data()
                lines = response.get_data().splitlines()
            assert [json.loads(line)["seq"] for line in lines] == list(range(1, len(lines) + 1))
            count += 1
        return count

    readers = [Reader(desk, who="operator") for _ in range(60)]
    try:
        with ThreadPoolExecutor(4) as pool:
            exports = [pool.submit(exporting) for _ in range(4)]
            try:
                for number in range(50):
                    assert desk.kill(f"run:r-{number}", who="operator").status_code == 201
                    assert desk.call("GET", "/v1/flags", who="operator").status_code == 200
                (row,) = postgres_place.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'haltline' AND datname ="
                    " current_database()"
                )
            finally:
                ended.set()
            assert all(each.result(20) > 0 for each in exports)
        pools = LANES[Lane.ALL]
        assert row[0] <= pools.flips + pools.reads + pools.bulk + pools.refresh == 15
        for reader in readers:
            assert len(reader.entries(50)) == 50
    finally:
        for reader in readers:
            reader.reply.close()
