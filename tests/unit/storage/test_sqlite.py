"""SQLite as the log needs it: pragmas in force, writing transactions from their first moment, bounded reads."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, make_url, text

from app.service.store import LogDiverged, OutcomeUnknown, StoreUnavailable
from app.storage import StoreRefused
from app.storage.database import Done
from app.storage.sqlite import SqliteDatabase

NOTE = "INSERT INTO tokens VALUES ('a', '" + "0" * 64 + "', 's', 'r', NULL, 't', 1.0, NULL)"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database is."""
    return tmp_path / "haltline.db"


@pytest.fixture
def database(path: Path) -> Iterator[SqliteDatabase]:
    """An open database."""
    opened = SqliteDatabase(make_url(f"sqlite:///{path}"))
    yield opened
    opened.close()


def _write(connection: Connection) -> Done[str]:
    connection.exec_driver_sql(NOTE)
    return Done("written", write=True)


def _count(database: SqliteDatabase) -> int:
    return int(database.read(lambda connection: connection.exec_driver_sql("SELECT count(*) FROM tokens").scalar_one()))


@pytest.mark.parametrize(
    ("pragma", "value"),
    [
        ("synchronous", 2),
        ("journal_mode", "truncate"),
        ("foreign_keys", 1),
        ("recursive_triggers", 1),
        ("trusted_schema", 0),
    ],
)
def test_the_pragmas_are_in_force(database: SqliteDatabase, pragma: str, value: object) -> None:
    """What durability and the triggers rest on is what SQLite really does, in reads as in writes."""
    query = f"PRAGMA {pragma}"
    assert database.read(lambda connection: connection.exec_driver_sql(query).scalar_one()) == value
    assert database.write(lambda connection: Done(connection.exec_driver_sql(query).scalar_one(), write=False)) == value


def test_every_table_is_strict(database: SqliteDatabase) -> None:
    """No column of the log takes a value of another type."""
    rows = database.read(
        lambda connection: connection.exec_driver_sql(
            "SELECT name, strict FROM pragma_table_list WHERE schema = 'main' AND name NOT LIKE 'sqlite_%'"
        ).all()
    )
    assert {row.name for row in rows if not row.strict} == {"alembic_version"}


def test_a_write_holds_the_lock_before_it_reads(database: SqliteDatabase, path: Path) -> None:
    """While somebody else writes, a write is refused before its work begins; a deferred one would have read first."""
    called: list[bool] = []

    def work(_: Connection) -> Done[None]:
        called.append(True)
        return Done(None, write=False)

    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="cannot begin"):
            database.write(work)
    assert called == []
    database.write(work)
    assert called == [True]


