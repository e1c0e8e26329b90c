"""Configuration: a frozen value made from a mapping of environment variables; nothing here reads the environment."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from app.bus.address import check as check_redis
from app.domain.lanes import Lane
from app.domain.promises import TTL_MAX_MS, TTL_MIN_MS
from haltline.errors import InvalidTarget
from haltline.scopes import check_namespace

LEVELS: Final = ("debug", "info", "warning", "error")

STREAMS_MAX: Final = 10_000
"""How many lease streams a node carries by default; beyond it, a worker is told to ask another node."""

_BIND: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})", re.ASCII)


class ConfigInvalid(Exception):
    """A setting cannot work; the message names the variable and says what to set it to."""


@dataclass(frozen=True, slots=True)
class Config:
    """How one service process runs.

    Attributes:
        database_url: where the log is kept: ``sqlite:///path`` or ``postgresql://user:password@host/name``.
        namespace: the namespace of the log; a database that holds another one is refused.
        ttl_ms: the lease ttl that a new log starts with, milliseconds, 200 to 5000; an existing log keeps its own.
        bind: the address and port to listen on.
        log_level: the least serious event that is logged.
        lane: which part of the service this process serves.
        redis_url: the Redis that rings between nodes: ``redis://host:port/0``; None where there is one process only.
        tls_cert: the file of the certificate chain to serve HTTPS with; None to serve plain HTTP.
        tls_key: the file of its private key.
        streams_max: how many lease streams this process carries at once.
    """

    database_url: str = field(default="sqlite:///haltline.db", repr=False)
    namespace: str = "default"
    ttl_ms: int = 1_000
    bind: str = "127.0.0.1:8787"
    log_level: str = "info"
    lane: Lane = Lane.ALL
    redis_url: str | None = field(default=None, repr=False)
    tls_cert: str | None = None
    tls_key: str | None = None
    streams_max: int = STREAMS_MAX

    @property
    def embedded(self) -> bool:
        """Whether this is an embedded install: SQLite, one process, one admin who may do everything."""
        return self.database_url.startswith("sqlite")


def _namespace(value: str) -> str:
    try:
        return check_namespace(value)
    except InvalidTarget as error:
        raise ValueError(str(error)) from None


def _ttl(value: str) -> int:
    if not value.isascii() or not value.isdigit() or not TTL_MIN_MS <= int(value) <= TTL_MAX_MS:
        raise ValueError(f"set it to whole milliseconds from {TTL_MIN_MS} to {TTL_MAX_MS}, as in 1000")
    return int(value)


def _bind(value: str) -> str:
    found = _BIND.fullmatch(value)
    if found is None or not 1 <= int(found[1]) <= 65_535:
        raise ValueError("set it to address:port, as in 127.0.0.1:8787 or [::1]:8787")
    return value


def _level(value: str) -> str:
    if value not in LEVELS:
        raise ValueError(f"set it to one of {', '.join(LEVELS)}")
    return value


def _lane(value: str) -> Lane:
    if value not in tuple(Lane):
        raise ValueError(f"set it to one of {', '.join(Lane)}")
    return Lane(value)


def _redis(value: str) -> str | None:
    if value:
        check_redis(value)
    return value or None


def _file(value: str) -> str | None:
    return value or None


def _streams(value: str) -> int:
    if not value.isascii() or not value.isdigit() or not 1 <= int(value) <= 100_000:
        raise ValueError("set it to a whole number from 1 to 100000")
    return int(value)


def _database(value: str) -> str:
    if not value.startswith(("sqlite:", "postgresql:", "postgresql+psycopg:")):
        raise ValueError("set it to sqlite:///path/to/haltline.db or postgresql://user:password@host/name")
    return value


VARIABLES: Final[Mapping[str, tuple[str, Callable[[str], str | int | None]]]] = {
    "HALTLINE_DATABASE_URL": ("database_url", _database),
    "HALTLINE_NAMESPACE": ("namespace", _namespace),
    "HALTLINE_TTL_MS": ("ttl_ms", _ttl),
    "HALTLINE_BIND": ("bind", _bind),
    "HALTLINE_LOG_LEVEL": ("log_level", _level),
    "HALTLINE_LANE": ("lane", _lane),
    "HALTLINE_REDIS_URL": ("redis_url", _redis),
    "HALTLINE_TLS_CERT": ("tls_cert", _file),
    "HALTLINE_TLS_KEY": ("tls_key", _file),
    "HALTLINE_STREAMS_MAX": ("streams_max", _streams),
}
"""Every variable that the service reads, the setting it makes, and the check of its value."""


def from_env(environment: Mapping[str, str]) -> Config:
    """Return the configuration that a mapping of environment variables describes; what is unset takes its default.

    Raises:
        ConfigInvalid: a value cannot work.
    """
    settings: dict[str, str | int | None] = {}
    for variable, (name, check) in VARIABLES.items():
        value = environment.get(variable)
        if value is None:
            continue
        try:
            settings[name] = check(value.strip())
        except ValueError as error:
            # The value itself is not repeated: a database address may carry a password.
            raise ConfigInvalid(f"{variable}: {error}") from None
    config = Config(**settings)  # type: ignore[arg-type]  # each check returns the type of its setting
    if (config.tls_cert is None) != (config.tls_key is None):
        raise ConfigInvalid("HALTLINE_TLS_CERT and HALTLINE_TLS_KEY: set both, or neither")
    if config.embedded and config.lane is not Lane.ALL:
        raise ConfigInvalid("HALTLINE_LANE: an SQLite file has one owner process: set it to all, or use PostgreSQL")
    return config
