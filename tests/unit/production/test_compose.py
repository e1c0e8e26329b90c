"""The compose file: two of each lane, nothing secret in it, and every file that it names is there."""

from __future__ import annotations

import re
from typing import Any

import pytest

from app.config import STREAMS_MAX, from_env
from app.domain.lanes import Lane
from tests.unit.production.files import PRODUCTION, ROOT, env_file

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: the compose file cannot be read")

DEMANDED = re.compile(r"\$\{([A-Z_]+)(.*?)\}")


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    """Return the services of the compose file."""
    loaded = yaml.safe_load((PRODUCTION / "compose.yaml").read_text(encoding="utf-8"))
    return dict(loaded["services"])


def lane_of(service: dict[str, Any]) -> Lane | None:
    """Return the lane that a service serves, None for what is no lane."""
    if "env_file" not in service:
        return None
    environment = env_file(PRODUCTION / service["env_file"]) | service["environment"]
    return from_env({name: DEMANDED.sub("secret", value) for name, value in environment.items()}).lane


def test_two_of_each(services: dict[str, dict[str, Any]]) -> None:
    """Two control lanes and two worker nodes, each with a configuration that works."""
    lanes = [lane_of(each) for each in services.values()]
    assert lanes.count(Lane.CONTROL) == 2
    assert lanes.count(Lane.WORKER) == 2


def test_what_stands_beside(services: dict[str, dict[str, Any]]) -> None:
    """PostgreSQL 18, Valkey 9 and a load balancer, which alone can be reached from outside, on this machine."""
    assert services["postgres"]["image"] == "postgres:18"
    assert services["valkey"]["image"] == "valkey/valkey:9"
    published = {name: each["ports"] for name, each in services.items() if "ports" in each}
    assert published == {"balancer": ["127.0.0.1:8787:8787", "127.0.0.1:8788:8788"]}


def test_everybody_waited_for_is_there(services: dict[str, dict[str, Any]]) -> None:
    """Who is waited for exists; who must be healthy can say so."""
    for each in services.values():
        for name, waits in each.get("depends_on", {}).items():
            assert name in services
            if waits["condition"] == "service_healthy":
                assert "healthcheck" in services[name]


def test_one_lane_begins_the_log(services: dict[str, dict[str, Any]]) -> None:
    """Every other lane waits for the first one: so it is known whose journal has the admin token."""
    waiting = [name for name, each in services.items() if lane_of(each) and "control-1" in each.get("depends_on", {})]
    assert waiting == ["control-2", "worker-1", "worker-2"]


def test_no_secret_in_it() -> None:
    """Each password is demanded from outside, and none has a default."""
    text = (PRODUCTION / "compose.yaml").read_text(encoding="utf-8")
    given = DEMANDED.findall(text)
    assert {name for name, _ in given} == {"OWNER_PASSWORD", "SERVICE_PASSWORD", "VALKEY_PASSWORD"}
    assert all(rest.startswith(":?") for _, rest in given)


def test_room_for_every_stream(services: dict[str, dict[str, Any]]) -> None:
    """A lane may open a file for each stream that it may carry."""
    for each in services.values():
        if lane_of(each):
            assert each["ulimits"]["nofile"] >= STREAMS_MAX


def test_room_for_every_stream_at_the_balancer(services: dict[str, dict[str, Any]]) -> None:
    """The balancer takes as many connections as the nodes carry streams, and may open two files for each."""
    recipe = (PRODUCTION / "haproxy.cfg").read_text(encoding="utf-8")
    (connections,) = map(int, re.findall(r"^    maxconn (\d+)$", recipe, re.MULTILINE))
    assert connections > 2 * STREAMS_MAX
    assert services["balancer"]["ulimits"]["nofile"] > 2 * connections


def test_the_doorbell_has_one_user(services: dict[str, dict[str, Any]]) -> None:
    """Valkey is told the rights of valkey.acl, word for word, and nobody else may enter."""
    acl = (PRODUCTION / "valkey.acl").read_text(encoding="utf-8")
    off, one = (line for line in acl.splitlines() if not line.startswith("#"))
    assert off == "user default off"
    rights = one.split()[4:]
    words = services["valkey"]["command"][2].replace("\\\n", " ").replace('"', "").split()
    given = words[words.index("haltline") - 1 :]
    assert given == ["--user", "haltline", "on", ">$$VALKEY_PASSWORD", *rights]
    assert words[words.index("default") + 1] == "off"


def test_the_image_can_be_built(services: dict[str, dict[str, Any]]) -> None:
    """Whatever the Dockerfile copies is in the build's context."""
    build = services["control-1"]["build"]
    context = (PRODUCTION / build["context"]).resolve()
    assert context == ROOT
    recipe = context / build["dockerfile"]
    ignored = recipe.with_name(recipe.name + ".dockerignore").read_text(encoding="utf-8").split()
    assert ignored[0] == "*"
    sources = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+) \S+$", recipe.read_text(encoding="utf-8"), re.MULTILINE)
        for source in line.split()
    ]
    assert {"requirements.lock", "app", "client", "migrations", "config/postgres-roles.sql"} <= set(sources)
    for source in sources:
        assert (context / source).exists()
        assert f"!{source}" in ignored
