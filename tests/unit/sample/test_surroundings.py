"""What surrounds the fleet: who may be restarted, where tokens are kept, and troubles in one line."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from sample.api import stands_in_the_way
from sample.crew import CREW
from sample.folder import Folder
from sample.guide import guide
from sample.operators import typed
from sample.troubles import Trouble, need

W1 = CREW[0]


@pytest.mark.parametrize("target", ["global", "tenant:acme", "feature:outreach", "run:r-1"])
def test_no_restart_while_killed(target: str) -> None:
    """Any killed target on a run's path stands in the way of its restart."""
    assert stands_in_the_way(frozenset({target}), W1)


@pytest.mark.parametrize("target", ["tenant:globex", "run:r-2", "capability:send_email", "feature:other"])
def test_restart_beside_others(target: str) -> None:
    """A target that is not on the path, or a frozen capability, does not."""
    assert not stands_in_the_way(frozenset({target}), W1)


def test_token_file_is_private(tmp_path: Path) -> None:
    """Folder and token file can be read by their owner only, also when the file existed before with other rights."""
    folder = Folder(tmp_path / "data")
    folder.config.write_text("", encoding="utf-8")
    folder.config.chmod(0o644)
    folder.write_config(folder.config.name, "http://127.0.0.1:1", "hlt_x")
    assert stat.S_IMODE(folder.config.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700


def test_never_committed(tmp_path: Path) -> None:
    """A data folder inside a repository is none of its business: there is a token in it."""
    assert (Folder(tmp_path / "data").path / ".gitignore").read_text(encoding="ascii") == "*\n"


def test_kept_token(tmp_path: Path) -> None:
    """A fresh folder has no admin token; with a log there, the one that was kept is used."""
    folder = Folder(tmp_path)
    assert folder.admin_token() == ""
    folder.database.touch()
    folder.write_config(folder.config.name, "http://127.0.0.1:1", "hlt_x")
    assert folder.admin_token() == "hlt_x"


@pytest.mark.parametrize("text", [None, "", "token = 7\n", "not toml"])
def test_lost_token(tmp_path: Path, text: str | None) -> None:
    """A log without a token for it is told in one line, before anything is started."""
    folder = Folder(tmp_path)
    folder.database.touch()
    if text is not None:
        folder.config.write_text(text, encoding="utf-8")
    with pytest.raises(Trouble, match="has no token") as caught:
        folder.admin_token()
    assert "\n" not in str(caught.value)


def test_folder_that_cannot_be(tmp_path: Path) -> None:
    """A data folder that is a file is told in one line."""
    (tmp_path / "file").touch()
    with pytest.raises(Trouble, match="cannot be made"):
        Folder(tmp_path / "file")


def test_missing_package() -> None:
    """A package that is not installed is named, with what installs it."""
    need(["json"])
    with pytest.raises(Trouble, match="not installed: no_such_package"):
        need(["json", "no_such_package"])


def test_guide_quotes(tmp_path: Path) -> None:
    """A data folder with blanks in its name still makes lines that can be typed."""
    lines = guide(tmp_path / "my data" / "config.toml", service_pid=7)
    assert f"  export HALTLINE_CONFIG='{tmp_path}/my data/config.toml'" in lines


def test_typed_as_a_person_would() -> None:
    """A reason is quoted, plain words are not."""
    assert typed(["kill", "run", "r-1", "--reason", "wrong list"]) == 'haltline kill run r-1 --reason "wrong list"'
