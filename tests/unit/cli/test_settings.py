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
    text = config if config is not None else f'url = "https://file:1"\ntoken = "{TOKENS["file"]}"\n'
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return {"HALTLINE_CONFIG": str(path)}


def settle(
    environment: dict[str, str], *, url: str | None = None, token_file: Path | None = None, plain_http: bool = False
) -> tuple[Settings, list[str]]:
    """Return the settings, and what was warned of."""
    warned: list[str] = []
    named = str(token_file) if token_file is not None else None
    return resolve(environment, url=url, token_file=named, plain_http=plain_http, warn=warned.append), warned


def test_file(tmp_path: Path) -> None:
    """Without options and variables the file counts."""
    settings, warned = settle(files(tmp_path))
    assert (str(settings.addresses[0]), settings.token) == ("https://file:1", TOKENS["file"])
    assert settings.namespace == "file"
    assert warned == []


def test_environment_before_file(tmp_path: Path) -> None:
    """A variable is taken before the file, each by itself."""
    environment = files(tmp_path)
    settings, _ = settle({**environment, "HALTLINE_URL": "https://env:1"})
    assert (settings.addresses[0].host, settings.token) == ("env", TOKENS["file"])
    settings, _ = settle({**environment, "HALTLINE_TOKEN": TOKENS["env"]})
    assert (settings.addresses[0].host, settings.token) == ("file", TOKENS["env"])


def listed(settings: Settings) -> list[str]:
    """Return the addresses as they are written."""
    return [*map(str, settings.addresses)]


@pytest.mark.parametrize("url", ['"https://a:1,https://b:2"', '["https://a:1", "https://b:2"]'])
def test_several_addresses(tmp_path: Path, url: str) -> None:
    """In one text or, in the file, in a list; each of them is a way of its own, with the same token."""
    filed, _ = settle(files(tmp_path, config=f'url = {url}\ntoken = "{TOKENS["file"]}"'))
    settings, _ = settle({"HALTLINE_URL": "https://a:1, https://b:2", "HALTLINE_TOKEN": TOKENS["file"]})
    assert listed(filed) == listed(settings) == ["https://a:1", "https://b:2"]
    assert [listed(each) for each in settings.each] == [["https://a:1"], ["https://b:2"]]
    assert {each.token for each in settings.each} == {TOKENS["file"]}


def test_plain_http_must_be_permitted(tmp_path: Path) -> None:
    """By the option, the variable or the file, even where address and token are from elsewhere."""
    given = {"HALTLINE_URL": "http://env:1", "HALTLINE_TOKEN": TOKENS["env"]}
    with pytest.raises(Ended, match="--plain-http"):
        settle(given)
    assert listed(settle(given, plain_http=True)[0]) == ["http://env:1"]
    assert listed(settle({**given, "HALTLINE_PLAIN_HTTP": "1"})[0]) == ["http://env:1"]
    assert listed(settle({**given, **files(tmp_path, config="plain_http = true")})[0]) == ["http://env:1"]
    with pytest.raises(Ended, match="--plain-http"):
        settle({**given, **files(tmp_path, config="plain_http = true"), "HALTLINE_PLAIN_HTTP": "0"})
    with pytest.raises(Ended, match="write 1"):
        settle({**given, "HALTLINE_PLAIN_HTTP": "please"})


def test_the_file_of_the_ca(tmp_path: Path) -> None:
    """Named by the variable or the file, it must hold one; where nothing speaks TLS it stands in nobody's way."""
    given = {"HALTLINE_URL": "https://env:1", "HALTLINE_TOKEN": TOKENS["env"]}
    with pytest.raises(Ended, match=r"variable\.pem"):
        settle({**given, "HALTLINE_CA": "/no/such/variable.pem"})
    filed = files(tmp_path, config='ca = "/no/such/filed.pem"')
    with pytest.raises(Ended, match=r"filed\.pem"):
        settle({**given, **filed})
    settle({**given, "HALTLINE_URL": "http://127.0.0.1:1", "HALTLINE_CA": "/no/such/variable.pem"})
    _, warned = settle({**given, **files(tmp_path, config="][")})
    assert len(warned) == 1
    assert "is not TOML" in warned[0]


def test_options_before_environment(tmp_path: Path) -> None:
    """An option is taken before the variable."""
    environment = {**files(tmp_path), "HALTLINE_URL": "https://env:1", "HALTLINE_TOKEN": TOKENS["env"]}
    settings, _ = settle(environment, url="https://flag:1", token_file=tmp_path / "token")
    assert (settings.addresses[0].host, settings.token) == ("flag", TOKENS["flag"])


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
    environment = {**files(tmp_path, config="]["), "HALTLINE_URL": "https://env:1", "HALTLINE_TOKEN": TOKENS["env"]}
    settings, _ = settle(environment)
    assert settings.addresses[0].host == "env"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_shared_token_is_warned_of(tmp_path: Path, mode: int) -> None:
    """A file with a token that others can read is warned of, and used."""
    environment = files(tmp_path)
    (tmp_path / "config.toml").chmod(mode)
    _, warned = settle(environment)
    assert len(warned) == 1
    assert "chmod 600" in warned[0]
    (tmp_path / "token").chmod(mode)
    _, warned = settle({"HALTLINE_URL": "https://x:1"}, token_file=tmp_path / "token")
    assert len(warned) == 1


def test_shared_file_without_token(tmp_path: Path) -> None:
    """A file without a token may be read by everybody."""
    environment = files(tmp_path, config='url = "https://file:1"')
    (tmp_path / "config.toml").chmod(0o644)
    _, warned = settle({**environment, "HALTLINE_TOKEN": TOKENS["env"]})
    assert warned == []


def test_unknown_setting_is_warned_of(tmp_path: Path) -> None:
    """A setting that there is not is warned of, and does not stop a kill."""
    _, warned = settle(files(tmp_path, config=f'url = "https://f:1"\ntoken = "{TOKENS["file"]}"\ncolour = "red"'))
    assert "colour is not a setting" in warned[0]


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("][", "is not TOML"),
        ("url = 7", "url is not text"),
        ('url = "https://f:1"', "no token"),
        (f'token = "{TOKENS["file"]}"', "no address"),
        (f'url = "ftp://f:1"\ntoken = "{TOKENS["file"]}"', "not of the form https"),
        (f'url = "http://f:1"\ntoken = "{TOKENS["file"]}"', "plain_http = true in the configuration file"),
        (f'url = ["https://f:1", 7]\ntoken = "{TOKENS["file"]}"', "not a list of texts"),
        (f'url = []\ntoken = "{TOKENS["file"]}"', "no address"),
        ('url = "https://f:1"\nplain_http = "yes"', "neither true nor false"),
        ('url = "https://f:1"\nca = 7', "ca is not text"),
        (f'url = "https://f:1"\nca = "/no/such.pem"\ntoken = "{TOKENS["file"]}"', "cannot be read"),
        ('url = "https://f:1"\ntoken = "S3cr3t"', "not a Haltline token"),
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
        settle({"HALTLINE_URL": "https://x:1"}, token_file=tmp_path / "none")


def test_repr() -> None:
    """The token is in no repr."""
    settings, _ = settle({"HALTLINE_URL": "https://x:1", "HALTLINE_TOKEN": TOKENS["env"]})
    assert TOKENS["env"] not in repr(settings)
