"""A durable flip against an fdatasync of the same size on the same file system."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from app.service.store import Committed, KillOrder
from app.storage import open_store
from app.storage.migrate import upgrade
from bench.agent import AT, EPOCH, NAMESPACE
from bench.command import alone
from bench.figure import Bound, Effort, Figure, noted, skipped
from bench.layouts import NoPostgres, postgres
from bench.measure import Contender, calls, compare, shown
from bench.service import folder, service, token
from haltline.scopes import parse_target
from tests.support.ports import LOOPBACK

NAME: Final = "commit"
BOUND: Final = Bound(must=10, goal=3, unit="x fdatasync")
ROUNDS: Final = 200
SIZE: Final = 512
"""About the size of an entry, bytes."""


def measure(effort: Effort) -> Iterator[Figure]:
    """Measure kills through the store and through the HTTP API, on SQLite and on PostgreSQL."""
    rounds = effort.of(ROUNDS)
    with folder() as place:
        yield from _on("SQLite", f"sqlite:///{place / 'haltline.db'}", place, rounds)
    try:
        with postgres() as server:
            url = server.url(server.create_database())
            upgrade(url)
            yield from _on("PostgreSQL", url, server.folder, rounds)
    except NoPostgres as why:
        yield skipped(NAME, "a kill on PostgreSQL", str(why))


def _on(title: str, url: str, place: Path, rounds: int) -> Iterator[Figure]:
    with synced(place) as sync:
        with killing(url) as kill:
            result = compare(sync, kill, rounds=rounds, loops=1)
        yield BOUND.figure(
            NAME,
            f"a kill through the store, durable, {title}",
            value=result.ratio,
            measured=f"{result.ratio:.1f}x ({result.low:.1f} to {result.high:.1f}), {shown(result.taken_s)}",
            floor=f"write and fdatasync of {SIZE} bytes {shown(result.base_s)}",
        )
        operator = token(url, "operator")
        with service(url) as running, posting(running.port, operator) as post:
            result = compare(sync, post, rounds=rounds, loops=1)
        yield noted(
            NAME,
            f"… through `POST /v1/kills`, {title}",
            measured=f"{result.ratio:.1f}x ({result.low:.1f} to {result.high:.1f}), {shown(result.taken_s)}",
            floor=f"write and fdatasync {shown(result.base_s)}",
        )


@contextmanager
def synced(place: Path) -> Iterator[Contender]:
    """Lend a contender that appends to a file and waits for the disk."""
    data = b"x" * SIZE
    path = place / "floor"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def sync() -> None:
        os.write(descriptor, data)
        os.fdatasync(descriptor)

    try:
        yield calls(sync)
    finally:
        os.close(descriptor)
        path.unlink()


@contextmanager
def killing(url: str, *, prefix: str = "r") -> Iterator[Contender]:
    """Lend a contender that kills one more run through the store.

    Args:
        url: the database.
        prefix: what the ids of the runs begin with.
    """
    store = open_store(url)
    try:
        store.open_log(namespace=NAMESPACE, ttl_ms=1_000, at=AT, epoch=EPOCH)
        number = itertools.count(1)

        def kill() -> None:
            target = parse_target(f"run:{prefix}-{next(number)}")
            result = store.kill(KillOrder(target, "it sends the same mail twice", "alice", flip_id(), AT))
            if not isinstance(result, Committed):
                raise TypeError(f"not committed: {result}")

        yield calls(kill)
    finally:
        store.close()


@contextmanager
def posting(port: int, secret: str) -> Iterator[Contender]:
    """Lend a contender that kills one more run through the API, on one connection that is kept open."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=10)
    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
    number = itertools.count(1)

    def post() -> None:
        order = {"target": f"run:h-{next(number)}", "reason": "it sends the same mail twice", "flip_id": flip_id()}
        connection.request("POST", "/v1/kills", body=json.dumps(order), headers=headers)
        reply = connection.getresponse()
        told = reply.read()
        if reply.status != 201:
            raise RuntimeError(f"{reply.status}: {told!r:.200}")

    try:
        yield calls(post)
    finally:
        connection.close()


def flip_id() -> str:
    """Return a flip_id that was never used."""
    return f"f-{uuid.uuid4().hex}"


if __name__ == "__main__":
    sys.exit(alone(measure))
