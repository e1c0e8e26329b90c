"""Configuration: pure, complete, documented, and clear about what to set."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from app.config import VARIABLES, Config, ConfigInvalid, from_env
from app.domain.lanes import Lane

EXAMPLE = Path(__file__).parents[3] / "config" / "example.env"


def documented() -> dict[str, str]:
    """Return the variables that the example sets."""
    text = EXAMPLE.read_text("utf-8")
    return dict(re.findall(r"^([A-Z_]+)=(.*)$", text, re.MULTILINE))


def test_defaults_need_nothing() -> None:
    """An empty environment is a working embedded install."""
    assert from_env({}) == Config()
    assert from_env({}).embedded


def test_every_variable_is_documented_with_its_default() -> None:
    """config/example.env names exactly the variables that the service reads, each with its default."""
    assert set(documented()) == set(VARIABLES)
    assert from_env(documented()) == Config()


def test_every_variable_is_read() -> None:
    """Each variable changes its own setting."""
    values = {
        "HALTLINE_DATABASE_URL": "postgresql://u:p@db/haltline",
        "HALTLINE_NAMESPACE": "prod-1",
        "HALTLINE_TTL_MS": "2000",
        "HALTLINE_BIND": "[::1]:9000",
        "HALTLINE_LOG_LEVEL": "debug",
        "HALTLINE_LANE": "worker",
        "HALTLINE_REDIS_URL": "redis://u:p@bell:6379/0",
        "HALTLINE_TLS_CERT": "/etc/haltline/tls.crt",
        "HALTLINE_TLS_KEY": "/etc/haltline/tls.key",
        "HALTLINE_STREAMS_MAX": "500",
    }
    assert set(values) == set(VARIABLES)
    config = from_env(values)
    assert config == Config(
        database_url="postgresql://u:p@db/haltline",
        namespace="prod-1",
        ttl_ms=2_000,
        bind="[::1]:9000",
        log_level="debug",
        lane=Lane.WORKER,
        redis_url="redis://u:p@bell:6379/0",
        tls_cert="/etc/haltline/tls.crt",
        tls_key="/etc/haltline/tls.key",
        streams_max=500,
    )
    assert not config.embedded


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HALTLINE_DATABASE_URL", "mysql://u:hunter2@db/x"),
        ("HALTLINE_DATABASE_URL", ""),
        ("HALTLINE_NAMESPACE", "Prod"),
        ("HALTLINE_NAMESPACE", "a" * 33),
        ("HALTLINE_TTL_MS", "199"),
        ("HALTLINE_TTL_MS", "5001"),
        ("HALTLINE_TTL_MS", "1e3"),
        ("HALTLINE_TTL_MS", "\u0661000"),
        ("HALTLINE_BIND", "8787"),
        ("HALTLINE_BIND", "127.0.0.1:0"),
        ("HALTLINE_BIND", "127.0.0.1:65536"),
        ("HALTLINE_LOG_LEVEL", "INFO"),
        ("HALTLINE_LANE", "both"),
        ("HALTLINE_LANE", "control"),  # on SQLite, whose file has one owner process
        ("HALTLINE_REDIS_URL", "http://u:hunter2@bell"),
        ("HALTLINE_TLS_CERT", "/etc/haltline/tls.crt"),  # without its key
        ("HALTLINE_STREAMS_MAX", "0"),
        ("HALTLINE_STREAMS_MAX", "100001"),
    ],
)
def test_a_wrong_value_names_its_variable(variable: str, value: str) -> None:
    """The message names the variable and what to set, and never repeats a value that may be a password."""
    with pytest.raises(ConfigInvalid, match=variable) as caught:
        from_env({variable: value})
    assert "hunter2" not in str(caught.value)
    assert re.search(r"set it to|set both|allowed", str(caught.value))


def test_frozen_and_discreet() -> None:
    """A configuration cannot be changed, and its repr does not show the password of the database or of Redis."""
    config = from_env(
        {"HALTLINE_DATABASE_URL": "postgresql://u:hunter2@db/haltline", "HALTLINE_REDIS_URL": "redis://u:hunter2@bell"}
    )
    assert "hunter2" not in repr(config)
    with pytest.raises(FrozenInstanceError):
        config.ttl_ms = 1  # type: ignore[misc]
