"""What stands in the files around the code: locks, versions, licence, and nothing of anybody's machine."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
LOCKS: Final = ("requirements.lock", "requirements-dev.lock")

PIN: Final = re.compile(r"^([a-z0-9][a-z0-9-]*)==([^ ]+)( ; .+)? \\$")
HASH: Final = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")

# Written in pieces, so that this file is not its own first finding.
FOREIGN: Final = re.compile(
    "|".join(
        (
            r"(?<![\w.~-])/(?:work|root|home|Users)/" + r"\w",  # a folder of one machine
            r"\.py" + "env/",
            r"/opt/" + "pypi",
            r"--(?:extra-)?" + r"index-url\b",
            r"--" + r"find-links\b",
            r"(?:extra-)?" + r"index-url\s*=",
            r"//[\w.-]+/" + "simple/?",
            "files.python" + r"hosted\.org",
            r"PIP_(?:EXTRA_)?" + "INDEX_URL",
        )
    )
)


def project(folder: str) -> dict[str, Any]:
    """Return the [project] table of a pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))
    return dict(table["project"])


def pins(lock: str) -> dict[str, str]:
    """Return the version a lock file gives to each distribution."""
    found = map(PIN.match, (ROOT / lock).read_text(encoding="utf-8").splitlines())
    return {match[1]: match[2] for match in found if match}


def project_files() -> list[Path]:
    """Return every file git tracks or would add; skip the test in an unpacked archive."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        [git, "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        timeout=20,
    )
    names = listed.stdout.decode().split("\0")
    return [path for name in names if name and (path := ROOT / name).is_file()]


def test_no_file_knows_a_machine() -> None:
    """No file of the project holds a path of one machine or the address of a package index."""
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in project_files()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if (match := FOREIGN.search(line))
    ]
    assert found == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_pins_and_hashes_only(lock: str) -> None:
    """Every line of a lock is a comment, an exact pin or a SHA-256: no option, address or path."""
    lines = (ROOT / lock).read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not (line.startswith("#") or PIN.match(line) or HASH.match(line))] == []
    assert pins(lock)


@pytest.mark.parametrize("lock", LOCKS)
def test_no_lock_takes_haltline_from_an_index(lock: str) -> None:
    """The two distributions of this tree are in no lock: the name on an index could be anybody's."""
    assert not {"haltline", "haltline-server"} & pins(lock).keys()


def test_the_development_lock_extends_the_other() -> None:
    """What the service runs on is exactly what it was tested on."""
    assert pins("requirements.lock").items() <= pins("requirements-dev.lock").items()


def test_service_and_client_are_of_one_version() -> None:
    """The service requires the client of its own version, whose pure core it shares."""
    service, client = project("."), project("client")
    assert service["version"] == client["version"]
    assert f"haltline=={client['version']}" in service["dependencies"]


def test_the_client_requires_h11_only() -> None:
    """Adding the client to a program adds one other distribution."""
    assert [re.match(r"[\w-]+", name)[0] for name in project("client")["dependencies"]] == ["h11"]  # type: ignore[index]


def test_service_and_client_are_under_one_licence() -> None:
    """Both distributions carry the same Apache-2.0 text."""
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert (ROOT / "client/LICENSE").read_text(encoding="utf-8") == text
    assert project(".")["license"] == project("client")["license"] == "Apache-2.0"
