"""haltline-server kill and settings: straight on the database, SQLite or PostgreSQL, when no service can be reached."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from click.testing import CliRunner, Result

from app.cli import main
from app.cli.flipping import Exit
from app.config import Config
from app.factory import create_node
from app.service.store import LogQuery
from app.storage.postgres import LOG_LOCK
from haltline.cli.exits import OUTCOMES
from haltline.cli.exits import Exit as ClientExit
from haltline.scopes import parse_target
from tests.support.cli import environment
from tests.support.places import Place
from tests.support.postgres import PostgresServer
from tests.support.valkey import Valkey, valkey

__all__ = ["valkey"]

pytestmark = pytest.mark.timeout(90)

ROOT: Final = Path(__file__).parents[2]
Command = Callable[..., Result]


@pytest.fixture
def command(place: Place, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Return a function that runs a command on a database whose log has begun."""
    place.opened().close()
    return _on(place, monkeypatch)


def _on(place: Place, monkeypatch: pytest.MonkeyPatch) -> Command:
    for name in ("HALTLINE_NAMESPACE", "HALTLINE_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HALTLINE_DATABASE_URL", place.url)
    runner = CliRunner()
    return lambda *arguments: runner.invoke(main, arguments, catch_exceptions=False)


def _log(place: Place) -> list[dict[str, Any]]:
    with closing(place.open()) as store:
        return [json.loads(row.body) for row in store.log(LogQuery())[1]]


def test_a_kill_is_the_same_flip(command: Command, place: Place) -> None:
    """It is in the log as a kill by haltline-server, holds its target, and says what, where and from when."""
    done = command("kill", "run", "r-42", "--reason", "mails the wrong customers", "--flip-id", "f-7")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("killed run:r-42 at log position 2\n")
    assert "flip id f-7\n" in done.stdout
    assert "effective at 20" in done.stdout
    entry = _log(place)[-1]
    shown = ("kind", "actor", "target", "reason", "flip_id", "in_flight", "queued")
    assert [entry[name] for name in shown] == [
        "kill", "haltline-server", "run:r-42", "mails the wrong customers", "f-7", "abort", "discard"
    ]  # fmt: skip
    with closing(place.open()) as store:
        assert [hold.seq for hold in store.flag(parse_target("run:r-42"))[1].holds] == [2]


def test_a_kill_with_options(command: Command, place: Place) -> None:
    """What it asks of running calls and planned work is in the log, and said."""
    done = command("kill", "run", "r-42", "--reason", "why", "--in-flight", "finish", "--queued", "drain")
    assert done.exit_code == 0, done.stderr
    assert "in flight: finish; queued: drain\n" in done.stdout
    assert [_log(place)[-1][name] for name in ("in_flight", "queued")] == ["finish", "drain"]
    assert command("kill", "run", "r-42", "--reason", "why", "--queued", "keep").exit_code == 2
    assert len(_log(place)) == 2


def test_a_kill_for_programs(command: Command) -> None:
    """With --json standard output is one object with what POST /v1/kills answers; a repeat says that it is one."""
    arguments = ("kill", "global", "--reason", "stop", "--flip-id", "k-1", "--json")
    told = json.loads(command(*arguments).stdout)
    assert (told["ok"], told["outcome"], told["exit"], told["new"]) == (True, "done", 0, True)
    assert (told["seq"], told["target"], told["flip_id"], told["namespace"]) == (2, "global", "k-1", "default")
    assert {"committed_at", "effective_at", "effective_in_ms", "holds", "etag", "epoch", "hash"} <= set(told)
    assert 0 < told["effective_in_ms"] <= 1_000
    again = json.loads(command(*arguments).stdout)
    assert (again["ok"], again["new"], again["seq"]) == (True, False, 2)


def test_the_exit_codes_are_those_of_the_client() -> None:
    """Whoever scripts `haltline kill` need not learn other numbers or words."""
    assert {code.name: int(code) for code in Exit} == {code.name: int(code) for code in ClientExit}
    from app.cli.flipping import _OUTCOMES  # not exported: only this comparison needs it

    assert {int(code): word for code, word in _OUTCOMES.items()} == {int(code): w for code, w in OUTCOMES.items()}


