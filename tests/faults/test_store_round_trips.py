"""PostgreSQL far away: what has to be quick takes one round trip, and a flip no more than four."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Final

import pytest
from sqlalchemy import Connection, make_url

from app.cli.preparing import prepare
from app.config import Config
from app.domain.lanes import Lane
from app.factory import create_node
from app.service.node import Node
from app.service.published import TAIL_LENGTH
from app.service.store import Store, StoreUnavailable
from app.storage import open_store
from app.storage.postgres import PostgresDatabase
from app.storage.postgres_pools import LANES
from app.storage.sql_store import SqlStore
from bench.long_log import TARGETS, copy
from haltline.flips import Position
from tests.support.orders import AT, committed, kill_order, revive_order
from tests.support.places import EPOCH, NAMESPACE, Place
from tests.support.postgres import SERVICE, PostgresServer
from tests.support.wire import Wire

pytestmark = pytest.mark.timeout(60)

AWAY_S: Final = 0.15


@pytest.fixture
def wire(postgres_server: PostgresServer) -> Iterator[Wire]:
    """A wire that counts."""
    with Wire(postgres_server.folder / "socket") as counting:
        yield counting


@pytest.fixture
def far(wire: Wire, postgres_database: str) -> Iterator[Store]:
    """A store at the other end of that wire, its log begun, every connection made and every statement prepared."""
    url = wire.url(postgres_database, user=SERVICE)
    with closing(Place(url, url).opened()) as store:
        for number in range(8):  # psycopg prepares what it has sent five times, which is one more round trip
            _warm(store, number)
        yield store


def _warm(store: Store, number: int) -> None:
    # A busy machine may pause this process for longer than a flip may stand still: then it is not done, and repeated.
    for _ in range(3):
        with contextlib.suppress(StoreUnavailable):
            flag = committed(store.kill(kill_order(f"run:warm-{number}"))).flag
            committed(store.revive(revive_order(flag)))
            break
    store.refresh(Position(), limit=100)
    store.head()
    store.token("a" * 12)
    store.entry(1)
    store.export(after=0, up_to=1, limit=1)


def _counted(wire: Wire, call: Callable[[], object]) -> int:
    before = wire.round_trips
    call()
    return wire.round_trips - before


def test_a_refresh_is_one_round_trip(far: Store, wire: Wire) -> None:
    """Head and entries come in one statement, without BEGIN, ROLLBACK or a ping: with nothing new, and with news."""
    head = far.head().position
    assert _counted(wire, lambda: far.refresh(head, limit=10)) == 1
    row = committed(far.kill(kill_order())).row
    assert _counted(wire, lambda: far.refresh(head, limit=10)) == 1
    page = far.refresh(head, limit=10)
    assert (list(page.rows), page.last, page.head.position) == ([row], True, row.position)


def test_a_look_up_is_one_round_trip(far: Store, wire: Wire) -> None:
    """So is what a request asks for before it is let in: its token; and an entry, a page of an export, the head."""
    assert _counted(wire, lambda: far.token("a" * 12)) == 1
    assert _counted(wire, lambda: far.entry(2)) == 1
    assert _counted(wire, lambda: far.export(after=0, up_to=1, limit=1)) == 1
    assert _counted(wire, far.settings) == 1


def test_a_flip_is_four_round_trips(far: Store, wire: Wire) -> None:
    """The lock, one read, the writes in one go, the commit: the first kill of a target, a further one, a revive."""
    assert _counted(wire, lambda: committed(far.kill(kill_order("run:new")))) == 4
    for number in range(8):
        committed(far.kill(kill_order("run:again", flip_id=f"f-again-{number}")))
    assert _counted(wire, lambda: committed(far.kill(kill_order("run:again")))) == 4
    flag = committed(far.kill(kill_order("run:back"))).flag
    assert _counted(wire, lambda: committed(far.revive(revive_order(flag)))) == 4


def test_reads_of_several_statements_stay_prepared(far: Store, wire: Wire) -> None:
    """A read that needs a transaction costs its statements, one to begin and one to end; it has nothing forgotten."""
    assert _counted(wire, lambda: far.flags(after=None, limit=10)) == 4
    for _ in range(8):
        far.flags(after=None, limit=10)
    assert _counted(wire, lambda: far.flags(after=None, limit=10)) == 4


@pytest.mark.parametrize(("lane", "prepared"), [(Lane.CONTROL, 6), (Lane.WORKER, 5)])
def test_a_start_is_few_round_trips(wire: Wire, postgres_database: str, lane: Lane, prepared: int) -> None:
    """A lane checks server and log in five, then its clock; a control lane looks for its token; it loads in seven."""
    config = Config(database_url=wire.url(postgres_database, user=SERVICE), lane=lane)
    assert prepare(replace(config, lane=Lane.CONTROL)) == 0  # the very first start, which writes
    connected = wire.connections
    assert _counted(wire, lambda: prepare(config)) == prepared
    assert wire.connections - connected == 1
    nodes: list[Node] = []
    try:
        assert _counted(wire, lambda: nodes.append(create_node(config))) == 6
        assert _counted(wire, nodes[0].refresher.refresh) == 7
        assert wire.connections - connected == 3
        published = nodes[0].refresher.published
        assert published is not None
        assert published.replica.position.seq == published.tail.length == 2
        assert _counted(wire, nodes[0].refresher.refresh) == 1
    finally:
        for node in nodes:
            node.close()


def test_a_long_log_is_loaded_in_big_pages(wire: Wire, postgres_server: PostgresServer, postgres_database: str) -> None:
    """Forty thousand flips take two round trips more than none, and the newest ten thousand entries one."""
    end = copy(postgres_server.url(postgres_database), 40_001)
    with closing(open_store(wire.url(postgres_database, user=SERVICE))) as store:
        store.load(remember_since=AT)  # its connection is made
        loaded = None

        def load() -> None:
            nonlocal loaded
            loaded = store.load(remember_since="2020-01-01T00:00:00.000000Z", newest=TAIL_LENGTH)

        assert _counted(wire, load) == 9
    assert loaded is not None
    assert loaded.head.position == loaded.replica.position == loaded.newest[-1].position == end
    assert [row.position.seq for row in loaded.newest] == list(range(30_002, 40_002))
    assert len(loaded.replica.marks) == TARGETS


def test_a_first_load_takes_no_connection_for_exports(postgres_place: Place) -> None:
    """Whoever holds every connection for exports, in the middle of a page, does not keep a node from its first read."""
    postgres_place.opened().close()
    pools = LANES[Lane.CONTROL]
    database = PostgresDatabase(make_url(postgres_place.url), timeout=1.0, pools=pools)
    config = Config(database_url=postgres_place.url, lane=Lane.CONTROL)
    node = create_node(config, store=SqlStore(database, max_active_holds=10))
    reached, over = threading.Barrier(pools.bulk + 1), threading.Event()

    def export(_: Connection) -> bool:
        reached.wait(10)
        return over.wait(10)

    with ThreadPoolExecutor(pools.bulk) as exports:
        exporting = [exports.submit(database.glance, export, use="bulk") for _ in range(pools.bulk)]
        try:
            reached.wait(10)
            node.refresher.refresh()
            assert node.refresher.published is not None
        finally:
            over.set()
        assert all(each.result(10) for each in exporting)
    node.close()


def test_a_primary_150_ms_away(postgres_server: PostgresServer, postgres_database: str) -> None:
    """A node that far from its primary still reads several times within half a ttl of 1 s."""
    Place(url := postgres_server.url(postgres_database), url).opened().close()
    with Wire(postgres_server.folder / "socket", away_s=AWAY_S) as slow:
        url = slow.url(postgres_database, user=SERVICE)
        with closing(Place(url, url).open()) as store:
            store.open_log(namespace=NAMESPACE, ttl_ms=1_000, at=AT, epoch=EPOCH)
            head = store.refresh(Position(), limit=10).head.position
            began = time.monotonic()
            for _ in range(3):
                store.refresh(head, limit=10)
            assert (time.monotonic() - began) / 3 < 2 * AWAY_S


def test_lanes_have_no_more_connections_than_they_are_given(
    postgres_server: PostgresServer, postgres_database: str, postgres_place: Place
) -> None:
    """Whatever a worker lane does, it holds one connection to refresh and at most four to read."""
    postgres_place.opened().close()
    with closing(postgres_place.open(lane=Lane.WORKER)) as store:
        store.open_log(namespace=NAMESPACE, ttl_ms=1_000, at=AT, epoch=EPOCH)
        store.refresh(Position(), limit=10)
        for _ in range(3):
            store.token("a" * 12)
            store.export(after=0, up_to=1, limit=1)
            store.flags(after=None, limit=10)
        with postgres_server.connect() as connection:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND application_name = 'haltline'",
                [postgres_database],
            ).fetchone()
    assert row is not None
    assert row[0] == 2
    assert (LANES[Lane.WORKER].reads, LANES[Lane.WORKER].refresh, LANES[Lane.CONTROL].flips) == (4, 1, 4)


def test_a_log_is_opened_without_its_lock(postgres_place: Place, postgres_database: str) -> None:
    """A node starts while a flip holds the log lock, or hangs in it."""
    assert postgres_database
    with closing(postgres_place.opened()) as holding, closing(postgres_place.open(timeout=0.6)) as starting:
        began = time.monotonic()
        head = holding.set_ttl(
            700,
            actor="ann",
            at=AT,
            # Called under the lock.
            wall=lambda: starting.open_log(namespace=NAMESPACE, ttl_ms=1, at=AT, epoch=EPOCH).position.seq + began,
        )
    assert head[0] is not None
