"""PostgreSQL whose processes are stopped: every call ends in time, leases lapse, and soon after it all is well."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, Final

import psutil
import pytest

from app.config import Config
from app.factory import create_node
from app.service.node import Node
from app.service.published import Published
from app.service.refresher import Unready
from app.service.store import LogQuery, OutcomeUnknown, Store, StoredToken, StoreUnavailable
from app.storage.postgres import PostgresDatabase
from app.storage.postgres_pools import Pools
from haltline.flips import Position
from haltline.scopes import parse_target
from tests.support.counts import NIGHTLY
from tests.support.hasty import BOUND, killing, kills, within
from tests.support.orders import AT, committed, kill_order, revive_order
from tests.support.places import Place
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.timeout(300 if NIGHTLY else 60)

ROUNDS: Final = 20 if NIGHTLY else 2
RECOVERY_S: Final = 2.0
BUSY_S: Final = 1.0
"""What a busy machine adds."""


def _calls(store: Store) -> dict[str, Callable[[], object]]:
    """Return every operation of the port that a request or the refresher waits for."""
    flag = store.flag(parse_target("run:r-42"))[1]
    ids = itertools.count(1)

    def token() -> StoredToken:
        return StoredToken(f"{next(ids):012}", "0" * 64, "ann", "worker", None, AT, 2e9)

    return {
        "head": store.head,
        "refresh": lambda: store.refresh(Position(), limit=10),
        "kill": lambda: store.kill(kill_order()),
        "revive": lambda: store.revive(revive_order(flag, 1)),
        "settings": store.settings,
        "set_ttl": lambda: store.set_ttl(700, actor="ann", at=AT, wall=time.time),
        "flag": lambda: store.flag(flag.target),
        "flags": lambda: store.flags(after=None, limit=10),
        "log": lambda: store.log(LogQuery()),
        "entry": lambda: store.entry(1),
        "export": lambda: store.export(after=0, up_to=1, limit=1),
        "add_token": lambda: store.add_token(token(), actor="ann"),
        "revoke_token": lambda: store.revoke_token("0" * 12, actor="ann", at=AT),
        "token": lambda: store.token("0" * 12),
        "tokens": lambda: store.tokens(after=None, limit=10),
    }


def _timed(calls: dict[str, Callable[[], object]]) -> dict[str, tuple[Any, float]]:
    """Make every call at once; return what each came to and how long it took."""
    outcomes: dict[str, tuple[Any, float]] = {}

    def make(name: str, call: Callable[[], object]) -> None:
        began = time.monotonic()
        result: object
        try:
            result = call()
        except (StoreUnavailable, OutcomeUnknown) as error:
            result = error
        outcomes[name] = (result, time.monotonic() - began)

    threads = [threading.Thread(target=make, args=item) for item in calls.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def _until(good: Callable[[], bool], *, within_s: float) -> float:
    """Wait until something is so; return how long it took."""
    began = time.monotonic()
    while not good():
        assert time.monotonic() - began < within_s
        time.sleep(0.01)
    return time.monotonic() - began


def _backends(server: PostgresServer, database: str) -> int:
    with server.connect() as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND application_name = 'haltline'", [database]
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_every_call_ends_in_time_and_nothing_leaks(
    hasty_store: Store, postgres_server: PostgresServer, postgres_database: str
) -> None:
    """Frozen again and again: each call fails by its deadline, all work after the thaw, and nothing is left behind."""
    calls = _calls(hasty_store)
    _timed(calls)
    pools = Pools()
    most = pools.flips + pools.reads + pools.bulk + pools.refresh
    threads, descriptors = threading.active_count(), psutil.Process().num_fds()
    for number in range(ROUNDS):
        with postgres_server.frozen():
            # Twice: with the connections of before, which are then given up, and with those that have to be made.
            for _ in range(2):
                for name, (result, took) in _timed(calls).items():
                    assert isinstance(result, StoreUnavailable | OutcomeUnknown), (number, name, result)
                    assert took < BOUND, (number, name)

        def well() -> bool:
            return not any(isinstance(result, Exception) for result, _ in _timed(calls).values())

        _until(well, within_s=RECOVERY_S + BUSY_S)
        assert _backends(postgres_server, postgres_database) <= most + 1
        assert threading.active_count() == threads
        assert psutil.Process().num_fds() <= descriptors + most
    # Sessions that were given up while the server could not notice end when it can.
    _until(lambda: _backends(postgres_server, postgres_database) <= most, within_s=10)


def test_a_call_that_is_not_made_takes_no_place(hasty_store: Store, postgres_server: PostgresServer) -> None:
    """After a freeze as many flips and reads run at the same time as before: no place in a pool was lost."""
    with postgres_server.frozen():
        _timed({str(number): hasty_store.head for number in range(8)})
    flips = {f"kill-{number}": lambda: hasty_store.kill(kill_order()) for number in range(Pools().flips)}
    reads = {f"read-{number}": hasty_store.head for number in range(Pools().reads)}
    for _ in range(2):
        for name, (result, _) in _timed({**flips, **reads}).items():
            assert not isinstance(result, Exception), name


def test_a_server_that_freezes_during_the_commit_is_unknown(
    hasty_database: PostgresDatabase, postgres_server: PostgresServer, postgres_place: Place
) -> None:
    """COMMIT was sent and nothing came back in time: unknown, and the repeat by flip_id makes one entry."""
    order = kill_order()
    with contextlib.ExitStack() as thawing:
        freeze = killing(order, lambda _: thawing.enter_context(postgres_server.frozen()))
        with within(BOUND), pytest.raises(OutcomeUnknown):
            hasty_database.write(freeze)
    committed(hasty_database.write(killing(order, lambda _: None)))
    assert kills(postgres_place) == 1


@pytest.fixture
def node(postgres_place: Place) -> Iterator[Node]:
    """A node on PostgreSQL, reading."""
    with closing(create_node(Config(database_url=postgres_place.url, log_level="error"))) as running:
        running.start()
        _until(lambda: running.refresher.published is not None, within_s=10)
        yield running


def _read(node: Node) -> Published | Unready:
    return node.refresher.read_after(node.clocks.raw_us_ceil())


@pytest.mark.parametrize("for_s", [1.2, 2.6], ids=["its-connections-live", "its-connections-are-given-up"])
def test_a_node_of_a_frozen_server_grants_nothing(node: Node, postgres_server: PostgresServer, for_s: float) -> None:
    """Within half a ttl of the freeze no lease can be granted; two seconds after the thaw they are again."""
    for _ in range(ROUNDS if for_s < 2 else 1):
        assert isinstance(_read(node), Published)
        with postgres_server.frozen():
            began = time.monotonic()
            with within(0.5 + BUSY_S):
                assert _read(node) is Unready.STALE
            last = node.refresher.published
            assert last is not None
            while time.monotonic() - began < for_s:
                time.sleep(0.05)
                assert node.refresher.published is last
            assert not last.fresh(node.clocks.raw_us_ceil())
        took = _until(lambda: isinstance(_read(node), Published), within_s=RECOVERY_S + BUSY_S)
        assert took < RECOVERY_S + BUSY_S
        assert node.refresher.running