@pytest.mark.parametrize(
    "arguments",
    [
        ("kill", "nonsense", "x", "--reason", "why"),
        ("kill", "run", "a b", "--reason", "why"),
        ("kill", "run", "r-1", "--reason", " "),
        ("kill", "run", "r-1", "--reason", "two\nlines"),
        ("kill", "run", "r-1", "--reason", "why", "--flip-id", "a b"),
        ("kill", "run", "r-1"),
        ("kill", "run", "r-1", "--reason", "why", "--namespace", "staging"),
        ("settings", "--ttl-ms", "199"),
        ("settings", "--namespace", "staging"),
    ],
)
def test_what_cannot_be_meant_is_2(command: Command, place: Place, arguments: tuple[str, ...]) -> None:
    """Usage and configuration end with 2, a line that says why, and nothing in the log."""
    done = command(*arguments)
    assert done.exit_code == 2
    assert done.stderr
    assert len(_log(place)) == 1


def test_a_taken_flip_id_is_3(command: Command, place: Place) -> None:
    """Refused: the log has that flip_id for something else; nothing is written."""
    assert command("kill", "run", "r-1", "--reason", "why", "--flip-id", "k-1").exit_code == 0
    done = command("kill", "run", "r-2", "--reason", "why", "--flip-id", "k-1", "--json")
    assert done.exit_code == 3
    assert "NOT KILLED: run:r-2" in done.stderr
    assert json.loads(done.stdout)["outcome"] == "refused"
    assert len(_log(place)) == 2


def test_a_kill_released_since_is_1(command: Command, place: Place) -> None:
    """A repeat whose hold somebody has released does not kill again, and does not say that it did."""
    assert command("kill", "run", "r-1", "--reason", "why", "--flip-id", "k-1").exit_code == 0
    with closing(create_node(Config(database_url=place.url))) as node:
        from tests.support.orders import committed, revive_order

        committed(node.store.revive(revive_order(node.store.flag(parse_target("run:r-1"))[1])))
    done = command("kill", "run", "r-1", "--reason", "why", "--flip-id", "k-1")
    assert done.exit_code == 1
    assert "NOT KILLED AGAIN" in done.stderr


