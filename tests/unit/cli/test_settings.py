"""Settings: options before environment before file; a token is never an argument, never shown, and not for others."""

from __future__ import annotations

from pathlib import Path

import pytest

from haltline.cli.exits import Ended, Exit
from haltline.cli.settings import Settings, resolve

TOKENS = {name: f"hlt_{name}_abcdefghijkl_{'A' * 49}" for name in ("env", "file", "flag")}


def files(folder: Path, *, config: str | None = None) -> dict[str, str]:
    """Write a token file and a configuration file, and return an environment that names the latter."""
    token_file = folder / "token"
    token_file.write_text(f"{TOKENS['flag']}\n", encoding="utf-8")
    token_file.chmod(0o600)
    path = folder / "config.toml"
    text = config if config is not None else f'url = "http://file:1"\ntoken = "{TOKENS["file"]}"\n'
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return {"HALTLINE_CONFIG": str(path)}


def settle(
    environment: dict[str, str], *, url: str | None = None, token_file: Path | None = None
) -> tuple[Settings, list[str]]:
    """Return the settings, and what was warned of."""
    warned: list[str] = []
    named = str(token_file) if token_file is not None else None
    return resolve(environment, url=url, token_file=named, warn=warned.append), warned


def test_file(tmp_path: Path) -> None:
    """Without options and variables the file counts."""
    settings, warned = settle(files(tmp_path))
    assert (str(settings.address), settings.token) == ("http://file:1", TOKENS["file"])
    assert settings.namespace == "file"
    assert warned == []


def test_environment_before_file(tmp_path: Path) -> None:
    """A variable is taken before the file, each by itself."""
    environment = files(tmp_path)
    settings, _ = settle({**environment, "HALTLINE_URL": "http://env:1"})
    assert (settings.address.host, settings.token) == ("env", TOKENS["file"])
    settings, _ = settle({**environment, "HALTLINE_TOKEN": TOKENS["env"]})
    assert (settings.address.host, settings.token) == ("file", TOKENS["env"])


def test_options_before_environment(tmp_path: Path) -> None:
    """An option is taken before the variable."""
    environment = {**files(tmp_path), "HALTLINE_URL": "http://env:1", "HALTLINE_TOKEN": TOKENS["env"]}
    settings, _ = settle(environment, url="http://flag:1", token_file=tmp_path / "token")
    assert (settings.address.host, settings.token) == ("flag", TOKENS["flag"])


def test_home(tmp_path: Path) -> None:
    """The file's own place is .config/haltline/config.toml in the home folder; it need not be there."""
    folder = tmp_path / ".config" / "haltline"
    folder.mkdir(parents=True)
    files(folder)
    settings, _ = settle({"HOME": str(tmp_path)})
    assert settings.token == TOKENS["file"]
    with pytest.raises(Ended, match="no address"):
        settle({"HOME": str(tmp_path / "nobody")})


def test_broken_file_does_not_stand_in_the_way(tmp_path: Path) -> None:
    """A file that is not needed is not read: a kill does not fail for it."""
    environment = {**files(tmp_path, config="]["), "HALTLINE_URL": "http://env:1", "HALTLINE_TOKEN": TOKENS["env"]}
    settings, _ = settle(environment)
    assert settings.address.host == "env"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_shared_token_is_warned_of(tmp_path: Path, mode: int) -> None:
    """A file with a token that others can read is warned of, and used."""
    environment = files(tmp_path)
    (tmp_path / "config.toml").chmod(mode)
    _, warned = settle(environment)
    assert len(warned) == 1
    assert "chmod 600" in warned[0]
    (tmp_path / "token").chmod(mode)
    _, warned = settle({"HALTLINE_URL": "http://x:1"}, token_file=tmp_path / "token")
    assert len(warned) == 1


def test_shared_file_without_token(tmp_path: Path) -> None:
    """A file without a token may be read by everybody."""
    environment = files(tmp_path, config='url = "http://file:1"')
    (tmp_path / "config.toml").chmod(0o644)
    _, warned = settle({**environment, "HALTLINE_TOKEN": TOKENS["env"]})
    assert warned == []


def test_unknown_setting_is_warned_of(tmp_path: Path) -> None:
    """A setting that there is not is warned of, and does not stop a kill."""
    _, warned = settle(files(tmp_path, config=f'url = "http://f:1"\ntoken = "{TOKENS["file"]}"\ncolour = "red"'))
    assert "colour is not a setting" in warned[0]


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("][", "is not TOML"),
        ("url = 7", "url is not text"),
        ('url = "http://f:1"', "no token"),
        (f'token = "{TOKENS["file"]}"', "no address"),
        (f'url = "https://f:1"\ntoken = "{TOKENS["file"]}"', "https is not served"),
        ('url = "http://f:1"\ntoken = "S3cr3t"', "not a Haltline token"),
        ("x" * 70_000, "larger than"),
    ],
)
def test_wrong_files(tmp_path: Path, config: str, told: str) -> None:
    """What is missing or wrong is said, without the token: 2."""
    with pytest.raises(Ended, match=told) as ended:
        settle(files(tmp_path, config=config))
    assert ended.value.code is Exit.USAGE
    assert "S3cr3t" not in "".join(ended.value.said)


def test_missing_files(tmp_path: Path) -> None:
    """A file that was named must be there."""
    with pytest.raises(Ended, match="cannot be read"):
        settle({"HALTLINE_CONFIG": str(tmp_path / "none")})
    with pytest.raises(Ended, match="cannot be read"):
        settle({"HALTLINE_URL": "http://x:1"}, token_file=tmp_path / "none")


def test_repr() -> None:
    """The token is in no repr."""
    settings, _ = settle({"HALTLINE_URL": "http://x:1", "HALTLINE_TOKEN": TOKENS["env"]})
    assert TOKENS["env"] not in repr(settings)
