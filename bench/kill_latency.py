"""A kill at the end of a log of a million entries, and beside 100,000 active kills, against one on a short log."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

from app.storage.migrate import upgrade
from bench.command import alone
from bench.commit import killing
from bench.figure import Bound, Effort, Figure, skipped
from bench.layouts import NoPostgres, postgres
from bench.long_log import copy, write
from bench.measure import compare, shown
from bench.service import folder
from tests.support.postgres import PostgresServer

NAME: Final = "kill_latency"
ROUNDS: Final = 200
SHORT: Final = 10
HOLDS: Final = 99_000
"""Active kills: as many as leave room below the 100,000 that a service takes."""

BOUND: Final = Bound(must=1.5, goal=1.2)

Make: TypeAlias = Callable[[str, int, bool], str]
"""Makes a database of some name with a log of some length, revived or not, and returns its address."""


def measure(effort: Effort) -> Iterator[Figure]:
    """Measure on SQLite and on PostgreSQL, each in pairs with a short log."""
    with folder() as place:
        yield from _on("SQLite", partial(sqlite, place), effort)
    try:
        with postgres() as server:
            yield from _on("PostgreSQL", partial(postgresql, server), effort)
    except NoPostgres as why:
        yield skipped(NAME, "a kill on a long log, PostgreSQL", str(why))


def sqlite(place: Path, name: str, entries: int, revived: bool) -> str:  # noqa: FBT001 - see Make
    """Make a database in a file."""
    path = place / f"{name}.db"
    write(path, entries, revived=revived)
    return f"sqlite:///{path}"


def postgresql(server: PostgresServer, name: str, entries: int, revived: bool) -> str:  # noqa: FBT001 - see Make
    """Make a database on a server."""
    url = server.url(server.make_database(name))
    upgrade(url)
    copy(url, entries, revived=revived)
    return url


def _on(title: str, make: Make, effort: Effort) -> Iterator[Figure]:
    holds = min(HOLDS, effort.entries)
    others = {
        f"a kill through the store, the log {effort.entries:,} entries long, {title}": ("long", effort.entries, True),
        f"… {holds:,} kills active, {title}": ("many", holds, False),
    }
    short_url = make("short", SHORT, True)  # noqa: FBT003 - see Make
    for what, (name, entries, revived) in others.items():
        url = make(name, entries, revived)
        with ExitStack() as stack:
            short = stack.enter_context(killing(short_url, prefix=f"beside-{name}"))
            other = stack.enter_context(killing(url, prefix="k"))
            result = compare(short, other, rounds=effort.of(ROUNDS), loops=1)
        yield BOUND.figure(
            NAME,
            what,
            value=result.ratio,
            measured=f"{result.ratio:.2f}x ({result.low:.2f} to {result.high:.2f}), {shown(result.taken_s)}",
            floor=f"a short log {shown(result.base_s)}",
        )


if __name__ == "__main__":
    sys.exit(alone(measure))
