"""What the two wheels carry, and that the client's is enough by itself."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]

IMPORT_FROM: Final = """
import sys
sys.path[:0] = sys.argv[1:]
import haltline
assert haltline.__file__.startswith(sys.argv[1]), haltline.__file__
"""


def build_wheel(folder: Path, into: Path) -> Path:
    """Build the wheel of the project in `folder` with the backend of this environment and return its path."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", into, folder],
        capture_output=True,
        check=True,
        timeout=50,
    )
    (wheel,) = into.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def client_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the client's wheel."""
    return build_wheel(ROOT / "client", tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="module")
def service_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the service's wheel."""
    return build_wheel(ROOT, tmp_path_factory.mktemp("service"))


def members(wheel: Path) -> set[str]:
    """Return the names of the files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def packages(wheel: Path) -> set[str]:
    """Return the top folders in a wheel, its own description left out."""
    return {top for name in members(wheel) if not (top := name.partition("/")[0]).endswith(".dist-info")}


def test_the_client_wheel_carries_the_client_only(client_wheel: Path) -> None:
    """The client's wheel holds the package with its type marker, its licence, and nothing else."""
    names = members(client_wheel)
    assert {"haltline/__init__.py", "haltline/py.typed"} <= names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert packages(client_wheel) == {"haltline"}


def test_the_service_wheel_can_migrate(service_wheel: Path) -> None:
    """The service's wheel holds the migrations inside its package, and neither the client nor tests."""
    names = members(service_wheel)
    assert packages(service_wheel) == {"app"}
    migrations = {
        f"app/{path.relative_to(ROOT)}"
        for path in (ROOT / "migrations").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert migrations
    assert migrations <= names


def test_the_service_wheel_brings_the_rights_of_its_role(service_wheel: Path) -> None:
    """Who installs the wheel has the SQL file of the role that the service runs as, word for word."""
    with zipfile.ZipFile(service_wheel) as archive:
        brought = archive.read("app/postgres-roles.sql")
    assert brought == (ROOT / "config/postgres-roles.sql").read_bytes()


def test_the_client_wheel_is_enough(client_wheel: Path, tmp_path: Path) -> None:
    """The client's wheel imports with nothing beside it but h11: no other package, no checkout."""
    wheel, beside = tmp_path / "wheel", tmp_path / "beside"
    with zipfile.ZipFile(client_wheel) as archive:
        archive.extractall(wheel)
    h11 = importlib.util.find_spec("h11")
    assert h11 is not None
    assert h11.origin is not None
    shutil.copytree(Path(h11.origin).parent, beside / "h11")
    # -I and -S: neither the working folder nor site-packages are there to import from.
    subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-W", "error", "-c", IMPORT_FROM, wheel, beside],
        cwd=tmp_path,
        check=True,
        timeout=20,
    )
