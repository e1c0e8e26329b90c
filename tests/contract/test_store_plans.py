"""How the database finds what a kill and a refresh need: by index, so that neither slows down as log and holds grow."""

from __future__ import annotations

import re
from contextlib import closing
from typing import Any, Final

import pytest
from sqlalchemy import ClauseElement, make_url
from sqlalchemy.dialects import postgresql, sqlite

from app.storage import flipping, rows
from app.storage.database import Done
from app.storage.postgres import PostgresDatabase
from tests.support.orders import committed, kill_order, revive_order
from tests.support.places import Place

READ: Final[dict[str, ClauseElement]] = {"a flip": rows.BEFORE, "a refresh": rows.HEAD_AND_NEXT}
WRITTEN: Final[dict[str, ClauseElement]] = {
    "a first kill": flipping.KILL_FIRST.whole,
    "another kill": flipping.KILL_AGAIN.whole,
    "a revive": flipping.REVIVE.whole,
}
WHOLE: Final = re.compile(r"(?:SCAN|Seq Scan on) (?:log|holds|targets)\b(?! USING)")
"""What a plan says that reads one of the large tables from its beginning to its end."""


def _sql(statement: ClauseElement, dialect: Any) -> str:
    return str(statement.compile(dialect=dialect)).replace("(__[POSTCOMPILE_released])", "(1, 2)")


def _plan(place: Place, statement: ClauseElement) -> str:
    if place.sqlite:
        text = _sql(statement, sqlite.dialect(paramstyle="qmark")).replace("?", "NULL")
        return "\n".join(row[3] for row in place.execute(f"EXPLAIN QUERY PLAN {text}"))
    text = _sql(statement, postgresql.dialect(paramstyle="numeric_dollar"))  # type: ignore[no-untyped-call]
    # As the session of a flip has it: see the last test.
    rows = place.execute("SET enable_seqscan = off", f"EXPLAIN (GENERIC_PLAN) {text}")
    return "\n".join(row[0] for row in rows)


@pytest.mark.parametrize("what", READ)
def test_what_is_read_is_found_by_index(place: Place, what: str) -> None:
    """The head, a flip_id, a target, its holds, the entries after a position: no table is read in whole."""
    with closing(place.opened()) as store:
        flag = committed(store.kill(kill_order())).flag
        committed(store.revive(revive_order(flag)))
    plan = _plan(place, READ[what])
    assert "log" in plan
    assert WHOLE.search(plan) is None, plan


@pytest.mark.parametrize("what", WRITTEN)
def test_what_is_written_is_found_by_index(postgres_place: Place, what: str) -> None:
    """So are the rows that a kill or a revive changes."""
    plan = _plan(postgres_place, WRITTEN[what])
    assert "Insert on log" in plan
    assert WHOLE.search(plan) is None, plan


def test_the_pattern_finds_a_whole_table(place: Place) -> None:
    """A plan that does read a table in whole is recognised: the tests above are about something."""
    place.opened().close()
    statement = "SELECT count(*) FROM log WHERE body = 'x'"
    explain = "EXPLAIN QUERY PLAN" if place.sqlite else "EXPLAIN"
    plan = "\n".join(str(row) for row in place.execute(f"{explain} {statement}"))
    assert WHOLE.search(plan) is not None, plan


def test_a_flip_never_reads_a_table_in_whole(postgres_place: Place) -> None:
    """Whatever the planner believed when it made the plan that it keeps: the session of a flip allows no such scan."""
    postgres_place.opened().close()
    with closing(PostgresDatabase(make_url(postgres_place.url))) as database:
        shown = database.write(
            lambda connection: Done(connection.exec_driver_sql("SHOW enable_seqscan").scalar_one(), write=False)
        )
    assert shown == "off"