def test_a_database_in_use_says_what_to_do(sqlite_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a service owns the SQLite file the kill is not done, and it is said who owns it and what to do."""
    command = _on(sqlite_place, monkeypatch)
    with closing(sqlite_place.opened()):
        done = command("kill", "global", "--reason", "stop")
    assert done.exit_code == 2
    assert "NOT KILLED: global" in done.stderr
    assert "is in use by process" in done.stderr
    assert "stop that one" in done.stderr


def test_a_mistyped_database_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill in an empty database would stop nobody: none is made, and the exit status is 2."""
    url = f"sqlite:///{tmp_path}/haltline.db"
    command = _on(Place(url, url), monkeypatch)
    for arguments in (("kill", "global", "--reason", "stop"), ("settings",)):
        done = command(*arguments)
        assert done.exit_code == 2
        assert "there is no database" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_database_without_a_log_is_2(postgres_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is a log made in a database that has none: no worker could be reading it."""
    done = _on(postgres_place, monkeypatch)("kill", "global", "--reason", "stop")
    assert done.exit_code == 2
    assert "has no log yet" in done.stderr


def test_an_unreachable_database_is_4(monkeypatch: pytest.MonkeyPatch) -> None:
    """Certain: nothing was done; and it is said what stops the world instead."""
    nowhere = Place("postgresql://x@/x?host=/nowhere", "")
    done = _on(nowhere, monkeypatch)("kill", "global", "--reason", "stop", "--json")
    assert done.exit_code == 4
    assert "NOT KILLED: global" in done.stderr
    assert "within one ttl" in done.stderr
    assert json.loads(done.stdout)["outcome"] == "not_done"


def test_a_held_lock_is_4(postgres_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log lock that somebody holds for too long: nothing was done."""
    postgres_place.opened().close()
    with psycopg.connect(postgres_place.owner_url) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(%s)", [LOG_LOCK])
        done = _on(postgres_place, monkeypatch)("kill", "global", "--reason", "stop")
    assert done.exit_code == 4
    assert len(_log(postgres_place)) == 1


def test_a_commit_that_is_not_confirmed_is_5(
    postgres_place: Place, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not known, asked three times: said so, with the line to type again; which then finds the one kill."""
    postgres_place.opened().close()
    command = _on(postgres_place, monkeypatch)
    postgres_server.configure("synchronous_standby_names", "ghost")
    try:
        done = command("kill", "run", "r-1", "--reason", "why", "--flip-id", "k-1", "--json")
    finally:
        postgres_server.configure("synchronous_standby_names", "")
    assert done.exit_code == 5, done.stderr
    assert "UNKNOWN" in done.stderr
    told = json.loads(done.stdout)
    assert (told["outcome"], told["flip_id"]) == ("unknown", "k-1")
    assert "haltline-server kill run r-1 --in-flight abort --queued discard --reason ... --flip-id k-1" in done.stderr
    assert command("kill", "run", "r-1", "--reason", "why", "--flip-id", "k-1").exit_code == 0
    assert [entry["kind"] for entry in _log(postgres_place)] == ["note", "kill"]


def test_racing_kills_with_one_flip_id_make_one_entry(postgres_place: Place) -> None:
    """Two operators type the same line at the same moment while a service holds the database open: one kill."""
    line = [sys.executable, "-m", "app.cli", "kill", "run", "r-1", "--reason", "why", "--flip-id", "k-1", "--json"]
    with closing(postgres_place.opened()) as serving:
        settings = environment(HALTLINE_DATABASE_URL=postgres_place.url)
        racing = [
            subprocess.Popen(line, cwd=ROOT, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        told = [json.loads(each.communicate(timeout=60)[0]) for each in racing]
        assert [each["exit"] for each in told] == [0, 0]
        assert sorted(each["new"] for each in told) == [False, True]
        assert {each["seq"] for each in told} == {2}
        assert serving.head().position.seq == 2


def test_the_doorbell_is_rung(postgres_place: Place, valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes that listen to Redis hear of a kill that no service made."""
    postgres_place.opened().close()
    command = _on(postgres_place, monkeypatch)
    monkeypatch.setenv("HALTLINE_REDIS_URL", valkey.url)
    with closing(create_node(Config(database_url=postgres_place.url, redis_url=valkey.url))) as node:
        node.start()
        reached = node.refresher.wait_beyond(0, 10)
        assert reached is not None
        rung: list[int] = []
        node.bell.listen(rung.append)
        deadline = time.monotonic() + 10
        number = 0
        while not rung and time.monotonic() < deadline:  # a subscription takes a moment
            number += 1
            assert command("kill", "run", f"r-{number}", "--reason", "why").exit_code == 0
            time.sleep(0.1)
        assert rung


def test_a_frozen_doorbell_costs_a_moment(
    postgres_place: Place, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kill is done and said before the doorbell is waited for, and that is not for long."""
    postgres_place.opened().close()
    command = _on(postgres_place, monkeypatch)

    def took() -> float:
        began = time.monotonic()
        assert command("kill", "global", "--reason", "stop").exit_code == 0
        return time.monotonic() - began

    plain = min(took() for _ in range(3))
    monkeypatch.setenv("HALTLINE_REDIS_URL", valkey.url)
    with valkey.frozen():
        assert min(took() for _ in range(3)) < plain + 1.0


def test_settings_are_shown_and_changed(command: Command, place: Place) -> None:
    """Shown without an option; changed with one, as a note by haltline-server; the same value changes nothing."""
    assert "lease ttl  1000 ms" in command("settings").stdout
    assert json.loads(command("settings", "--json").stdout) == {
        "ttl_ms": 1000,
        "changed_at": None,
        "before_ms": None,
        "seq": None,
    }
    changed = command("settings", "--ttl-ms", "400")
    assert changed.exit_code == 0
    assert "changed at log position 2" in changed.stdout
    entry = _log(place)[-1]
    assert [entry[name] for name in ("kind", "actor", "topic", "ttl_ms", "before_ms")] == [
        "note", "haltline-server", "settings_changed", 400, 1000
    ]  # fmt: skip
    assert "it is that already" in command("settings", "--ttl-ms", "400").stdout
    told = json.loads(command("settings", "--json").stdout)
    assert (told["ttl_ms"], told["before_ms"]) == (400, 1000)
    assert len(_log(place)) == 2
