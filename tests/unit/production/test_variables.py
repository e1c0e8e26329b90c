"""The variables in config/ are the ones that the code reads, all of them and no others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.bus.redis import RedisDoorbell
from app.config import VARIABLES, from_env
from app.domain.lanes import Lane
from tests.unit.production.files import CONFIG, PRODUCTION, ROOT, VARIABLE, env_file

CLIENT = ROOT / "client" / "haltline"


def read_by_the_client() -> set[str]:
    """Return the variables that the client and its command line name in their code."""
    named = re.compile(r'"(HALTLINE_[A-Z_]+)"')
    return {name for path in CLIENT.rglob("*.py") for name in named.findall(path.read_text(encoding="utf-8"))}


def test_the_example_names_every_variable() -> None:
    """config/example.env names every variable that the service, the client or the command line reads."""
    named = set(VARIABLE.findall((CONFIG / "example.env").read_text(encoding="utf-8")))
    assert named == VARIABLES.keys() | read_by_the_client()


@pytest.mark.parametrize(
    "path",
    [each for each in sorted(CONFIG.rglob("*")) if each.is_file()],
    ids=lambda path: str(path.relative_to(CONFIG)),
)
def test_every_variable_is_read(path: Path) -> None:
    """No file in config/ names a variable that nobody reads."""
    named = set(VARIABLE.findall(path.read_text(encoding="utf-8")))
    assert named <= VARIABLES.keys() | read_by_the_client()


@pytest.mark.parametrize("lane", [Lane.CONTROL, Lane.WORKER])
def test_a_lane_of_its_own(lane: Lane) -> None:
    """Each lane's file is a configuration that works: that lane, on PostgreSQL, with the doorbell of Redis."""
    config = from_env(env_file(PRODUCTION / f"{lane.value}.env"))
    assert config.lane is lane
    assert config.database_url.startswith("postgresql://haltline_service@")
    assert "sslmode=verify-full" in config.database_url
    assert config.redis_url is not None
    assert config.redis_url.startswith("rediss://haltline:")
    assert config.redis_url.endswith("?ssl_ca_certs=/etc/haltline/ca.crt")
    RedisDoorbell(config.redis_url, config.namespace).close()  # the address is understood as it stands


def test_the_doorbell_beyond_one_machine_is_tls() -> None:
    """Valkey's example listens with TLS only, as the lanes' files ask for it."""
    lines = (PRODUCTION / "valkey.conf").read_text(encoding="utf-8").splitlines()
    assert {"port 0", "tls-port 6379", "tls-cert-file /etc/valkey/tls.crt"} <= set(lines)


def test_both_lanes_use_the_same_log() -> None:
    """Database, namespace and doorbell are the same in both files: otherwise a kill would not be heard of."""
    control, worker = (env_file(PRODUCTION / f"{lane}.env") for lane in ("control", "worker"))
    for name in ("HALTLINE_DATABASE_URL", "HALTLINE_NAMESPACE", "HALTLINE_REDIS_URL"):
        assert control[name] == worker[name]
