"""The commands that end by themselves: token, migrate, serve --check, and settings that cannot work."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner, Result

from app.cli import main

TOKEN: Final = re.compile(r"hlt_[a-z0-9-]+_[a-z0-9]{12}_[0-9A-Za-z]{49}")
Command = Callable[..., Result]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Return a function that runs a command whose database is in an empty folder."""
    monkeypatch.setenv("HALTLINE_DATABASE_URL", f"sqlite:///{tmp_path}/haltline.db")
    runner = CliRunner()
    return lambda *arguments: runner.invoke(main, arguments, catch_exceptions=False)


def test_tokens_on_the_command_line(command: Command) -> None:
    """Made, listed and revoked on the database: the secret goes to standard output once and nowhere else."""
    bound = ("--role", "operator", "--tenant", "acme", "--days", "1")
    made = command("token", "create", "--subject", "ada", *bound)
    assert made.exit_code == 0, made.stderr
    (text,) = TOKEN.findall(made.stdout)
    assert made.stdout == text + "\n"
    assert text not in made.stderr
    token_id = text.split("_")[2]
    listed = command("token", "list").stdout
    assert re.search(rf"{token_id}\s+operator\s+ada tenants=acme\s+until", listed)
    assert text not in listed
    assert command("token", "revoke", token_id).exit_code == 0
    again = command("token", "revoke", token_id)
    assert (again.exit_code, again.stderr) == (2, f"haltline-server: there is no live token {token_id}\n")
    assert "revoked" in command("token", "list").stdout
    for arguments in (("--role", "root"), ("--role", "admin", "--tenant", "acme"), ("--role", "worker", "--days", "0")):
        assert command("token", "create", "--subject", "ada", *arguments).exit_code == 2


def test_check_reports_and_changes_nothing(command: Command, tmp_path: Path) -> None:
    """Serve --check says what serving would find, exits 0 or 2, and a fresh folder stays as it was."""
    fresh = command("serve", "--check")
    assert fresh.exit_code == 0, fresh.stdout + fresh.stderr
    assert "ready to serve" in fresh.stdout
    assert not (tmp_path / "haltline.db").exists()
    assert command("token", "create", "--subject", "ada", "--role", "admin").exit_code == 0
    used = command("serve", "--check")
    assert used.exit_code == 0
    assert "2 entries" in used.stdout
    other = command("serve", "--check", "--namespace", "staging")
    assert other.exit_code == 2
    assert "HALTLINE_NAMESPACE=default" in other.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ttl-ms", "50"], "HALTLINE_TTL_MS"),
        (["--bind", "nonsense"], "HALTLINE_BIND"),
        (["--database-url", "mysql://u:hunter2@h/x"], "HALTLINE_DATABASE_URL"),
        (["--namespace", "Upper"], "HALTLINE_NAMESPACE"),
        (["--log-level", "loud"], "log-level"),
    ],
)
def test_settings_that_cannot_work(command: Command, tmp_path: Path, arguments: list[str], said: str) -> None:
    """A wrong setting is named, nothing is made, and the exit status is 2."""
    done = command("serve", *arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert "hunter2" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_migrate(command: Command) -> None:
    """Migrate makes the schema and says so; a second time there is nothing to do."""
    first, second = command("migrate"), command("migrate")
    assert (first.exit_code, second.exit_code) == (0, 0), first.stderr
    assert first.stdout.startswith("schema none -> ")
    assert "->" not in second.stdout
