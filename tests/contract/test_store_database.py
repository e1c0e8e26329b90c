"""Contract of every database under a store: the log only grows, whoever writes, and text and numbers are exact."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError

from app.service.store import Store
from tests.support.orders import committed, kill_order
from tests.support.places import Place
from tests.support.postgres import SERVICE, PostgresServer

REPEATED = (
    "INSERT {verb} INTO log (seq, kind, at, actor, scope, target, flip_id, body, hash) "
    "SELECT {seq}, kind, at, 'mallory', scope, target, {flip_id}, body, hash FROM log WHERE seq = 2"
)


@pytest.fixture
def killed(store: Store, place: Place) -> Place:
    """A place whose log has three entries, the store still open."""
    committed(store.kill(kill_order(flip_id="f-a")))
    committed(store.kill(kill_order(flip_id="f-b")))
    return place


@pytest.mark.parametrize("who", ["owner", "service"])
def test_no_entry_is_changed_or_removed(killed: Place, who: str) -> None:
    """UPDATE and DELETE on the log fail for the service, and for the owner as long as the triggers are there."""
    before = killed.execute("SELECT * FROM log ORDER BY seq")
    why = "permission denied" if who == "service" and not killed.sqlite else "append-only"
    for statement in (
        "UPDATE log SET body = ''",
        "UPDATE log SET actor = 'mallory' WHERE seq = 2",
        "DELETE FROM log WHERE seq = 3",
        "DELETE FROM log",
    ):
        with pytest.raises(DBAPIError, match=why):
            killed.execute(statement, service=who == "service")
    assert killed.execute("SELECT * FROM log ORDER BY seq") == before


def test_only_the_next_position_can_be_written(killed: Place) -> None:
    """By hand, too, the log takes neither a second entry at a position, nor a gap, nor a flip_id again."""
    for seq, flip_id in ((2, "'f-c'"), (3, "'f-c'"), (5, "'f-c'"), (4, "'f-a'"), (0, "'f-c'"), (-1, "'f-c'")):
        with pytest.raises(DBAPIError, match=r"gapless|log_flip_id_key"):
            killed.execute(REPEATED.format(verb="", seq=seq, flip_id=flip_id))


def test_the_next_position_can_be_written(killed: Place) -> None:
    """The statement of the test above is right: at the next position, with a new flip_id, it succeeds."""
    killed.execute(REPEATED.format(verb="", seq=4, flip_id="'f-c'"))


@pytest.mark.parametrize(("seq", "flip_id"), [(3, "'f-c'"), (4, "'f-a'")], ids=["position", "flip_id"])
def test_sqlite_replaces_no_entry(sqlite_place: Place, seq: int, flip_id: str) -> None:
    """INSERT OR REPLACE, which asks no DELETE trigger, finds nothing that it may replace."""
    store = sqlite_place.opened()
    try:
        for name in ("f-a", "f-b"):
            committed(store.kill(kill_order(flip_id=name)))
        before = sqlite_place.execute("SELECT * FROM log ORDER BY seq")
        with pytest.raises(DBAPIError, match="gapless"):
            sqlite_place.execute(REPEATED.format(verb="OR REPLACE", seq=seq, flip_id=flip_id))
        assert sqlite_place.execute("SELECT * FROM log ORDER BY seq") == before
    finally:
        store.close()


def test_postgresql_has_no_way_round_the_triggers(postgres_place: Place) -> None:
    """TRUNCATE, an upsert, a session that pretends to replicate: refused, even to a superuser, even without a row."""
    store = postgres_place.opened()
    try:
        for statement in (
            "TRUNCATE log CASCADE",
            "INSERT INTO log SELECT * FROM log ON CONFLICT (seq) DO UPDATE SET actor = 'mallory'",
            "SET session_replication_role = replica; DELETE FROM log",
            "UPDATE log SET actor = 'mallory' WHERE seq = 99",
            "DELETE FROM log WHERE seq = 99",
        ):
            with pytest.raises(DBAPIError, match="append-only"):
                postgres_place.execute(statement)
        assert store.entry(1) is not None
    finally:
        store.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE log SET actor = actor",
        "DELETE FROM log",
        "TRUNCATE log",
        "TRUNCATE holds",
        "ALTER TABLE log DISABLE TRIGGER ALL",
        "DROP TRIGGER log_append_only ON log",
        "CREATE OR REPLACE FUNCTION log_append_only() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "ALTER TABLE log OWNER TO haltline_service",
        "DROP TABLE log",
        "SET session_replication_role = replica",
        "CREATE TABLE mine (x int)",
        "DELETE FROM log_head",
        "DELETE FROM targets",
        "DELETE FROM tokens",
        "UPDATE holds SET reason = ''",
        "UPDATE tokens SET role = 'admin'",
        "UPDATE alembic_version SET version_num = '9999'",
        "SET ROLE postgres",
    ],
)
def test_the_service_role_has_no_right_to(
    postgres_server: PostgresServer, postgres_template: str, statement: str
) -> None:
    """The role of config/postgres-roles.sql cannot change the log, or what guards it."""
    url = postgres_server.url(postgres_template, user=SERVICE)
    with (
        psycopg.connect(url, autocommit=True) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement.encode())


def test_numbers_stay_numbers(killed: Place) -> None:
    """A text that is no number is refused where a number belongs, on SQLite too (STRICT)."""
    with pytest.raises(DBAPIError, match=r"INTEGER column|invalid input syntax"):
        killed.execute("UPDATE log_head SET active_holds = 'some'")


def test_text_is_compared_by_its_bytes(postgres_place: Place) -> None:
    """Every text column of PostgreSQL has the collation C: order and equality are SQLite's, whatever the locale."""
    rows = postgres_place.execute(
        "SELECT DISTINCT collation_name FROM information_schema.columns WHERE data_type = 'text' "
        "AND table_name IN ('log', 'log_head', 'targets', 'holds', 'tokens')"
    )
    assert [tuple(row) for row in rows] == [("C",)]