def test_a_reader_in_the_way_of_a_commit_is_certain(database: SqliteDatabase, path: Path) -> None:
    """If another process reads for too long, the write is rolled back whole, and said to be."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM tokens").fetchall()
        with pytest.raises(StoreUnavailable, match="nothing was changed"):
            database.write(_write)
    assert _count(database) == 0
    assert database.write(_write) == "written"
    assert _count(database) == 1


def test_work_that_fails_is_rolled_back(database: SqliteDatabase) -> None:
    """What a failing write had written is gone, whatever it failed with."""

    def work(connection: Connection) -> Done[None]:
        connection.exec_driver_sql(NOTE)
        raise LookupError

    with pytest.raises(LookupError):
        database.write(work)
    assert _count(database) == 0


def test_work_that_decides_against_it_is_rolled_back(database: SqliteDatabase) -> None:
    """A decision not to write leaves nothing, whatever was written before."""

    def work(connection: Connection) -> Done[str]:
        connection.exec_driver_sql(NOTE)
        return Done("refused", write=False)

    assert database.write(work) == "refused"
    assert _count(database) == 0


def test_a_read_cannot_write(database: SqliteDatabase) -> None:
    """A read is rolled back."""
    database.read(lambda connection: connection.exec_driver_sql(NOTE))
    assert _count(database) == 0


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


def test_an_endless_read_is_cut_short(database: SqliteDatabase) -> None:
    """A filter that scans for ever does not keep the kills behind it waiting."""
    with pytest.raises(StoreUnavailable, match="interrupted"):
        database.read(lambda connection: connection.exec_driver_sql(ENDLESS).scalar_one())
    assert database.write(_write) == "written"


def test_a_read_on_a_broken_connection_is_unavailable(database: SqliteDatabase) -> None:
    """A connection that a read broke is thrown away, the caller is told so, and the next read has a new one."""

    def work(connection: Connection) -> None:
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        raw.close()
        connection.exec_driver_sql("SELECT 1")

    with pytest.raises(StoreUnavailable, match="closed database"):
        database.read(work)
    assert _count(database) == 0


@pytest.mark.parametrize("how", ["moved", "replaced", "removed"])
def test_a_file_that_is_gone_is_not_read_on(database: SqliteDatabase, path: Path, how: str) -> None:
    """What is read is the file that the path names; if that is another, or none, nothing is read and none is made."""
    _count(database)
    path.rename(path.with_name("moved.db"))
    if how == "replaced":
        path.write_bytes(path.with_name("moved.db").read_bytes())
    elif how == "removed":
        path.with_name("moved.db").unlink()
    with pytest.raises(LogDiverged, match=r"moved, replaced or removed"):
        _count(database)
    with pytest.raises((StoreUnavailable, LogDiverged)):
        database.write(_write)
    with pytest.raises(LogDiverged):
        _count(database)
    assert path.exists() == (how == "replaced")


def test_hide_parameters(database: SqliteDatabase) -> None:
    """No error repeats the values of a statement."""
    with pytest.raises(StoreUnavailable) as raised:
        database.read(lambda connection: connection.execute(text("SELECT :a FROM nowhere"), {"a": "the secret"}))
    assert "the secret" not in f"{raised.value} {raised.value.__cause__}"


def test_a_write_after_a_bounded_read_is_not_bounded(database: SqliteDatabase) -> None:
    """The limit on a read ends with it."""
    _count(database)
    slow = ENDLESS.replace("FROM n) ", "FROM n LIMIT 3000000) ")
    assert database.write(lambda connection: Done(connection.exec_driver_sql(slow).scalar_one(), write=False)) > 0


def test_a_write_that_is_still_running_is_unknown(path: Path) -> None:
    """A caller whose time is up while its write runs cannot know; one whose write did not begin can."""
    database = SqliteDatabase(make_url(f"sqlite:///{path}"), timeout=0.3)
    go = threading.Event()

    def work(connection: Connection) -> Done[None]:
        go.wait(10)
        _write(connection)
        return Done(None, write=True)

    try:
        with pytest.raises(OutcomeUnknown):
            database.write(work)
        with pytest.raises(StoreUnavailable, match="nothing was changed"):
            database.write(_write)
        with pytest.raises(StoreUnavailable):
            _count(database)
        go.set()
        assert _count(database) == 1
    finally:
        go.set()
        database.close()


def test_a_database_in_memory_is_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests: the schema is there, nothing is on disk."""
    monkeypatch.chdir(tmp_path)
    database = SqliteDatabase(make_url("sqlite://"))
    try:
        assert database.write(_write) == "written"
        assert _count(database) == 1
    finally:
        database.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///a.db?mode=ro",
        "sqlite://host/a.db",
        "sqlite:///file:a.db",
        "sqlite+aiosqlite:///a.db",
        "sqlite+pysqlcipher:///a.db",
    ],
)
def test_an_address_with_more_than_a_path_is_refused(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options and drivers that would go round the lock or the pragmas are refused, not ignored."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreRefused):
        SqliteDatabase(make_url(url))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    """Another program's file is left as it is, and its lock given back."""
    path.write_bytes(b"a diary, not a database" * 100)
    with pytest.raises(StoreUnavailable, match="not a database"):
        SqliteDatabase(make_url(f"sqlite:///{path}"))
    assert path.read_bytes().startswith(b"a diary")
    path.unlink()
    SqliteDatabase(make_url(f"sqlite:///{path}"), owner_wait=0).close()


def test_closing_gives_the_file_back(path: Path) -> None:
    """After close another owner may come at once; closing twice is fine."""
    database = SqliteDatabase(make_url(f"sqlite:///{path}"))
    database.close()
    database.close()
    SqliteDatabase(make_url(f"sqlite:///{path}"), owner_wait=0).close()
