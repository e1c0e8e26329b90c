"""Statements through SQLAlchemy: what is stopped writes nothing, and an abort cancels what is running."""

# ruff: noqa: PT012, SIM117 - the kill comes inside the block, and what surfaces is what leaves it

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool

from haltline import CapabilityFrozen, ConfigurationError, InvalidTarget, Killed, Unverified
from haltline.integrations.sqlalchemy import guard, writes
from haltline.testing import FakeSwitch, fake_switch
from tests.support.aborts import SOON_S, killed_after

SLOW = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) SELECT count(*) FROM n"
"""Minutes of reading, on SQLite and on PostgreSQL."""


class Base(DeclarativeBase):
    """The tables of the tests."""


class Note(Base):
    """A row."""

    __tablename__ = "notes_of_a_test"
    id: Mapped[int] = mapped_column(primary_key=True)
    word: Mapped[str]


@pytest.fixture
def switch() -> FakeSwitch:
    """Return a switch that is renewed by each flip."""
    return fake_switch()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Engine]:
    """Return a guarded engine on a new file."""
    engine = create_engine(f"sqlite:///{tmp_path / 'notes.db'}")
    Base.metadata.create_all(engine)
    guard(engine, capability="write_db")
    yield engine
    engine.dispose()


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[Engine]:
    """Return a guarded engine on a new database."""
    engine = create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"))
    Base.metadata.create_all(engine)
    guard(engine, capability="write_db")
    yield engine
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Return one engine after the other."""
    engine: Engine = request.getfixturevalue(request.param)
    return engine


def count(engine: Engine) -> int:
    """Return how many rows there are."""
    with engine.connect() as conn:
        return int(conn.execute(text("SELECT count(*) FROM notes_of_a_test")).scalar_one())


def test_a_stopped_run_writes_nothing(switch: FakeSwitch, engine: Engine) -> None:
    """Neither a killed run nor code without a run writes; both may read."""
    with pytest.raises(Unverified, match="no run is current"):
        with engine.begin() as conn:
            conn.execute(text("INSERT INTO notes_of_a_test VALUES (1, 'a')"))
    with switch.run("r-1"):
        with engine.begin() as conn:
            conn.execute(text("INSERT INTO notes_of_a_test VALUES (1, 'a')"))
        with pytest.raises(Killed, match="run r-1 is stopped"):
            with engine.begin() as conn:
                conn.execute(text("INSERT INTO notes_of_a_test VALUES (2, 'b')"))
                switch.service.kill("run:r-1", in_flight="finish")
                conn.execute(text("INSERT INTO notes_of_a_test VALUES (3, 'c')"))
        assert count(engine) == 1
    assert count(engine) == 1


def test_what_was_written_is_not_committed(switch: FakeSwitch, engine: Engine) -> None:
    """A kill before the commit rolls the transaction back; one that has only read may end."""
    with switch.run("r-1"):
        with pytest.raises(Killed):
            with Session(engine) as session, session.begin():
                session.add_all([Note(id=number, word="a") for number in range(10)])
                session.flush()
                switch.service.kill("run:r-1", in_flight="finish")
        with engine.begin() as conn:
            assert conn.execute(text("SELECT count(*) FROM notes_of_a_test")).scalar_one() == 0


@pytest.mark.parametrize("statement", [SLOW, f"INSERT INTO notes_of_a_test SELECT 7, ({SLOW})"])
def test_a_running_statement_is_cancelled(switch: FakeSwitch, engine: Engine, statement: str) -> None:
    """It ends within a second, as Killed, the transaction is rolled back, and the engine serves others."""
    with switch.run("r-1"):
        with pytest.raises(Killed):
            with engine.begin() as conn:
                conn.execute(text("INSERT INTO notes_of_a_test VALUES (1, 'a')"))
                ended = killed_after(switch, lambda: time.sleep(0.3))
                conn.execute(text(statement))
        assert time.monotonic() - ended() < SOON_S
    with switch.run("r-2") as run:
        watched = len(run.calls)
        assert count(engine) == 0
        with engine.begin() as conn:
            conn.execute(text("INSERT INTO notes_of_a_test VALUES (1, 'a')"))
        assert count(engine) == 1
        assert len(run.calls) == watched


def test_twenty_cancellations_hit_nobody_else(switch: FakeSwitch, postgres: Engine) -> None:
    """A connection to which a cancellation was sent serves nobody afterwards."""
    for number in range(20):
        with switch.run(f"r-{number}"), pytest.raises(Killed):
            with postgres.connect() as conn:
                killed_after(switch, lambda: time.sleep(0.02), f"run:r-{number}")
                conn.execute(text("CREATE TEMP TABLE slept AS SELECT 1 FROM pg_sleep(60)"))
        with switch.run(f"other-{number}"), postgres.begin() as conn:
            conn.execute(text("INSERT INTO notes_of_a_test VALUES (:id, 'a')"), {"id": number})
    assert count(postgres) == 20


def test_a_frozen_capability_keeps_from_writing(switch: FakeSwitch, engine: Engine) -> None:
    """The run goes on, and reads."""
    with switch.run("r-1"):
        switch.service.kill("capability:write_db")
        with pytest.raises(CapabilityFrozen):
            with engine.begin() as conn:
                conn.execute(text("DELETE FROM notes_of_a_test"))
        assert count(engine) == 0


def test_other_errors_stay_what_they_are(switch: FakeSwitch, engine: Engine) -> None:
    """A statement that fails by itself is no kill, and nothing of it stays in flight."""
    with switch.run("r-1") as run:
        watched = len(run.calls)
        with pytest.raises(DBAPIError, match="no_such_table"):
            with engine.begin() as conn:
                conn.execute(text("INSERT INTO no_such_table VALUES (1)"))
        assert len(run.calls) == watched
        with engine.begin() as conn:
            with conn.begin_nested() as nested:
                conn.execute(text("INSERT INTO notes_of_a_test VALUES (1, 'a')"))
                nested.rollback()
            conn.execute(text("INSERT INTO notes_of_a_test VALUES (2, 'a')"))
        assert count(engine) == 1


def test_a_database_in_memory_outlives_a_refusal(switch: FakeSwitch) -> None:
    """Neither refusing nor interrupting throws the one connection away, and with it the data."""
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    Base.metadata.create_all(engine)
    guard(engine)
    with switch.run("r-1"):
        with engine.begin() as conn:
            conn.execute(text("INSERT INTO notes_of_a_test VALUES (1, 'a')"))
        killed_after(switch, lambda: time.sleep(0.2))
        with pytest.raises(Killed):
            with engine.begin() as conn:
                conn.execute(text(SLOW))
        with pytest.raises(Killed):
            with engine.begin() as conn:
                conn.execute(text("DELETE FROM notes_of_a_test"))
    assert count(engine) == 1
    engine.dispose()


@pytest.mark.parametrize(
    ("statement", "does"),
    [
        ("SELECT 1", False),
        ("-- why\n /* and how */ select 1", False),
        ("WITH a AS (SELECT 1) SELECT * FROM a;", False),
        ("ROLLBACK TO SAVEPOINT a", False),
        ("WITH a AS (DELETE FROM t RETURNING 1) SELECT * FROM a", True),
        ("SELECT * INTO b FROM a", True),
        ("SELECT 1; DROP TABLE a", True),
        ("/*! DROP TABLE a */ SELECT 1", True),
        ("-- SELECT\nDROP TABLE a", True),
        ("SELECT 1 FOR UPDATE", True),
        ("CALL a()", True),
        ("TRUNCATE a", True),
        ("", True),
    ],
)
def test_whatever_does_not_clearly_read_writes(statement: str, *, does: bool) -> None:
    """The words of a statement decide, and what is unknown writes."""
    assert writes(statement) is does


def test_what_cannot_work_is_refused(tmp_path: Path) -> None:
    """A driver whose statements nobody here can cancel, and a capability that is none."""
    engine = create_engine(f"sqlite:///{tmp_path / 'a.db'}")
    with pytest.raises(InvalidTarget):
        guard(engine, capability="Write DB")
    engine.dialect.driver = "oracledb"
    with pytest.raises(ConfigurationError, match="cancel="):
        guard(engine)
    guard(engine, cancel=lambda connection: connection.interrupt())
