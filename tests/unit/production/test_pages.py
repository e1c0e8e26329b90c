"""The page of the production example: its links lead somewhere, and its commands exist."""

from __future__ import annotations

import re

import click
import pytest

from app.cli.commands import main as server
from haltline.cli.commands import haltline as client
from tests.unit.production.files import PRODUCTION

PAGE = (PRODUCTION / "README.md").read_text(encoding="utf-8")


def test_every_link_resolves() -> None:
    """A link to a file of the project leads to one."""
    targets = [each.partition("#")[0] for each in re.findall(r"\]\(([^)]+)\)", PAGE)]
    assert targets
    assert [each for each in targets if not (PRODUCTION / each).exists()] == []


def test_every_file_is_on_it() -> None:
    """Each file of the example is on the page, so that none is a riddle."""
    named = set(re.findall(r"\]\(([^)#]+)\)", PAGE))
    ours = {path.name for path in PRODUCTION.iterdir()} - {"README.md", "Dockerfile.dockerignore"}
    assert ours <= named


@pytest.mark.parametrize("words", sorted(set(re.findall(r"\b(haltline(?:-server)? [a-z]+)\b", PAGE))))
def test_every_command_exists(words: str) -> None:
    """Commands are typed as the programs know them."""
    program, command = words.split()
    group: click.Command = client if program == "haltline" else server
    assert isinstance(group, click.Group)
    assert command in group.commands
