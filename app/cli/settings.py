"""Settings on the command line: each option stands for an environment variable and goes before it."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import Any, Final

import click

from app.config import LEVELS, STREAMS_MAX, Config, ConfigInvalid, from_env
from app.domain.lanes import Lane

WRONG: Final = 2
"""Exit status: usage or configuration."""

LANES: Final = [each.value for each in Lane]

_OPTIONS: Final = {
    "database_url": "HALTLINE_DATABASE_URL",
    "namespace": "HALTLINE_NAMESPACE",
    "ttl_ms": "HALTLINE_TTL_MS",
    "bind": "HALTLINE_BIND",
    "log_level": "HALTLINE_LOG_LEVEL",
    "lane": "HALTLINE_LANE",
    "redis_url": "HALTLINE_REDIS_URL",
    "tls_cert": "HALTLINE_TLS_CERT",
    "tls_key": "HALTLINE_TLS_KEY",
    "streams_max": "HALTLINE_STREAMS_MAX",
}


def fail(message: str) -> click.exceptions.Exit:
    """Say what is wrong on standard error, and return what ends the command with status 2."""
    click.echo(f"haltline-server: {message}", err=True)
    return click.exceptions.Exit(WRONG)


def configured(**given: str | None) -> Config:
    """Return the configuration: options first, then the environment, then the defaults.

    Raises:
        click.exceptions.Exit: a setting cannot work; it was said which.
    """
    environment = dict(os.environ)
    environment.update({_OPTIONS[name]: value for name, value in given.items() if value is not None})
    try:
        return from_env(environment)
    except ConfigInvalid as error:
        raise fail(str(error)) from None


def database_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of the database, and its body the configuration."""

    @click.option("--database-url", metavar="URL", help="HALTLINE_DATABASE_URL; default sqlite:///haltline.db")
    @click.option("--namespace", metavar="NAME", help="HALTLINE_NAMESPACE; default `default`")
    @wraps(command)
    def with_config(database_url: str | None, namespace: str | None, **rest: Any) -> Any:
        return command(config=configured(database_url=database_url, namespace=namespace), **rest)

    return with_config


def serving_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of the serving process, and its body the configuration."""

    @click.option("--bind", metavar="ADDRESS:PORT", help="HALTLINE_BIND; default 127.0.0.1:8787")
    @click.option("--database-url", metavar="URL", help="HALTLINE_DATABASE_URL; default sqlite:///haltline.db")
    @click.option("--namespace", metavar="NAME", help="HALTLINE_NAMESPACE; default `default`")
    @click.option("--ttl-ms", metavar="MS", help="HALTLINE_TTL_MS: lease ttl of a new log; default 1000")
    @click.option("--log-level", type=click.Choice(LEVELS), help="HALTLINE_LOG_LEVEL; default info")
    @click.option("--lane", type=click.Choice(LANES), help="HALTLINE_LANE; default all: both on one port")
    @click.option("--redis-url", metavar="URL", help="HALTLINE_REDIS_URL: rings between nodes; default none")
    @click.option("--tls-cert", metavar="FILE", help="HALTLINE_TLS_CERT: certificate chain, PEM; default plain HTTP")
    @click.option("--tls-key", metavar="FILE", help="HALTLINE_TLS_KEY: its private key, PEM")
    @click.option("--streams-max", metavar="N", help=f"HALTLINE_STREAMS_MAX: lease streams; default {STREAMS_MAX}")
    @wraps(command)
    def with_config(**options: Any) -> Any:
        given = {name: options.pop(name) for name in _OPTIONS}
        return command(config=configured(**given), **options)

    return with_config
